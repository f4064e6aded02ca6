package mqtt

import "fmt"

// reasonText says in words what a broker's reason code means (MQTT 5.0, section
// 2.4, those a publisher can meet), and what to do where that is known.
func reasonText(code byte, fromBroker string) string {
	text, ok := map[byte]string{
		0x00: "normal end",
		0x80: "no reason given",
		0x81: "malformed packet",
		0x82: "protocol error",
		0x83: "not accepted by this broker",
		0x84: "it does not speak MQTT 5",
		0x85: "the client id is not allowed: set client_id",
		0x86: "wrong username or password",
		0x87: "not authorised: check the broker's access rules",
		0x88: "the broker is unavailable",
		0x89: "the broker is busy",
		0x8A: "this client is banned",
		0x8B: "the broker is shutting down",
		0x8D: "the broker heard nothing for the keep-alive time",
		0x8E: "another client came with the same client id: set client_id",
		0x90: "the topic is not allowed",
		0x91: "the packet identifier is in use",
		0x93: "too many unacknowledged messages: lower window",
		0x95: "the message is too large for the broker",
		0x96: "too many messages in a short time",
		0x97: "a quota of the broker is exceeded",
		0x98: "closed by the broker's administrator",
		0x99: "the payload is not allowed",
		0x9B: "the broker takes no QoS 1",
		0x9C: "use another broker",
		0x9D: "the broker has moved",
		0x9F: "too many connections in a short time",
		0xA0: "the longest time to be connected is over",
	}[code]
	if !ok {
		text = "unknown reason"
	}
	if fromBroker != "" {
		text += ": " + fromBroker
	}
	return fmt.Sprintf("%s (0x%02x)", text, code)
}

// passing tells whether a PUBACK's reason says nothing about the message
// itself, so that the same one may be taken later: the broker has too much to
// do, or its access rules are (still) wrong, as they often are while a plant is
// being set up. Such records wait in the queue, and go out once it is mended.
func passing(code byte) bool {
	switch code {
	case unspecified, implementationSpecific, notAuthorised, identifierInUse, quotaExceeded:
		return true
	}
	return false
}

const (
	unspecified            = 0x80
	implementationSpecific = 0x83
	notAuthorised          = 0x87
	identifierInUse        = 0x91
	quotaExceeded          = 0x97
)

// blamesMessage tells whether a DISCONNECT may be a message's fault. Some
// brokers close the connection where others would refuse in the PUBACK.
func blamesMessage(code byte) bool {
	switch code {
	case 0x81, 0x82, 0x90, 0x95, 0x99:
		return true
	}
	return false
}
