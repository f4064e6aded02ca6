package demo

// shownDevices are the devices of plantConfig, as the screen describes them.
func shownDevices() []deviceLine {
	return []deviceLine{
		{name: "boiler-1", what: "Modbus RTU, unit 1 on rs485-1"},
		{name: "boiler-2", what: "Modbus RTU, unit 2 on rs485-1"},
		{name: "boiler-3", what: "dead, on the same line"},
		{name: "plc-1", what: "Modbus TCP"},
		{name: "scale-1", what: "text lines on a serial port"},
		{name: "press-1", what: "speaks MCP"},
		{name: "press-2", what: "speaks MCP"},
	}
}

// plantConfig is the agent's configuration: data directory, serial bus, its
// baud rate, PLC, scale, listener, broker.
const plantConfig = `
[agent]
id = "demo"
data_dir = %q

[admin]
listen = "127.0.0.1:0"

[store]
commit_delay = "100ms"

[[link]]
name = "rs485-1"
transport = "serial"
address = %q
serial = { baud = %d, parity = "even" }
timeout = "1s"
timeout_min = "1s" # the demo counts an answer that took no longer

[[link]]
name = "plc"
transport = "tcp"
address = "%s"
timeout = "1s"
timeout_min = "1s" # the demo counts an answer that took no longer

[[link]]
name = "com1"
transport = "serial"
address = %q

[[device]]
id = "boiler-1"
link = "rs485-1"
driver = "modbus"
modbus = { unit = 1 }
  [[device.poll]]
  name = "temps"
  every = "200ms"
  points = [
    { name = "n", address = "holding:0", type = "uint32" },
    { name = "supply_temp", address = "holding:2", type = "int16", scale = 0.1, unit = "°C" },
  ]

[[device]]
id = "boiler-2"
link = "rs485-1"
driver = "modbus"
modbus = { unit = 2 }
  [[device.poll]]
  name = "temps"
  every = "200ms"
  points = [
    { name = "n", address = "holding:0", type = "uint32" },
    { name = "supply_temp", address = "holding:2", type = "int16", scale = 0.1, unit = "°C" },
  ]

[[device]]                        # nobody answers: it must not cost the others their periods
id = "boiler-3"
link = "rs485-1"
driver = "modbus"
modbus = { unit = 3 }
  [[device.poll]]
  name = "temps"
  every = "1s"
  points = [{ name = "supply_temp", address = "holding:2", type = "int16", scale = 0.1, unit = "°C" }]

[[device]]
id = "plc-1"
link = "plc"
driver = "modbus"
modbus = { unit = 1 }
  [[device.poll]]
  name = "line"
  every = "50ms"
  points = [
    { name = "n", address = "holding:0", type = "uint32" },
    { name = "speed", address = "holding:3", type = "uint16", unit = "1/min" },
  ]

[[device]]
id = "scale-1"
link = "com1"
driver = "text"
text = { delimiter = "\r\n", rules = [{ name = "weight", match = '^W (?P<n>\d+) (?P<weight>[-\d.]+) kg$' }], units = { weight = "kg" } }

[[listen]]
name = "machines"
transport = "tcp"
address = "%s"

[[route]]
name = "all"
to = ["cloud"]

[[upstream]]
name = "cloud"
kind = "mqtt"
endpoints = [{ address = "mqtt://%s" }]
`
