package main

import (
	"context"
	"flag"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write what the commands print into the scripts")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"edge-agent": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
		},
		"make-queue":   makeQueue,
		"damage-queue": damageQueue,
		"break-queue":  breakQueue,
	})
}

// TestCommandLine runs the scripts in testdata/script: what users and their
// service managers see. Each has an agent with a plant to command.
func TestCommandLine(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			address, tokenFile, stop, err := startAgent(env.WorkDir, &plant{})
			if err != nil {
				return err
			}
			env.Defer(stop)
			// Under the race detector each program would rest for a second before it ends.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			env.Setenv("EDGE_AGENT_ADMIN", address)
			env.Setenv("EDGE_AGENT_TOKEN_FILE", tokenFile)
			return nil
		},
	})
}
