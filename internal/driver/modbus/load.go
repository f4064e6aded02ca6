package modbus

import "time"

// requestChars are those of a read request's frame on an RTU line.
const requestChars = 8

// Load is the least line time that one round of a poll needs, and in how many
// requests: the characters of requests and replies, the silences before each and
// the device's gap, and no time for the device to answer. char is how long a
// character takes on the line; 0 on a connection without such, where only the
// gap counts. Points that ValidatePoints finds fault with need nothing.
func Load(link LinkConfig, device DeviceConfig, points []PointConfig, char time.Duration) (round time.Duration, requests int) {
	parsed, err := pointsOf(points)
	if err != nil {
		return 0, 0
	}
	reads, err := plan(parsed, device)
	if err != nil {
		return 0, 0
	}
	for _, r := range reads {
		round += device.Gap
		if link.Framing == FramingRTU {
			round += time.Duration(requestChars+inRTU(r.request.size))*char + 2*silenceOf(char)
		}
	}
	return round, len(reads)
}
