package secure

import (
	"cmp"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/mcp-edge/edge-agent/transport"
)

func TestAConfigurationIsMadeStricterOnce(t *testing.T) {
	given := &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS12}
	s := NewSource(func() *tls.Config { return given }, "plant.test")
	first, err := s.Config()
	if err != nil {
		t.Fatal(err)
	}
	if first.MinVersion != tls.VersionTLS13 || first.MaxVersion != 0 || first.ServerName != "plant.test" {
		t.Errorf("versions %x to %x for %q", first.MinVersion, first.MaxVersion, first.ServerName)
	}
	if given.MinVersion != tls.VersionTLS10 || given.ServerName != "" {
		t.Error("the caller's own was changed")
	}
	if again, _ := s.Config(); again != first {
		t.Error("another one without a change: session tickets are lost")
	}
	given = &tls.Config{ServerName: "other.test"}
	if renewed, _ := s.Config(); renewed == first || renewed.ServerName != "other.test" {
		t.Error("the change is not seen")
	}
	given = nil
	if _, err := s.Config(); !errors.Is(err, transport.ErrPermanent) {
		t.Errorf("without a configuration: %v", err)
	}
}

func TestAlertsSayWhatToDo(t *testing.T) {
	for code, want := range map[tls.AlertError]string{
		certificateRequired: "set cert and key",
		certificateExpired:  "renew it",
		unknownCA:           "trust the CA",
		certificateRevoked:  "revoked",
		protocolVersion:     "does not speak TLS 1.3",
		unrecognizedName:    "set server_name",
		handshakeFailure:    "nothing in common",
		80:                  "internal error",
	} {
		// As crypto/tls has it, but for the type, which it keeps to itself.
		reason, settled, ok := Explain(&net.OpError{Op: "remote error", Err: errors.New(code.Error())})
		if !ok || settled != (code != 80) || !strings.Contains(reason, want) {
			t.Errorf("%v: %q, %v, %v", code, reason, settled, ok)
		}
	}
}

func TestOnlyErrorsOfTLSAreExplained(t *testing.T) {
	if reason, _, ok := Explain(net.ErrClosed); ok {
		t.Errorf("%q", reason)
	}
	if reason, settled, ok := Explain(io.ErrUnexpectedEOF); !ok || settled {
		t.Errorf("a peer that hangs up: %q, %v", reason, settled)
	}
}

func TestWhatWeFindWrongOurselvesSaysWhatToDo(t *testing.T) {
	for text, want := range map[string]string{
		"client didn't provide a certificate":                         "client_ca demands one",
		"client offered only unsupported versions: [303]":             "does not speak TLS 1.3",
		"no cipher suite supported by both client and server":         "nothing in common",
		`client requested unsupported application protocols (["h3"])`: "nothing in common",
		"bad record MAC":                  "damaged on the way",
		"a text that nobody has seen yet": "a text that nobody has seen yet",
	} {
		plain := errors.New("tls: " + text)
		for _, err := range []error{plain, &net.OpError{Op: "local error", Err: plain}} {
			reason, _, ok := Explain(err)
			if !ok || !strings.Contains(reason, want) || strings.Contains(reason, "local error") {
				t.Errorf("%v: %q, %v", err, reason, ok)
			}
		}
	}
}

func TestAnAlertInTheClearIsFoundAtTheEnd(t *testing.T) {
	for name, c := range map[string]struct {
		received []string
		alert    string
	}{
		"nothing":             {nil, ""},
		"an alert":            {[]string{"\x15\x03\x03\x00\x02\x02\x30"}, "unknown certificate authority"},
		"behind other things": {[]string{"\x16\x03\x01\x00\x01x\x14\x03\x03\x00\x01\x01\x15\x03\x03\x00\x02\x02\x30"}, "unknown certificate authority"},
		"byte by byte":        {strings.Split("x\x15\x03\x03\x00\x02\x02\x2a", ""), "bad certificate"},
		"a warning":           {[]string{"\x15\x03\x03\x00\x02\x01\x00"}, ""},
		"encrypted":           {[]string{"\x17\x03\x03\x00\x02\x02\x30"}, ""},
		"something behind it": {[]string{"\x15\x03\x03\x00\x02\x02\x30", "x"}, ""},
	} {
		var tail Tail
		for _, part := range c.received {
			tail.Add([]byte(part))
		}
		err := tail.Alert()
		if (err != nil) != (c.alert != "") || err != nil && !strings.Contains(err.Error(), c.alert) {
			t.Errorf("%s: %v, want %q", name, err, c.alert)
		}
		if _, _, ok := Explain(cmp.Or[error](err, io.EOF)); !ok {
			t.Errorf("%s: %v is not explained", name, err)
		}
	}
}
