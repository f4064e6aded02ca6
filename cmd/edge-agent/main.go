// Command edge-agent is the industrial edge agent: see the README.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"
)

// version is set by the linker (scripts/build); otherwise the build says it.
var version string

// Exit codes, which scripts and service managers hold on to.
const (
	exitDone  = 0
	exitInput = 1 // the input or configuration is wrong
	exitRun   = 2 // it could not run
)

// errInput marks an error whose cause is what the user gave.
var errInput = errors.New("wrong input")

// inputError is one with a text of its own.
type inputError struct{ error }

// Is makes it an errInput.
func (inputError) Is(target error) bool { return target == errInput }

type commands struct {
	Run     runCommand     `cmd:"" help:"Run the agent."`
	Check   checkCommand   `cmd:"" help:"Check a configuration file and print every mistake in it."`
	Demo    demoCommand    `cmd:"" help:"Show the main job: simulated devices, a broker and the agent in one process."`
	Ports   portsCommand   `cmd:"" help:"List the serial ports of this machine, with their USB identities."`
	Probe   probeCommand   `cmd:"" help:"Find the Modbus devices on a line and how it is set; print a configuration to paste."`
	Cert    certCommand    `cmd:"" help:"Make a CA for tests, and certificates of servers and clients."`
	Write   writeCommand   `cmd:"" help:"Write a point of a device."`
	Read    readCommand    `cmd:"" help:"Read points of a device now."`
	Call    callCommand    `cmd:"" help:"Call a method of an MCP device."`
	Queue   queueCommand   `cmd:"" help:"Look at the queue on disk, of a running agent or a stopped one, and mend it."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

type versionCommand struct{}

func (versionCommand) Run(out io.Writer) error {
	_, err := fmt.Fprintln(out, "edge-agent", versionText())
	return err
}

func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "devel"
}

func main() {
	// quic-go would write to the standard log, past ours, that the kernel allows
	// smaller buffers than it likes (see docs/architecture.md, Transports).
	_ = os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once: whoever sends it means it, and
	// nothing acknowledged is lost.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main without the process, so that tests can call it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (code int) {
	// kong prints help and ends the process through Exit; the panic brings its
	// code here instead.
	type exit int
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(exit)
			if !ok {
				panic(r)
			}
			code = int(e)
		}
	}()
	parser, err := kong.New(&commands{},
		kong.Name("edge-agent"),
		kong.Description("Brings what industrial devices say to where it is wanted, and loses nothing on the way."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { panic(exit(code)) }),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.BindTo(stdout, (*io.Writer)(nil)),
		kong.BindTo(os.Stdin, (*io.Reader)(nil)),
		kong.Bind(errorWriter{stderr}),
		kong.UsageOnError(),
	)
	if err != nil {
		fmt.Fprintln(stderr, "edge-agent:", err)
		return exitRun
	}
	command, err := parser.Parse(numbersLast(args))
	if err != nil {
		fmt.Fprintf(stderr, "edge-agent: %v\nTry: %s --help\n", err, commandOf(err))
		return exitInput
	}
	if err := command.Run(); err != nil {
		if !errors.Is(err, errSilent) {
			fmt.Fprintln(stderr, "edge-agent:", err)
		}
		if errors.Is(err, errInput) {
			return exitInput
		}
		return exitRun
	}
	return exitDone
}

// commandOf is what a wrong argument was given to.
func commandOf(err error) string {
	var wrong *kong.ParseError
	if errors.As(err, &wrong) && wrong.Context != nil && wrong.Context.Selected() != nil {
		return "edge-agent " + wrong.Context.Selected().Name
	}
	return "edge-agent"
}

// errSilent is errInput where the output has said everything.
var errSilent = fmt.Errorf("%w, told already", errInput)

// errorWriter is where logs and errors go; a type of its own, so that kong can
// tell it from standard output.
type errorWriter struct{ io.Writer }
