package mcp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/transport"
	"github.com/mcp-edge/edge-agent/transport/tcp"
)

// asking does one request with an answer, 256 bytes both ways. It may be called
// concurrently.
type asking func(ctx context.Context, payload []byte) error

// BenchmarkRoundTrips measures requests over one MCP session on loopback TCP
// beside gRPC unary calls on one connection and HTTP/1.1 with JSON on kept-alive
// connections, at 1 and at 32 in flight. The three take turns, and the medians
// of their rates are compared.
func BenchmarkRoundTrips(b *testing.B) {
	contenders := []struct {
		name string
		ask  asking
	}{{"mcp", askMCP(b)}, {"grpc", askGRPC(b)}, {"http", askHTTP(b)}}
	for _, inFlight := range []int{1, 32} {
		b.Run(fmt.Sprintf("%dInFlight", inFlight), func(b *testing.B) {
			rates := make([][]float64, len(contenders))
			for b.Loop() {
				for range 5 {
					for i, c := range contenders {
						rates[i] = append(rates[i], askFor(b, 200*time.Millisecond, inFlight, c.ask))
					}
				}
			}
			for i, c := range contenders {
				slices.Sort(rates[i])
				median := rates[i][len(rates[i])/2]
				b.ReportMetric(median, c.name+"/s")
				if i > 0 {
					b.ReportMetric(rates[0][len(rates[0])/2]/median, "x-"+c.name)
				}
			}
			b.ReportMetric(0, "ns/op") // means nothing here
		})
	}
}

// askFor returns how many requests a second are answered.
func askFor(b *testing.B, d time.Duration, inFlight int, ask asking) float64 {
	counts := make([]int, inFlight)
	var asking sync.WaitGroup
	start := time.Now()
	for i := range inFlight {
		asking.Go(func() {
			payload := bytes.Repeat([]byte{byte(i)}, 256)
			for ; time.Since(start) < d; counts[i]++ {
				if err := ask(b.Context(), payload); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	asking.Wait()
	total := 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / time.Since(start).Seconds()
}

// echoing answers with what was asked.
type echoing struct{ mcp.NoHandler }

func (echoing) Request(_ context.Context, r mcp.Request) mcp.Response {
	return mcp.Response{Payload: r.Payload}
}

func askMCP(b *testing.B) asking {
	l, err := tcp.Listen(b.Context(), "127.0.0.1:0", func() transport.Framer { return mcp.NewStreamFramer(0, 0) }, nil)
	if err != nil {
		b.Fatal(err)
	}
	accepted := make(chan transport.Conn, 1)
	go func() {
		c, err := l.Accept(b.Context())
		if err != nil {
			b.Error(err)
		}
		accepted <- c
	}()
	near, err := tcp.NewDialer(l.Endpoint()[len("tcp "):], nil).Dial(b.Context(), mcp.NewStreamFramer(0, 0))
	if err != nil {
		b.Fatal(err)
	}
	server := mcp.NewSession(<-accepted, mcp.Config{Role: mcp.Server, Name: "press-7", Epoch: 1, MaxRequests: 64}, echoing{})
	client := mcp.NewSession(near, mcp.Config{Name: "gw-01", Epoch: 1}, mcp.NoHandler{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { _ = server.Run(ctx) }()
	go func() { _ = client.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		<-server.Done()
		<-client.Done()
		_ = l.Close()
	})
	<-client.Opened()
	return func(ctx context.Context, payload []byte) error {
		_, err := client.Call(ctx, mcp.Request{Method: "echo", Payload: payload})
		return err
	}
}

func askGRPC(b *testing.B) asking {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "echo.Echo",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Echo",
			Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				in := new(wrapperspb.BytesValue)
				return in, decode(in)
			},
		}},
	}, nil)
	go func() { _ = server.Serve(l) }()
	client, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = client.Close()
		server.Stop()
	})
	return func(ctx context.Context, payload []byte) error {
		return client.Invoke(ctx, "/echo.Echo/Echo", wrapperspb.Bytes(payload), new(wrapperspb.BytesValue))
	}
}

// message is what HTTP carries; encoding/json makes base64 of the bytes.
type message struct {
	ID      uint64 `json:"id"`
	Method  string `json:"method"`
	Payload []byte `json:"payload"`
}

func askHTTP(b *testing.B) asking {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var m message
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			b.Error(err)
		}
		_ = json.NewEncoder(w).Encode(m)
	})}
	go func() { _ = server.Serve(l) }()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	b.Cleanup(func() {
		client.CloseIdleConnections()
		_ = server.Close()
	})
	url := "http://" + l.Addr().String()
	return func(ctx context.Context, payload []byte) error {
		body, err := json.Marshal(message{ID: 1, Method: "echo", Payload: payload})
		if err != nil {
			return err
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		var answer message
		if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, response.Body)
		return err
	}
}
