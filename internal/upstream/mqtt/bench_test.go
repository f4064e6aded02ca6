package mqtt_test

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/eclipse/paho.golang/paho"
)

// Both benchmarks send the same records of 256 B to the same kind of Mosquitto,
// with the same window, and nobody subscribes.
const benchWindow = 256

func BenchmarkSend(b *testing.B) {
	u := run(b, newBroker(b, "persistence false").start().address, config())
	batch := records("d", 1, 4096)
	for i := range batch {
		batch[i].Points, batch[i].Payload = nil, make([]byte, 256)
	}
	if err := u.Send(b.Context(), batch[:1]); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for left := b.N; left > 0; left -= len(batch) {
		if err := u.Send(b.Context(), batch[:min(left, len(batch))]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBarePaho is the library used as its documentation says: a blocking
// Publish in as many goroutines as the window is wide.
func BenchmarkBarePaho(b *testing.B) {
	c, err := net.Dial("tcp", newBroker(b, "persistence false").start().address)
	if err != nil {
		b.Fatal(err)
	}
	client := paho.NewClient(paho.ClientConfig{Conn: c})
	if _, err := client.Connect(b.Context(), &paho.Connect{ClientID: "bare", KeepAlive: 30, CleanStart: true}); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = client.Disconnect(&paho.Disconnect{}) }()
	r := records("d", 1, 1)[0]
	r.Points, r.Payload = nil, make([]byte, 256)
	work := make(chan struct{}, benchWindow)
	var all sync.WaitGroup
	b.ResetTimer()
	for range benchWindow {
		all.Go(func() {
			for range work {
				_, err := client.Publish(context.Background(), &paho.Publish{
					QoS: 1, Topic: "edge/gw/d/s", Payload: r.AppendJSON(nil),
					Properties: &paho.PublishProperties{ContentType: "application/json"},
				})
				if err != nil {
					b.Error(err)
				}
			}
		})
	}
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	all.Wait()
}
