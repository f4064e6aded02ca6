package mcp_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/mcp"
	"github.com/mcp-edge/edge-agent/transport/transporttest"
)

func TestRequestsAreAnswered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := connect(false, mcp.Config{}, mcp.Config{}, newReceiver(), newReceiver())
		defer p.stop()
		<-p.client.Opened()
		<-p.server.Opened()
		for _, s := range []*mcp.Session{p.client, p.server} {
			a, err := s.Call(t.Context(), mcp.Request{Method: "echo", Payload: []byte("hello"), ContentType: "text/plain"})
			if err != nil || string(a.Payload) != "hello" || a.ContentType != "text/plain" {
				t.Errorf("got %+v, %v", a, err)
			}
			if _, err := s.Call(t.Context(), mcp.Request{Method: "nonsense"}); !mcp.IsCode(err, mcp.CodeUnknownMethod) {
				t.Errorf("an unknown method: %v", err)
			}
		}
	})
}

func TestAnUnansweredCallGivesUp(t *testing.T) {
	for retries, answers := range map[int]*mcp.Answers{0: nil, 3: mcp.NewAnswers()} {
		bubble(t, func(t *testing.T) {
			p := connect(false, mcp.Config{}, mcp.Config{Answers: answers}, newReceiver(), newReceiver())
			defer p.stop()
			<-p.client.Opened()
			start := time.Now()
			_, err := p.client.Call(t.Context(), mcp.Request{Method: "wait"})
			want := time.Duration(1+retries) * mcp.RequestTimeout
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != want {
				t.Errorf("%d retries: %v after %v", retries, err, time.Since(start))
			}
		})
	}
}

func TestAHandlersContextEndsWhenTheAskersTimeIsOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := connect(false, mcp.Config{}, mcp.Config{}, newReceiver(), newReceiver())
		defer p.stop()
		<-p.client.Opened()
		start := time.Now()
		_, err := p.client.Request(t.Context(), mcp.Request{Method: "wait", TimeLeft: 1500 * time.Millisecond})
		if !mcp.IsCode(err, mcp.CodeUnknownMethod) || time.Since(start) != 1500*time.Millisecond {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

// counting counts how often a method runs.
type counting struct {
	mcp.NoHandler
	mu sync.Mutex
	n  int
}

func (c *counting) Request(context.Context, mcp.Request) mcp.Response {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return mcp.Response{Payload: fmt.Appendf(nil, "%d", c.n)}
}

func TestARepeatedRequestIsDoneOnceFor30Seconds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := new(counting)
		answers := mcp.NewAnswers()
		ask := func() string {
			p := connect(false, mcp.Config{}, mcp.Config{Answers: answers}, newReceiver(), h)
			defer p.stop() // each time a connection of its own
			<-p.client.Opened()
			a, err := p.client.Request(t.Context(), mcp.Request{ID: 77, Method: "reset"})
			if err != nil {
				t.Fatal(err)
			}
			return string(a.Payload)
		}
		if a, b := ask(), ask(); a != "1" || b != "1" {
			t.Errorf("answers %s and %s", a, b)
		}
		<-time.After(31 * time.Second)
		if a := ask(); a != "2" {
			t.Errorf("after 31 s: %s", a)
		}
	})
}

func TestOverDatagramsRequestsDoNotRunOutOfRoomForTheirAnswers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := overDatagrams(transporttest.Weather{MaxMessage: 1200}, mcp.Config{}, mcp.Config{}, mcp.NoHandler{}, new(counting))
		defer p.stop()
		<-p.client.Opened()
		for i := range 3000 {
			if _, err := p.client.Call(t.Context(), mcp.Request{Method: "count"}); err != nil {
				t.Fatalf("request %d: %v", i, err)
			}
		}
	})
}

func TestAFullTableOfAnswersIsBusy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := connect(false, mcp.Config{}, mcp.Config{Answers: mcp.NewAnswers()}, newReceiver(), new(counting))
		defer p.stop()
		<-p.client.Opened()
		for range 1024 {
			if _, err := p.client.Request(t.Context(), mcp.Request{Method: "x"}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := p.client.Request(t.Context(), mcp.Request{Method: "x"}); !mcp.IsCode(err, mcp.CodeBusy) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAnAnswerTooLargeForTheAskerIsSaidSo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRaw(t, mcp.Config{}, newReceiver()) // says nothing of its limit: 4096
		q := mcp.Request{ID: 1, Method: "echo", Payload: make([]byte, 5000)}
		r.say(mcp.CommandRequest, q.Append(nil))
		var a mcp.Response
		if err := a.Unmarshal(r.expect(mcp.CommandResponse).Payload); err != nil || a.Code != mcp.CodeTooLarge {
			t.Errorf("got %+v, %v", a, err)
		}
	})
}
