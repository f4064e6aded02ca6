package main

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"

	"github.com/mcp-edge/edge-agent/internal/auth/testca"
	"github.com/mcp-edge/edge-agent/record"
)

type certCommand struct {
	Dir    string   `arg:"" help:"The folder; it is made if it is not there. What is in it already stays: to renew a certificate, remove its two files and ask for it again."`
	Host   []string `placeholder:"NAME" help:"A host name or IP address that the server is reached by. Unless given: this machine only."`
	Client []string `placeholder:"NAME" help:"What a client calls itself: its device or agent id."`
}

func (c certCommand) Run(out io.Writer) error {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return err
	}
	for _, name := range c.Client {
		if err := checkClient(name); err != nil {
			return inputError{err}
		}
	}
	for _, host := range c.Host {
		if strings.ContainsAny(host, "/ ") || net.ParseIP(host) == nil && strings.Contains(host, ":") {
			return inputError{fmt.Errorf("--host=%q is no host name or IP address; write it without scheme and port", host)}
		}
	}
	ca, made, err := testca.Open(dir)
	if err != nil {
		return fmt.Errorf("the CA in %s: %w", dir, err)
	}
	server := made || len(c.Host) > 0
	if err := c.refuse(ca, server); err != nil {
		return inputError{err}
	}
	if made {
		fmt.Fprintf(out, "ca.crt, ca.key: a CA for tests, valid for 10 years. Whoever has ca.key can be anybody.\n")
	}
	if server {
		hosts := c.Host
		if len(hosts) == 0 {
			hosts = []string{"localhost", "127.0.0.1", "::1"}
		}
		if err := ca.Server(hosts...); err != nil {
			return err
		}
		fmt.Fprintf(out, "server.crt, server.key: for %s, valid for a year.\n", strings.Join(hosts, ", "))
	}
	for _, name := range c.Client {
		if err := ca.Client(name); err != nil {
			return err
		}
		fmt.Fprintf(out, "%[1]s.crt, %[1]s.key: for the client %[1]s, valid for a year.\n", name)
	}
	c.advise(out, dir, server)
	return nil
}

// refuse comes before anything is signed.
func (c certCommand) refuse(ca *testca.CA, server bool) error {
	files := c.Client
	if server {
		files = append([]string{"server"}, files...)
	}
	if len(files) == 0 {
		return fmt.Errorf("there is a CA in %s already; say with --host or --client what it shall sign", c.Dir)
	}
	seen := make(map[string]bool)
	for _, file := range files {
		if ca.Has(file) || seen[file] {
			return fmt.Errorf("%s.crt or %s.key is there already and is not overwritten: move it away, or take another folder", file, file)
		}
		seen[file] = true
	}
	return nil
}

// checkClient: a client's name is also its file's.
func checkClient(name string) error {
	if err := record.CheckName(name); err != nil {
		return fmt.Errorf("--client=%q %w", name, err)
	}
	if name == "ca" || name == "server" || strings.HasPrefix(name, ".") || strings.ContainsRune(name, filepath.Separator) {
		return fmt.Errorf("--client=%q can't be the name of its file; take another", name)
	}
	return nil
}

// advise says what to write in the configuration.
func (c certCommand) advise(out io.Writer, dir string, server bool) {
	file := func(name string) string { return fmt.Sprintf("%q", filepath.Join(dir, name)) }
	if server {
		fmt.Fprintf(out, "\nIn a [[listen]], to demand a certificate of every client:\n\n  tls = { cert = %s, key = %s, client_ca = %s }\n",
			file("server.crt"), file("server.key"), file("ca.crt"))
		fmt.Fprintf(out, "\nIn the [[link]] of an agent that connects to it, without such a demand:\n\n  tls = { ca = %s }\n", file("ca.crt"))
	}
	for _, name := range c.Client {
		fmt.Fprintf(out, "\n%[1]s says in HELLO that it is %[1]s, and needs ca.crt, %[1]s.crt and %[1]s.key. To try it:\n\n"+
			"  scripts/client/mcp_client.py publish tls://HOST:PORT %[1]s --ca %[2]s --cert %[3]s --key %[4]s n=42\n",
			name, file("ca.crt"), file(name+".crt"), file(name+".key"))
		fmt.Fprintf(out, "\nIf it is an agent, in its [[link]]:\n\n  tls = { ca = %s, cert = %s, key = %s }\n",
			file("ca.crt"), file(name+".crt"), file(name+".key"))
	}
}
