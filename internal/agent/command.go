package agent

import (
	"fmt"

	"github.com/mcp-edge/edge-agent/internal/command"
	"github.com/mcp-edge/edge-agent/internal/config"
	"github.com/mcp-edge/edge-agent/internal/driver/mcp"
	"github.com/mcp-edge/edge-agent/internal/driver/modbus"
)

// prepare is how a driver makes the task of a command toward one of its devices.
type prepare func(device *config.Device, r command.Request) (command.Task, error)

// buildCommands makes the room for commands, once all links and listeners are
// there: each device that stands in the configuration has a line.
func (a *Agent) buildCommands() error {
	targets := make(map[string]command.Target, len(a.cfg.Devices))
	for _, l := range a.links {
		for _, device := range a.devicesOn(l.name) {
			targets[device.ID] = command.Target{Line: l.lane, Prepare: func(r command.Request) (command.Task, error) {
				return l.prepare(device, r)
			}}
		}
	}
	for _, l := range a.listeners {
		for i := range a.cfg.Devices {
			if device := &a.cfg.Devices[i]; device.Listen == l.name {
				line := l.server.Line(device.ID)
				targets[device.ID] = command.Target{Line: line, Prepare: func(r command.Request) (command.Task, error) {
					return prepareCall(line, device, r)
				}}
			}
		}
	}
	var err error
	a.commands, err = command.New(a.cfg.Commands, command.InStore(a.store.Mailbox()), targets, command.NewClock(a.clock), a.log)
	return err
}

// prepareModbus is for a link with these devices.
func prepareModbus(l *modbus.Link, devices []*config.Device) prepare {
	return func(c *config.Device, r command.Request) (command.Task, error) {
		device, err := l.Device(modbusSpec(c))
		switch {
		case err != nil:
			return nil, err
		case r.Kind == command.Write && r.Broadcast:
			specs := make([]modbus.DeviceSpec, len(devices))
			for i := range devices {
				specs[i] = modbusSpec(devices[i])
			}
			return task(device.Broadcast(r.Point, r.Value.Value, specs))
		case r.Kind == command.Write:
			return task(device.Write(r.Point, r.Value.Value, modbus.WriteOptions{ReadBack: r.ReadBack}))
		case r.Kind == command.Read:
			return task(device.Read(r.Points))
		}
		return nil, fmt.Errorf("device %s speaks Modbus, which has no methods; write or read its points", c.ID)
	}
}

func modbusSpec(c *config.Device) modbus.DeviceSpec {
	spec := modbus.DeviceSpec{ID: c.ID, Device: c.Modbus}
	for i := range c.Polls {
		spec.Polls = append(spec.Polls, modbus.PollPoints{Poll: c.Polls[i].Name, Points: c.Polls[i].Points})
	}
	return spec
}

func prepareMCP(l *mcp.Link) prepare {
	return func(c *config.Device, r command.Request) (command.Task, error) {
		switch r.Kind {
		case command.Call:
			return task(l.Call(c.ID, r.Method, r.Payload, r.ContentType))
		case command.Read:
			if len(r.Points) > 1 {
				return nil, fmt.Errorf("device %s is read one poll at a time, and %d are named", c.ID, len(r.Points))
			}
			poll := ""
			if len(r.Points) == 1 {
				poll = r.Points[0]
			}
			return task(l.Read(c.ID, poll))
		}
		return nil, fmt.Errorf("device %s speaks MCP, which has no points to write; call the method that sets what you mean", c.ID)
	}
}

// prepareCall is for a device that has connected to a listener.
func prepareCall(line *mcp.Line, c *config.Device, r command.Request) (command.Task, error) {
	if r.Kind != command.Call {
		return nil, fmt.Errorf("device %s publishes by itself, so it has no points to %s; call a method of it", c.ID, r.Kind)
	}
	return task(line.Call(r.Method, r.Payload, r.ContentType))
}

func prepareText(c *config.Device, r command.Request) (command.Task, error) {
	return nil, fmt.Errorf("device %s speaks text, by itself: it can't be asked to %s anything", c.ID, r.Kind)
}

// task keeps a nil of a driver's own type from passing for a task.
func task[T command.Task](t T, err error) (command.Task, error) {
	if err != nil {
		return nil, err
	}
	return t, nil
}
