package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mcp-edge/edge-agent/internal/command"
)

// Commands takes commands toward devices, and remembers them: a command.Room,
// whose promises and errors these are. All may be called at the same time.
type Commands interface {
	// Submit returns once the command is on disk. One that is refused comes with
	// command.ErrRefused.
	Submit(ctx context.Context, r command.Request) (command.Command, error)
	Get(id string) (command.Command, error)
	// Wait returns the command when it has ended, or the error of ctx and the
	// command as it is.
	Wait(ctx context.Context, id string) (command.Command, error)
	// List is newest first.
	List(f command.Filter) []command.Command
	Stats() command.Stats
}

const (
	// maxCommand bounds a command's JSON, in bytes: the largest payload that
	// [commands] max_payload allows, 1 MiB, in base64, and as much again as its
	// other fields could ever take.
	maxCommand = 2 << 20
	// maxWait is how long a request may wait for a command to end.
	maxWait = time.Minute
	// maxList is how many commands one answer holds.
	maxList = 1000
)

// commandFields is what a request's body may hold beside the device.
const commandFields = "kind, point, value, read_back, broadcast, points, method, payload, content_type, repeat, timeout and key"

// submitCommand takes a command toward the device in the path. It answers 200
// when the command has ended, 422 when it was refused, and otherwise 202: at
// once, or with ?wait=10s once it has waited for that long.
func (s *Server) submitCommand(w http.ResponseWriter, r *http.Request) {
	wait, err := waitOf(r)
	if err != nil {
		s.refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	request, err := readCommand(w, r)
	if err != nil {
		code := http.StatusBadRequest
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			code = http.StatusRequestEntityTooLarge
		}
		s.refuse(w, code, err.Error())
		return
	}
	c, err := s.commands.Submit(r.Context(), request)
	if c.ID != "" {
		w.Header().Set("Location", "/api/v1/commands/"+url.PathEscape(c.ID))
	}
	if err != nil && (c.ID == "" || !errors.Is(err, command.ErrRefused)) {
		s.refuse(w, codeOf(err), err.Error())
		return
	}
	s.log.Info("command through the admin interface", "command", c.ID, "device", c.Device, "kind", c.Kind, "state", c.State)
	c = s.await(w, r, c, wait)
	switch {
	case c.State == command.Refused:
		s.answerWith(w, http.StatusUnprocessableEntity, c)
	case c.State.Final():
		s.answerWith(w, http.StatusOK, c)
	default:
		s.answerWith(w, http.StatusAccepted, c)
	}
}

// readCommand makes a request of the body, the path and the Idempotency-Key.
func readCommand(w http.ResponseWriter, r *http.Request) (command.Request, error) {
	var request command.Request
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCommand))
	body.DisallowUnknownFields()
	err := body.Decode(&request)
	if err == nil {
		if _, err = body.Token(); err == nil {
			err = errors.New("something follows the command")
		} else if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err != nil {
		return request, fmt.Errorf("the body is no command: %w", inWords(err))
	}
	device := r.PathValue("id")
	if request.Device != "" && request.Device != device {
		return request, fmt.Errorf("the body names the device %q, the path %q; leave it out of the body", request.Device, device)
	}
	key := idempotencyKey(r)
	if key != "" && request.Key != "" && key != request.Key {
		return request, fmt.Errorf("the header Idempotency-Key is %q, the body's key %q; give one of them", key, request.Key)
	}
	if key != "" {
		request.Key = key
	}
	request.Device, request.By = device, "admin"
	return request, nil
}

// idempotencyKey takes the header with quotes, as the IETF's draft of it has it
// (draft-ietf-httpapi-idempotency-key-header, section 2.1), and without, as most
// send it.
func idempotencyKey(r *http.Request) string {
	key := r.Header.Get("Idempotency-Key")
	if len(key) >= 2 && key[0] == '"' && key[len(key)-1] == '"' {
		return key[1 : len(key)-1]
	}
	return key
}

// inWords says what is wrong with a body without the names of Go's types.
func inWords(err error) error {
	var wrongType *json.UnmarshalTypeError
	switch field, unknown := strings.CutPrefix(err.Error(), "json: unknown field "); {
	case unknown:
		return fmt.Errorf("there is no field %s; there are %s", field, commandFields)
	case errors.As(err, &wrongType) && wrongType.Field != "":
		return fmt.Errorf("%s can't be a %s", wrongType.Field, wrongType.Value)
	case errors.As(err, &wrongType):
		return errors.New(`write an object: {"kind": "write", "point": "setpoint", "value": 21.5}`)
	case errors.Is(err, io.EOF):
		return errors.New("it is empty")
	}
	return err
}

// codeOf is the HTTP status (RFC 9110, section 15; 429: RFC 6585) that tells a
// Room's error.
func codeOf(err error) int {
	for _, c := range []struct {
		err  error
		code int
	}{
		{command.ErrNoDevice, http.StatusNotFound},
		{command.ErrNotFound, http.StatusNotFound},
		{command.ErrKeyTaken, http.StatusConflict},
		{command.ErrRefused, http.StatusUnprocessableEntity},
		{command.ErrFull, http.StatusTooManyRequests},
		{command.ErrNotStored, http.StatusServiceUnavailable},
	} {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	return http.StatusInternalServerError
}

// waitOf is how long the caller wants to wait for a command's end.
func waitOf(r *http.Request) (time.Duration, error) {
	text := r.URL.Query().Get("wait")
	if text == "" {
		return 0, nil
	}
	wait, err := time.ParseDuration(text)
	if err != nil || wait < 0 || wait > maxWait {
		return 0, fmt.Errorf(`wait=%q can't be; write a time up to %s, such as wait=10s`, text, maxWait)
	}
	return wait, nil
}

// await returns c as it is after wait, or earlier when it has ended.
func (s *Server) await(w http.ResponseWriter, r *http.Request, c command.Command, wait time.Duration) command.Command {
	if wait == 0 || c.State.Final() {
		return c
	}
	// The server's own time-out is for clients that don't take their answer.
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(wait + writeTimeout)); err != nil {
		s.log.Debug("an admin client may not get to wait", "error", err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	if now, err := s.commands.Wait(ctx, c.ID); err == nil || now.ID != "" {
		now.Known = c.Known
		return now
	}
	return c
}

// showCommand answers a command as it is, or, with ?wait=10s, as it is when it
// has ended or that time has passed.
func (s *Server) showCommand(w http.ResponseWriter, r *http.Request) {
	wait, err := waitOf(r)
	if err != nil {
		s.refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	c, err := s.commands.Get(r.PathValue("id"))
	if err != nil {
		s.refuse(w, codeOf(err), err.Error())
		return
	}
	s.answer(w, s.await(w, r, c, wait))
}

// listCommands answers the newest commands first, without payloads: they may be
// large, and each command's own page has them.
func (s *Server) listCommands(w http.ResponseWriter, r *http.Request) {
	filter, err := filterOf(r)
	if err != nil {
		s.refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	if id := r.PathValue("id"); id != "" && !slices.ContainsFunc(s.agent.Devices(), func(d Device) bool { return d.ID == id }) {
		s.refuse(w, http.StatusNotFound, fmt.Sprintf("no such device: %q", id))
		return
	}
	list := slices.Clone(s.commands.List(filter))
	for i := range list {
		list[i].Payload = nil
		if a := list[i].Answer; a != nil && a.Payload != nil {
			short := *a
			short.Payload = nil
			list[i].Answer = &short
		}
	}
	if list == nil {
		list = []command.Command{}
	}
	s.answer(w, list)
}

func filterOf(r *http.Request) (command.Filter, error) {
	query := r.URL.Query()
	f := command.Filter{Device: query.Get("device"), State: command.State(query.Get("state"))}
	if id := r.PathValue("id"); id != "" {
		f.Device = id
	}
	const states = "queued, sending, succeeded, failed, expired, refused, unknown"
	if f.State != "" && !slices.Contains(strings.Split(states, ", "), string(f.State)) {
		return f, fmt.Errorf("there is no state %q; there are %s", f.State, states)
	}
	if text := query.Get("limit"); text != "" {
		limit, err := strconv.Atoi(text)
		if err != nil || limit < 1 || limit > maxList {
			return f, fmt.Errorf("limit=%q can't be; write a number from 1 to %d", text, maxList)
		}
		f.Limit = limit
	}
	return f, nil
}
