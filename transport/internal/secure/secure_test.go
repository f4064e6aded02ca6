package secure

import (
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
