package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mcp-edge/edge-agent/internal/command"
	"github.com/mcp-edge/edge-agent/internal/config"
)

// agentFlags say which running agent a command is for.
type agentFlags struct {
	Config    string `short:"c" placeholder:"FILE" help:"The configuration that the agent runs with; it tells where the agent answers and where its token is. Unless given: /etc/edge-agent/edge-agent.toml."`
	Admin     string `placeholder:"HOST:PORT" help:"Where the agent answers, instead of what the configuration says. Unless this or -c is given: $$EDGE_AGENT_ADMIN, where that is set."`
	TokenFile string `placeholder:"FILE" help:"The agent's admin token, instead of admin.token in its data directory. Unless this or -c is given: $$EDGE_AGENT_TOKEN_FILE, where that is set."`
}

// defaultConfig is where packages put the configuration.
const defaultConfig = "/etc/edge-agent/edge-agent.toml"

// connect finds the agent and the token; nothing is sent yet.
func (f *agentFlags) connect() (*runningAgent, error) {
	address, tokenFile := f.Admin, f.TokenFile
	if f.Config == "" { // what is typed now beats what was exported once
		address = cmp.Or(address, os.Getenv("EDGE_AGENT_ADMIN"))
		tokenFile = cmp.Or(tokenFile, os.Getenv("EDGE_AGENT_TOKEN_FILE"))
	}
	if address == "" || tokenFile == "" {
		file, err := f.configuration(address)
		if err != nil {
			return nil, err
		}
		address = cmp.Or(address, file.Admin.Listen)
		tokenFile = cmp.Or(tokenFile, filepath.Join(file.Agent.DataDir, "admin.token"))
	}
	address, err := dialable(address)
	if err != nil {
		return nil, inputError{err}
	}
	token, err := readToken(tokenFile)
	if err != nil {
		return nil, inputError{err}
	}
	return &runningAgent{
		address: address, token: token, tokenFile: tokenFile,
		http: agentClient(),
	}, nil
}

// configuration is what the agent runs with; address is its own if that is known.
func (f *agentFlags) configuration(address string) (*config.File, error) {
	path := cmp.Or(f.Config, defaultConfig)
	file, problems, err := config.Load(path, os.LookupEnv)
	switch {
	case errors.Is(err, fs.ErrNotExist) && f.Config == "" && address != "":
		return nil, inputError{fmt.Errorf("whose token? There is no %s that would say where that of the agent at %s is: add --token-file FILE", path, address)}
	case errors.Is(err, fs.ErrNotExist) && f.Config == "":
		return nil, inputError{fmt.Errorf("which agent? There is no %s: name the configuration it runs with (-c FILE), or --admin HOST:PORT and --token-file FILE", path)}
	case err != nil:
		return nil, inputError{fmt.Errorf("the configuration can't be read: %w; --admin HOST:PORT and --token-file FILE do without it", err)}
	case problems.Fatal():
		return nil, inputError{fmt.Errorf("%s has mistakes, which edge-agent check %s lists; --admin HOST:PORT and --token-file FILE do without it", path, path)}
	}
	return file, nil
}

// dialable is where to find an agent that listens at address.
func dialable(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	switch ip := net.ParseIP(host); {
	case err != nil:
		return "", fmt.Errorf("%q is no address of an agent; write HOST:PORT, such as 127.0.0.1:9600", address)
	case port == "0":
		return "", errors.New("the configuration lets the agent choose its port ([admin] listen); its log names the port: give it with --admin HOST:PORT")
	case host == "", ip != nil && ip.IsUnspecified() && ip.To4() != nil:
		return net.JoinHostPort("127.0.0.1", port), nil
	case ip != nil && ip.IsUnspecified():
		return net.JoinHostPort("::1", port), nil
	}
	return address, nil
}

func readToken(path string) (string, error) {
	text, err := os.ReadFile(path)
	switch token := strings.TrimSpace(string(text)); {
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("the agent's token in %s can't be read: commands are for the agent's own user and root; try sudo", path)
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("there is no token in %s: the agent makes it at its first start; is that the data directory of the running agent?", path)
	case err != nil:
		return "", fmt.Errorf("the agent's token can't be read: %w", err)
	case token == "" || strings.ContainsAny(token, "\r\n"):
		return "", fmt.Errorf("%s holds no token", path)
	default:
		return token, nil
	}
}

// runningAgent is an agent in another process.
type runningAgent struct {
	address   string
	token     string
	tokenFile string
	http      *http.Client
}

const (
	// pollTime is how long one request waits for the command's end.
	pollTime = 20 * time.Second
	// graceTime is what a command's end may take beyond its deadline: a request that
	// left just before is answered, and the end goes to disk.
	graceTime = 8 * time.Second
	// answerTime is what the agent may need besides, with a slow disk.
	answerTime = 15 * time.Second
	// maxAnswer bounds what is taken from whoever answers there, in bytes: a
	// command holds two payloads of at most 1 MiB, in base64.
	maxAnswer = 16 << 20
)

// submit hands the agent a request and returns the command that it made of it.
func (a *runningAgent) submit(ctx context.Context, r command.Request) (command.Command, error) {
	// With a key, whoever asks again gets the same command, however far the first
	// request came. A read may be done twice, and its key would take up room.
	if r.Kind != command.Read {
		r.Key = cmp.Or(r.Key, rand.Text())
	}
	path := "/api/v1/devices/" + url.PathEscape(r.Device) + "/commands"
	body, err := json.Marshal(r)
	if err != nil {
		return command.Command{}, err
	}
	if r.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(r.Timeout)+graceTime)
		defer cancel()
	}
	c, err := a.ask(ctx, http.MethodPost, path, body)
	switch {
	case errors.Is(err, errAway):
		return c, fmt.Errorf("no agent answers at %s: %w; start it with edge-agent run, or say where it is with -c FILE or --admin HOST:PORT", a.address, err)
	case errors.Is(err, errBroken) && r.Key == "":
		return c, fmt.Errorf("the agent at %s did not say what came of it: %w. Read again", a.address, err)
	case errors.Is(err, errBroken):
		return c, fmt.Errorf("the agent at %s did not say whether it took the command: %w. To ask for it again without doing it twice, add --key %s", a.address, err, r.Key)
	}
	return c, err
}

// wait returns c when it has ended, or an error when its time is long over.
func (a *runningAgent) wait(ctx context.Context, c command.Command) (command.Command, error) {
	within := c.Deadline.Sub(c.Submitted) + graceTime
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for !c.State.Final() {
		path := "/api/v1/commands/" + url.PathEscape(c.ID)
		next, err := a.ask(ctx, http.MethodGet, path+"?wait="+pollTime.String(), nil)
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return c, fmt.Errorf("command %s is still %s, %s after it was given, though its time is over: the disk may be full, or the line stuck (see http://%s/readyz). To see what becomes of it: curl http://%s%s",
				c.ID, plain(string(c.State)), within.Round(time.Second), a.address, a.address, path)
		}
		if ctx.Err() != nil {
			return c, fmt.Errorf("no longer waiting; command %s goes on in the agent. To see what becomes of it: curl http://%s%s", c.ID, a.address, path)
		}
		if err != nil {
			return c, fmt.Errorf("what became of command %s can't be seen now: the agent at %s: %w. The command is on its disk; to ask again: curl http://%s%s", c.ID, a.address, err, a.address, path)
		}
		next.Known = c.Known
		c = next
	}
	return c, nil
}

var (
	errAway   = errors.New("not reachable")
	errBroken = errors.New("no answer")
)

// ask makes one request. errAway: it did not reach the agent. errBroken: nobody
// knows whether it did.
func (a *runningAgent) ask(ctx context.Context, method, path string, body []byte) (command.Command, error) {
	within, cancel := context.WithTimeout(ctx, pollTime+answerTime)
	defer cancel()
	request, err := http.NewRequestWithContext(within, method, "http://"+a.address+path, bytes.NewReader(body))
	if err != nil {
		return command.Command{}, inputError{err}
	}
	request.Header.Set("Authorization", "Bearer "+a.token)
	request.Header.Set("Content-Type", "application/json")
	response, err := a.http.Do(request)
	if err != nil {
		return command.Command{}, notAnswered(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return command.Command{}, notAnswered(err)
	}
	var refusal struct {
		Error string `json:"error"`
	}
	var c command.Command
	if err := errors.Join(json.Unmarshal(text, &refusal), json.Unmarshal(text, &c)); err != nil || refusal.Error == "" && c.ID == "" {
		return command.Command{}, inputError{fmt.Errorf("what answers at %s (%s) is no edge-agent that takes commands; say with --admin HOST:PORT where the agent is", a.address, response.Status)}
	}
	if refusal.Error != "" {
		return command.Command{}, a.refused(response.StatusCode, plain(refusal.Error))
	}
	return c, nil
}

// notAnswered keeps of err what happened, without the request's address.
func notAnswered(err error) error {
	var where *url.Error
	if errors.As(err, &where) {
		err = where.Err
	}
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return fmt.Errorf("%w (%w)", errAway, dial.Err)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w (it hung up)", errBroken)
	}
	return fmt.Errorf("%w (%w)", errBroken, err)
}

// refused tells what the agent has against a request: 4xx is the user's to
// mend, except that it is busy.
func (a *runningAgent) refused(code int, why string) error {
	switch {
	case code == http.StatusUnauthorized:
		return inputError{fmt.Errorf("the agent at %s does not take the token in %s; is that the token of this agent?", a.address, a.tokenFile)}
	case code == http.StatusNotFound:
		return inputError{fmt.Errorf("%s; http://%s/api/v1/devices lists those that there are", why, a.address)}
	case code >= 400 && code < 500 && code != http.StatusTooManyRequests:
		return inputError{errors.New(why)}
	}
	return errors.New(why)
}
