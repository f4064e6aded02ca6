package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mcp-edge/edge-agent/internal/config"
	"github.com/mcp-edge/edge-agent/internal/doctor"
	"github.com/mcp-edge/edge-agent/store"
)

// queueCommand is the doctor: it looks at the queue of a running agent through its
// admin API, and at that of a stopped one in its files.
type queueCommand struct {
	Status  queueStatusCommand  `cmd:"" help:"Say how the queue is, and what each route has still to deliver."`
	Ls      queueLsCommand      `cmd:"" help:"List devices and streams in the queue."`
	Peek    queuePeekCommand    `cmd:"" help:"Print records of the queue, as they leave the agent."`
	Check   queueCheckCommand   `cmd:"" help:"Read all of the queue and say what is wrong with it."`
	Repair  queueRepairCommand  `cmd:"" help:"Mend the file of a stopped agent, as far as it can be."`
	Export  queueExportCommand  `cmd:"" help:"Write records as JSON Lines that import takes back."`
	Import  queueImportCommand  `cmd:"" help:"Take back what export has written."`
	Compact queueCompactCommand `cmd:"" help:"Give free space in the queue's file back to the disk, now."`
	Forget  queueForgetCommand  `cmd:"" help:"Give up what a route that is gone has not delivered."`
	Replay  queueReplayCommand  `cmd:"" help:"Send again what was delivered in a stretch of time."`

	Quarantine quarantineCommand `cmd:"" help:"Records that could not be delivered: list, retry, export, delete."`
}

// queueFlags say whose queue a command is for.
type queueFlags struct {
	agentFlags
	DataDir string `placeholder:"DIR" help:"The agent's data directory, where no configuration tells it."`
	Agent   string `placeholder:"ID" help:"The agent's id, where no configuration tells it."`
}

// queueTarget is a queue, either way.
type queueTarget struct {
	dir    string        // empty: not known
	agent  string        // id; empty: not known
	file   *config.File  // nil: no configuration was read
	image  *store.Image  // of a stopped agent
	api    *runningAgent // of a running one
	status doctor.Status // of a running one, as it was found
}

func (t *queueTarget) close() {
	if t.image != nil {
		_ = t.image.Close() // it was only read
	}
}

// open finds the queue. The directory's lock tells whether an agent runs on it.
func (f *queueFlags) open(ctx context.Context) (*queueTarget, error) {
	t, err := f.find()
	if err != nil {
		return nil, err
	}
	if t.dir == "" {
		return t, t.call(ctx, f)
	}
	switch t.image, err = store.OpenImage(t.dir); {
	case err == nil:
		return t, nil
	case errors.Is(err, store.ErrLocked):
		return t, t.call(ctx, f)
	}
	return nil, t.explain(err)
}

// find says where the queue may be; nothing is opened yet but the configuration.
func (f *queueFlags) find() (*queueTarget, error) {
	t := &queueTarget{dir: f.DataDir, agent: f.Agent}
	address := f.Admin
	if f.Config == "" {
		address = cmp.Or(address, os.Getenv("EDGE_AGENT_ADMIN"))
	}
	if f.Config == "" && (f.DataDir != "" || address != "") {
		return t, nil
	}
	path := cmp.Or(f.Config, defaultConfig)
	file, problems, err := config.Load(path, os.LookupEnv)
	switch {
	case errors.Is(err, fs.ErrNotExist) && f.Config == "":
		return nil, inputError{fmt.Errorf("which queue? There is no %s: name the agent's configuration (-c FILE) or its data directory (--data-dir DIR)", path)}
	case err != nil:
		return nil, inputError{fmt.Errorf("the configuration can't be read: %w; --data-dir DIR does without it", err)}
	case problems.Fatal():
		return nil, inputError{fmt.Errorf("%s has mistakes, which edge-agent check %s lists; --data-dir DIR does without it", path, path)}
	}
	t.file = file
	t.dir = cmp.Or(t.dir, file.Agent.DataDir)
	t.agent = cmp.Or(t.agent, file.Agent.ID)
	return t, nil
}

// call asks the agent that has the queue open.
func (t *queueTarget) call(ctx context.Context, f *queueFlags) error {
	address := f.Admin
	if f.Config == "" {
		address = cmp.Or(address, os.Getenv("EDGE_AGENT_ADMIN"))
	}
	if t.file != nil {
		address = cmp.Or(address, t.file.Admin.Listen)
	}
	address, err := dialable(cmp.Or(address, defaultAdmin))
	if err != nil {
		return inputError{err}
	}
	t.api = &runningAgent{address: address, http: agentClient()}
	err = t.api.get(ctx, "/api/v1/queue", &t.status)
	switch {
	case err != nil && t.dir != "":
		return fmt.Errorf("a running agent has the queue in %s open, and none answers at %s: %w. Say where it answers with --admin HOST:PORT, or stop it to look at its files (systemctl stop edge-agent)", t.dir, address, err)
	case err != nil:
		return fmt.Errorf("no agent answers at %s: %w; name the configuration of a stopped one (-c FILE) or its data directory (--data-dir DIR)", address, err)
	case t.dir != "" && !sameDir(t.dir, filepath.Dir(t.status.File)):
		return inputError{fmt.Errorf("the agent at %s has its queue in %s, not in %s: say where the one that you mean answers, with --admin HOST:PORT", address, filepath.Dir(t.status.File), t.dir)}
	}
	t.agent = t.status.Agent
	return nil
}

// authorise brings the token that changing a running agent takes.
func (t *queueTarget) authorise(f *queueFlags) (err error) {
	path := f.TokenFile
	if f.Config == "" {
		path = cmp.Or(path, os.Getenv("EDGE_AGENT_TOKEN_FILE"))
	}
	switch {
	case path != "":
	case t.dir != "":
		path = filepath.Join(t.dir, "admin.token")
	default:
		return inputError{errors.New("changing a running agent takes its token: add --token-file FILE, or -c FILE")}
	}
	t.api.tokenFile = path
	if t.api.token, err = readToken(path); err != nil {
		return inputError{err}
	}
	return nil
}

// defaultAdmin is where an agent answers unless it is configured otherwise.
const defaultAdmin = "127.0.0.1:9600"

// sameDir is true where one of the two can't be seen from here, as with an agent in
// a container.
func sameDir(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return true
	}
	y, err := os.Stat(b)
	return err != nil || os.SameFile(x, y)
}

// explain says what to do about a queue that can't be opened.
func (t *queueTarget) explain(err error) error {
	switch {
	case errors.Is(err, store.ErrNoQueue):
		return inputError{fmt.Errorf("there is no queue in %s: is that the data_dir of the agent? The queue's file is %s", t.dir, store.FileName)}
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: the queue is for the agent's own user and root; try sudo", err)
	case errors.Is(err, store.ErrForeign):
		return fmt.Errorf("%w; nothing was changed. Move it away if the agent is to start with an empty queue", err)
	case errors.Is(err, store.ErrNewer):
		return fmt.Errorf("%w; nothing was changed. Use the edge-agent that wrote it", err)
	case errors.Is(err, store.ErrDamaged):
		return fmt.Errorf("%w; nothing was changed", err)
	}
	return err
}

// whose is the agent's name, for people.
func (t *queueTarget) whose() string {
	if t.agent == "" {
		return ""
	}
	return " of agent " + plain(t.agent)
}
