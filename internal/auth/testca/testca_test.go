package testca

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestACAIsMadeOnceAndSigns(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	ca, made, err := Open(dir)
	if err != nil || !made {
		t.Fatal(made, err)
	}
	if err := ca.Server("plant.test", "10.0.0.5"); err != nil {
		t.Fatal(err)
	}
	again, made, err := Open(dir)
	if err != nil || made || !again.cert.Equal(ca.cert) {
		t.Fatal(made, err)
	}
	if err := again.Client("press-7"); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	for file, use := range map[string]x509.ExtKeyUsage{"server": x509.ExtKeyUsageServerAuth, "press-7": x509.ExtKeyUsageClientAuth} {
		pair, err := tls.LoadX509KeyPair(ca.path(file+".crt"), ca.path(file+".key"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{use}}); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if life := time.Until(pair.Leaf.NotAfter); life > 366*day || life < 364*day {
			t.Errorf("%s is valid for %v", file, life)
		}
		if file == "server" && (!slices.Equal(pair.Leaf.DNSNames, []string{"plant.test"}) || pair.Leaf.VerifyHostname("10.0.0.5") != nil) {
			t.Errorf("the server's names are %q, %v", pair.Leaf.DNSNames, pair.Leaf.IPAddresses)
		}
		if file == "press-7" && pair.Leaf.Subject.CommonName != "press-7" {
			t.Errorf("the client is %q", pair.Leaf.Subject.CommonName)
		}
	}
}

func TestWhatIsThereStays(t *testing.T) {
	dir := t.TempDir()
	ca, _, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca.path("press-7.crt"), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ca.Client("press-7"); !errors.Is(err, os.ErrExist) {
		t.Errorf("Client: %v", err)
	}
	if text, _ := os.ReadFile(ca.path("press-7.crt")); string(text) != "precious" {
		t.Errorf("it is %q now", text)
	}
	if _, err := os.Stat(ca.path("press-7.key")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a key without its certificate was left: %v", err)
	}
	if err := os.Remove(ca.path("ca.key")); err != nil {
		t.Fatal(err)
	}
	if _, made, err := Open(dir); made || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a CA without its key: %v, %v", made, err)
	}
}
