package text

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mcp-edge/edge-agent/record"
)

// sealed puts start and checksum around a sentence.
func sealed(body string) string { return fmt.Sprintf("$%s*%02X", body, Checksum([]byte(body))) }

func TestCommonSentencesHaveNamedPoints(t *testing.T) {
	c := base(func(c *Config) { c.Format = FormatNMEA })
	for line, want := range map[string]string{
		// As receivers' handbooks show them, with their checksums.
		"$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47":    `GPGGA,"values":{"time":"12:35:19","latitude":48.1173,"longitude":11.516666666666667,"fix":1,"satellites":8,"hdop":0.9,"altitude":545.4,"geoid_separation":46.9},"units":{"latitude":"°","longitude":"°","altitude":"m","geoid_separation":"m"}`,
		"$GPRMC,123519,A,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W*6A": `GPRMC,"values":{"time":"12:35:19","status":"A","latitude":48.1173,"longitude":11.516666666666667,"speed":22.4,"course":84.4,"date":"1994-03-23","variation":-3.1},"units":{"latitude":"°","longitude":"°","speed":"kn","course":"°","variation":"°"}`,
		"$GPGLL,4916.45,N,12311.12,W,225444,A,*1D":                             `GPGLL,"values":{"latitude":49.274166666666666,"longitude":-123.18533333333333,"time":"22:54:44","status":"A"},"units":{"latitude":"°","longitude":"°"}`,
		"$GPVTG,054.7,T,034.4,M,005.5,N,010.2,K*48":                            `GPVTG,"values":{"course":54.7,"course_magnetic":34.4,"speed":5.5,"speed_kmh":10.2},"units":{"course":"°","course_magnetic":"°","speed":"kn","speed_kmh":"km/h"}`,
		"$GPGSA,A,3,04,05,,09,12,,,24,,,,,2.5,1.3,2.1*39":                      `GPGSA,"values":{"selection":"A","fix":3,"satellite_1":"04","satellite_2":"05","satellite_4":"09","satellite_5":"12","satellite_8":"24","pdop":2.5,"hdop":1.3,"vdop":2.1}`,
		"$GPHDT,274.07,T*03":                       `GPHDT,"values":{"heading":274.07},"units":{"heading":"°"}`,
		"$WIMWV,214.8,R,0.1,K,A*28":                `WIMWV,"values":{"wind_angle":214.8,"reference":"R","wind_speed":0.1,"status":"A"},"units":{"wind_angle":"°","wind_speed":"km/h"}`,
		sealed("GPZDA,160012.71,11,03,2004,-1,00"): `GPZDA,"values":{"time":"16:00:12.71","day":11,"month":3,"year":2004,"zone_hours":-1,"zone_minutes":0},"units":{"zone_hours":"h","zone_minutes":"min"}`,
		sealed("SDDBT,12.3,f,3.75,M,2.05,F"):       `SDDBT,"values":{"depth_feet":12.3,"depth":3.75,"depth_fathoms":2.05},"units":{"depth_feet":"ft","depth":"m","depth_fathoms":"fathom"}`,
		sealed("YXXDR,C,-19.5,C,AIR,P,1.013,B,BARO,A,7,D,a/b,A,8,D,AIR,A,,D,NONE"): `YXXDR,"values":{"AIR":-19.5,"BARO":1.013,"f10":7,"f14":8},"units":{"AIR":"°C","BARO":"bar","f10":"°","f14":"°"}`,
	} {
		if got := read(t, c, line); got != want {
			t.Errorf("%s:\n got %s\nwant %s", line, got, want)
		}
	}
}

func TestFieldsWithoutANameAreNumbered(t *testing.T) {
	c := base(func(c *Config) { c.Format, c.Units = FormatNMEA, map[string]string{"f1": "m", "heading": "deg"} })
	for body, want := range map[string]string{
		"PGRME,15.0,M,,M,25.0,M": `PGRME,"values":{"f1":15,"f2":"M","f4":"M","f5":25,"f6":"M"},"units":{"f1":"m"}`,
		"GPTXT,01,01,02,hello":   `GPTXT,"values":{"f1":1,"f2":1,"f3":2,"f4":"hello"},"units":{"f1":"m"}`,
		"GPHDT,1.5,T,new":        `GPHDT,"values":{"heading":1.5,"f3":"new"},"units":{"heading":"deg"}`,
		"GPTXT":                  `GPTXT`,
	} {
		if got := read(t, c, sealed(body)); got != want {
			t.Errorf("%s:\n got %s\nwant %s", body, got, want)
		}
	}
	if got, want := read(t, c, "!AIVDM,1,1,,B,177KQJ5000G?tO`K>RA1wUbN0TKH,0*5C"), `AIVDM,"values":{"f1":1,"f2":1,"f4":"B","f5":"177KQJ5000G?tO`+"`K>RA1wUbN0TKH\""; !strings.HasPrefix(got, want) {
		t.Errorf("got %s", got)
	}
}

func TestAFieldThatMakesNoSenseIsABadPoint(t *testing.T) {
	c := base(func(c *Config) { c.Format = FormatNMEA })
	for body, want := range map[string]string{
		"GPGLL,9916.45,N,12311.12,W": `"bad":{"latitude":"format"}`,
		"GPGLL,4960.00,N,12311.12,W": `"bad":{"latitude":"format"}`,
		"GPGLL,4916.45,X,12311.12,W": `"bad":{"latitude":"format"}`,
		"GPGLL,4916.45,E,12311.12,W": `"bad":{"latitude":"format"}`,
		"GPGLL,4916.45,N,-1.12,W":    `"bad":{"longitude":"format"}`,
		"GPGLL,,,,,256060,A":         `"bad":{"time":"format"}`,
		"GPRMC,,,,,,,1,2,321394":     `"bad":{"date":"format"}`,
		"GPHDT,north,T":              `"bad":{"heading":"format"}`,
	} {
		if got := read(t, c, sealed(body)); !strings.HasSuffix(got, want) {
			t.Errorf("%s: got %s, want %s", body, got, want)
		}
	}
}

func TestASentenceThatIsNotWholeIsNotUnderstood(t *testing.T) {
	c := base(func(c *Config) { c.Format = FormatNMEA })
	for _, line := range []string{
		"$GPHDT,274.07,T*04", "$GPHDT,274.17,T*03", "$GPHDT,274.07,T", "$GPHDT,274.07,T*0", "GPHDT,274.07,T*03",
		"$GPHDT,274.07,T*0G", "$*00", "*00", "$", "", sealed(""), sealed("gphdt,1,T"), sealed("G,1"), sealed("GP HDT,1"),
		sealed(strings.Repeat("A", 17)), sealed("GPTXT" + strings.Repeat(",", record.MaxPoints+1)),
	} {
		if got := read(t, c, line); got != "?" {
			t.Errorf("%.60q: got %.60s", line, got)
		}
	}
}

func TestOneDeviceCannotInventStreamsWithoutEnd(t *testing.T) {
	p := newNMEA(&Config{})
	for i := range 3 * maxStreams {
		got := readWith(p, sealed(fmt.Sprintf("P%05d,1", i)))
		if (got == "?") != (i >= maxStreams) {
			t.Fatalf("stream %d: %s", i, got)
		}
	}
	if got := readWith(p, sealed("P00000,1")); got == "?" {
		t.Error("a stream that was there before is not understood any more")
	}
}
