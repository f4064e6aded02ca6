package testca

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
)

// Has tells whether the folder holds file.crt or file.key.
func (ca *CA) Has(file string) bool {
	for _, name := range []string{file + ".crt", file + ".key"} {
		if _, err := os.Lstat(ca.path(name)); err == nil {
			return true
		}
	}
	return false
}

// write writes file.crt and file.key, both or none.
func (ca *CA) write(file string, cert []byte, key *ecdsa.PrivateKey) error {
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writeNew(ca.path(file+".key"), 0o600, &pem.Block{Type: "PRIVATE KEY", Bytes: private}); err != nil {
		return err
	}
	if err := writeNew(ca.path(file+".crt"), 0o644, &pem.Block{Type: "CERTIFICATE", Bytes: cert}); err != nil {
		return errors.Join(err, os.Remove(ca.path(file+".key")))
	}
	return nil
}

func writeNew(path string, mode os.FileMode, block *pem.Block) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	err = pem.Encode(f, block)
	return errors.Join(err, f.Close())
}
