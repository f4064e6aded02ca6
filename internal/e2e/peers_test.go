package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestReadingsOfRealSlavesReachARealBrokerAcrossAnOutage is the agent's main
// job: pymodbus as an RTU slave behind a pty pair and as a TCP slave, mosquitto
// as the broker, mosquitto_sub to count. The broker is away for 20 seconds.
func TestReadingsOfRealSlavesReachARealBrokerAcrossAnOutage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	launch(t, "socat", "pty,raw,echo=0,link="+ours, "pty,raw,echo=0,link="+theirs)
	eventually(t, 5*time.Second, "the pty pair", func() bool {
		_, err := os.Stat(theirs)
		return err == nil
	})
	slavePort := freePort(t)
	launch(t, "/usr/bin/python3", "testdata/slave.py", "rtu", theirs).says("ready")
	launch(t, "/usr/bin/python3", "testdata/slave.py", "tcp", fmt.Sprint(slavePort)).says("ready")

	brokerPort := freePort(t)
	brokerConf := filepath.Join(dir, "mosquitto.conf")
	conf := fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\npersistence true\npersistence_location %s/\nmax_queued_messages 0\nuser root\n", brokerPort, dir)
	if err := os.WriteFile(brokerConf, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	broker := launch(t, "mosquitto", "-c", brokerConf)
	broker.says("running")
	// A session of its own and a broker that keeps it: what is published while
	// the counter has not come back yet waits for it.
	counter := launch(t, "mosquitto_sub", "-p", fmt.Sprint(brokerPort), "-t", "edge/#", "-q", "1", "-i", "counter", "-c", "-F", "%p")

	config, admin := configure(t, fmt.Sprintf(`
[agent]
id = "gw-01"
data_dir = "DATA"
[admin]
listen = "ADMIN"
[store]
commit_delay = "200ms"

[[link]]
name = "rs485"
transport = "serial"
address = %q
serial = { baud = 115200 }
[[link]]
name = "plc"
transport = "tcp"
address = "127.0.0.1:%d"

[[device]]
id = "rtu-1"
link = "rs485"
driver = "modbus"
modbus = { unit = 1 }
  [[device.poll]]
  name = "p"
  every = "100ms"
  points = [
    { name = "n", address = "holding:0", type = "uint32" },
    { name = "temp", address = "holding:2", type = "float32", unit = "°C" },
    { name = "level", address = "holding:4", type = "int16" },
  ]
[[device]]
id = "tcp-1"
link = "plc"
driver = "modbus"
modbus = { unit = 1 }
  [[device.poll]]
  name = "p"
  every = "50ms"
  points = [
    { name = "n", address = "holding:0", type = "uint32" },
    { name = "temp", address = "holding:2", type = "float32", unit = "°C" },
    { name = "level", address = "holding:4", type = "int16" },
  ]

[[route]]
name = "all"
to = ["cloud"]
[[upstream]]
name = "cloud"
kind = "mqtt"
endpoints = [{ address = "mqtt://127.0.0.1:%d" }]
`, ours, slavePort, brokerPort))
	a := run(t, config, admin)

	received := func() int { return len(readings(t, counter.output())) }
	eventually(t, 30*time.Second, "readings at the broker", func() bool { return received() > 100 })

	if code := broker.stop(); code != 0 {
		t.Errorf("mosquitto ended with %d", code)
	}
	before := a.lastSeq("tcp-1")
	pause := time.NewTimer(20 * time.Second)
	defer pause.Stop()
	<-pause.C
	if during := a.lastSeq("tcp-1"); during < before+200 {
		t.Errorf("%d readings in the 20 s without a broker", during-before)
	}
	if code, _ := a.get("/readyz"); code != 200 {
		t.Errorf("not ready while only the broker is away: %d", code)
	}
	broker = launch(t, "mosquitto", "-c", brokerConf)
	broker.says("running")
	eventually(t, 60*time.Second, "the backlog at the broker", func() bool { return received() > int(before)+200 })

	if code := a.stop(); code != 0 {
		t.Errorf("the agent ended with %d", code)
	}
	a = run(t, config, admin) // what was left when it was stopped goes out now
	rtu, tcp := a.lastSeq("rtu-1"), a.lastSeq("tcp-1")
	eventually(t, 30*time.Second, "the rest at the broker", func() bool {
		list := readings(t, counter.output())
		last := make(map[string]uint64)
		for _, r := range list {
			last[r.Device] = max(last[r.Device], r.Seq)
		}
		return last["rtu-1"] >= rtu && last["tcp-1"] >= tcp
	})
	list := readings(t, counter.output())
	last, repeats := inOrder(t, list)
	t.Logf("rtu-1 %d readings, tcp-1 %d, %d repeats", last["rtu-1"], last["tcp-1"], repeats)
	checkValues(t, list)
}

// checkValues: the slaves number their answers, so a reading that was missed or
// mixed up shows.
func checkValues(t *testing.T, list []reading) {
	t.Helper()
	highest := make(map[string]int64)
	seen := make(map[string]bool)
	for _, r := range list {
		key := fmt.Sprint(r.Device, r.Seq)
		if seen[key] {
			continue
		}
		seen[key] = true
		n, err := r.Values["n"].Int64()
		if err != nil || r.Quality != "good" || r.Values["temp"] != "21.5" || r.Values["level"] != "-7" {
			t.Errorf("reading %+v", r)
			continue
		}
		if n <= highest[r.Device] {
			t.Errorf("%s: answer %d comes after %d", r.Device, n, highest[r.Device])
		}
		highest[r.Device] = n
	}
}
