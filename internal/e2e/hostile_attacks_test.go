package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/quic"
	"github.com/mcp-edge/edge-agent/transport/udp"
)

// attackName, when set in the environment, makes this test binary an attacker
// of the address in attackTarget, until it is killed.
const (
	attackName   = "EDGE_AGENT_ATTACK"
	attackTarget = "EDGE_AGENT_ATTACK_TARGET"
	attackBegun  = "the attack has begun" // what it prints then
)

// runAttack is the attacker's whole program.
func runAttack(name string) error {
	attack := attacks()[name]
	if attack == nil {
		return fmt.Errorf("no attack %q", name)
	}
	attack(context.Background(), os.Getenv(attackTarget))
	return nil
}

// attack starts an attacker, in a process of its own that takes only what others
// leave of the processors: it stands for other machines. It is killed when the
// test ends, or before.
func attack(t testing.TB, name, address string) *process {
	t.Helper()
	return launch(t, "env", attackName+"="+name, attackTarget+"="+address, "nice", "-n", "19", os.Args[0])
}

// forgedRate is how many datagrams a second are forged: about what a link of
// 20 Mbit/s carries. At three times as many they fill the socket's buffer on this
// machine, and all wait in it.
const forgedRate = 20_000

// attackers is where attacks over streams come from; good devices are at 127.0.0.1.
const attackers = "127.0.0.2"

// attacks by their names. Each goes on until ctx ends.
func attacks() map[string]func(ctx context.Context, address string) {
	payloads := hostilePayloads()
	return map[string]func(ctx context.Context, address string){
		"connections that say nothing": func(ctx context.Context, address string) {
			crowd(ctx, 100, func(int) { assault(ctx, address, deaf) })
		},
		"slow loris before HELLO": func(ctx context.Context, address string) {
			crowd(ctx, 100, func(i int) {
				assault(ctx, address, func(c net.Conn) { drip(ctx, c, helloFrame(name("loris", i), "")) })
			})
		},
		"slow loris inside a frame": func(ctx context.Context, address string) {
			publish := frame(mcp.CommandPublish, make([]byte, 1000))
			crowd(ctx, 50, func(i int) {
				assault(ctx, address, func(c net.Conn) {
					_, _ = c.Write(helloFrame(name("loris", i), ""))
					drip(ctx, c, publish)
				})
			})
		},
		"half-open connections": func(ctx context.Context, address string) {
			crowd(ctx, 50, func(i int) {
				assault(ctx, address, func(c net.Conn) {
					_, _ = c.Write(helloFrame(name("gone", i), ""))
					deaf(c)
				})
			})
		},
		"a flood of HELLOs": func(ctx context.Context, address string) {
			crowd(ctx, 300, func(i int) {
				assault(ctx, address, func(c net.Conn) {
					_, _ = c.Write(helloFrame(name("flood", i), ""))
					deaf(c)
				})
			})
		},
		"a flood of HELLOs on each connection": func(ctx context.Context, address string) {
			crowd(ctx, 4, func(i int) {
				hellos := bytes.Repeat(helloFrame(name("again", i), ""), 1000)
				assault(ctx, address, func(c net.Conn) {
					_, _ = c.Write(hellos)
					rest(ctx, 10*time.Millisecond)
				})
			})
		},
		"10,000 connections": func(ctx context.Context, address string) {
			turn := make(chan struct{}, 32) // that dial at the same time
			crowd(ctx, 10_000, func(i int) {
				turn <- struct{}{}
				c, err := dialFrom(ctx, address, attackers)
				<-turn
				if err != nil {
					return
				}
				_, _ = c.Write(helloFrame(name("one-of", i), ""))
				deaf(c)
				rest(ctx, time.Hour) // it stays, although the agent has hung up
				c.Close()
			})
		},
		"a flood of bad tokens": func(ctx context.Context, address string) {
			hello := helloFrame("good", forgedToken())
			crowd(ctx, 50, func(int) {
				assault(ctx, address, func(c net.Conn) {
					_, _ = c.Write(hello)
					rest(ctx, 20*time.Millisecond)
				})
			})
		},
		"random bytes": func(ctx context.Context, address string) {
			crowd(ctx, 4, func(i int) {
				assault(ctx, address, func(c net.Conn) {
					if rand.IntN(2) == 1 { // behind a good beginning
						_, _ = c.Write(helloFrame(name("noise", i), ""))
					}
					_, _ = c.Write(noise(4096))
					rest(ctx, 10*time.Millisecond)
				})
			})
		},
		"hostile protobuf": func(ctx context.Context, address string) {
			crowd(ctx, 4, func(i int) {
				assault(ctx, address, func(c net.Conn) {
					_, _ = c.Write(helloFrame(name("bad", i), ""))
					_, _ = c.Write(frame(mcp.CommandPublish, payloads[rand.IntN(len(payloads))].payload))
					rest(ctx, 10*time.Millisecond)
				})
			})
		},
		"handshakes with a foreign certificate": func(ctx context.Context, address string) {
			config := impostor()
			crowd(ctx, 8, func(int) {
				assault(ctx, address, func(c net.Conn) {
					if c := tls.Client(c, config); c.HandshakeContext(ctx) == nil {
						deaf(c)
					}
				})
			})
		},
		"QUIC handshakes with a foreign certificate": func(ctx context.Context, address string) {
			dialer := quic.NewDialer(address, impostor)
			crowd(ctx, 32, func(int) {
				c, err := dialer.Dial(ctx, mcp.NewStreamFramer(0, 0))
				if err != nil {
					rest(ctx, 10*time.Millisecond)
					return
				}
				defer c.Close()
				if c.Write(helloFrame("impostor", "")) == nil {
					_, _ = c.Read()
				}
			})
		},
		"forged HELLOs": func(ctx context.Context, address string) {
			forge(ctx, address, forgedRate, func() []byte { return datagram(0, helloFrame("forged", "")) })
		},
		"forged noise": func(ctx context.Context, address string) {
			forge(ctx, address, forgedRate, func() []byte { return noise(rand.IntN(1200)) })
		},
		"forged DTLS hellos": func(ctx context.Context, address string) {
			forge(ctx, address, forgedRate, firstDatagrams(func(address string) transport.Dialer {
				return udp.NewDialer(address, udp.Config{TLS: impostor})
			}))
		},
		"forged QUIC hellos": func(ctx context.Context, address string) {
			forge(ctx, address, forgedRate, firstDatagrams(func(address string) transport.Dialer {
				return quic.NewDialer(address, impostor)
			}))
		},
	}
}

// crowd runs n copies of what an attacker does, again and again, until ctx ends.
func crowd(ctx context.Context, n int, do func(i int)) {
	fmt.Println(attackBegun)
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() {
			for ctx.Err() == nil {
				do(i)
			}
		})
	}
	running.Wait()
}

// assault is one connection of an attacker.
func assault(ctx context.Context, address string, do func(c net.Conn)) {
	c, err := dialFrom(ctx, address, attackers)
	if err != nil {
		rest(ctx, 10*time.Millisecond)
		return
	}
	defer c.Close()
	do(c)
}

// rest waits, or less if ctx ends.
func rest(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// deaf waits until the agent hangs up.
func deaf(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// drip sends bytes one by one, each after a rest.
func drip(ctx context.Context, c net.Conn, b []byte) {
	for i := range b {
		if _, err := c.Write(b[i : i+1]); err != nil {
			return
		}
		rest(ctx, 100*time.Millisecond)
	}
}

func name(prefix string, i int) string { return prefix + "-" + strconv.Itoa(i) }

func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// dialFrom connects over TCP from an address of this machine. To close resets
// the connection, so that no port waits for stray segments.
func dialFrom(ctx context.Context, address, from string) (net.Conn, error) {
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return c, c.(*net.TCPConn).SetLinger(0)
}

// frame panics if the payload is too large for any.
func frame(c mcp.Command, payload []byte) []byte {
	b, err := mcp.AppendFrame(nil, mcp.Version2, c, payload)
	if err != nil {
		panic(err)
	}
	return b
}

// helloFrame is a HELLO of a device that publishes on the channel main.
func helloFrame(sender, token string) []byte {
	h := mcp.Hello{Sender: sender, Epoch: mcp.NewEpoch(), Token: token, Channels: []string{"main"}, Versions: []uint8{2}}
	return frame(mcp.CommandHello, h.Append(nil))
}

// publishFrame is a PUBLISH of one record of the device, the first of its channel.
func publishFrame(device string) []byte {
	r := record.Record{Device: device, Stream: "state", Points: []record.Point{{Name: "n", Value: record.Int(1)}}}
	return frame(mcp.CommandPublish, mcp.AppendPublish(nil, "main", 0, nil, mcp.AppendRecord(nil, r.Append(nil))))
}

// hostilePayload is that of a PUBLISH in a frame that is good, and the code that
// it is refused with.
type hostilePayload struct {
	name    string
	payload []byte
	code    mcp.Code
}

func hostilePayloads() []hostilePayload {
	device := func(name string, more []byte) []byte {
		r := record.Record{Device: name, Stream: "s"}
		return append(r.Append(nil), more...)
	}
	publish := func(records ...[]byte) []byte {
		var list []byte
		for _, r := range records {
			list = mcp.AppendRecord(list, r)
		}
		return mcp.AppendPublish(nil, "main", 0, nil, list)
	}
	var nested []byte
	for range 10_000 {
		nested = protowire.AppendBytes(protowire.AppendTag(nil, 6, protowire.BytesType), nested)
	}
	point := protowire.AppendBytes(protowire.AppendTag(nil, 6, protowire.BytesType), []byte{0x0A, 1, 'x'})
	groups := bytes.Repeat(protowire.AppendTag(nil, 20, protowire.StartGroupType), 50_000)
	records := func(length ...byte) []byte { return append(append(publish(device("bad", nil)), 0x22), length...) }
	return []hostilePayload{
		{"nothing at all", nil, mcp.CodeBadPayload},
		{"deep nesting", publish(device("bad", nested)), mcp.CodeBadPayload},
		{"groups without an end", publish(device("bad", groups)), mcp.CodeBadPayload},
		{"groups before the records", append(groups, publish(device("bad", nil))...), mcp.CodeBadPayload},
		{"a length beyond the frame", records(0xFF, 0xFF, 0xFF, 0xFF, 0x7F), mcp.CodeBadPayload},
		{"a length of 2^64-1", records(0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01), mcp.CodeBadPayload},
		{"a number without an end", bytes.Repeat([]byte{0xFF}, 1000), mcp.CodeBadPayload},
		{"40,000 points", publish(device("bad", bytes.Repeat(point, 40_000))), mcp.CodeBadPayload},
		{"100,000 empty records", publish(make([][]byte, 100_000)...), mcp.CodeBadPayload},
		{"more than the window", publish(make([][]byte, 1025)...), mcp.CodeWindowExceeded},
		{"a name that is a path", publish(device("../../etc", nil)), mcp.CodeBadPayload},
		{"a name of 10,000 bytes", publish(device(strings.Repeat("a", 10_000), nil)), mcp.CodeBadPayload},
		{"a name that is no UTF-8", publish(device("\xFF\xFE", nil)), mcp.CodeBadPayload},
		{"numbers beyond 64 bits", mcp.AppendPublish(nil, "main", 1<<64-1, nil, mcp.AppendRecord(nil, device("bad", nil))), mcp.CodeBadPayload},
	}
}
