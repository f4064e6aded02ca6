package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// agentClient speaks to an agent's admin API. A proxy has no business here: it
// would see the token.
func agentClient() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// queueAnswerTime is how long the agent may take to answer, with a slow disk.
const queueAnswerTime = 60 * time.Second

// get reads an answer of the admin API into a value.
func (a *runningAgent) get(ctx context.Context, path string, into any) error {
	return a.call(ctx, http.MethodGet, path, nil, into)
}

// call makes a request; into may be nil. The error says what the agent has against
// it, or wraps errAway or errBroken.
func (a *runningAgent) call(ctx context.Context, method, path string, body io.Reader, into any) error {
	within, cancel := context.WithTimeout(ctx, queueAnswerTime)
	defer cancel()
	return a.exchange(within, method, path, body, into)
}

// upload sends a body however long that takes: the agent gives up on one that stands
// still.
func (a *runningAgent) upload(ctx context.Context, path string, body io.Reader, into any) error {
	return a.exchange(ctx, http.MethodPost, path, body, into)
}

func (a *runningAgent) exchange(ctx context.Context, method, path string, body io.Reader, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+a.address+path, body)
	if err != nil {
		return inputError{err}
	}
	if a.token != "" {
		request.Header.Set("Authorization", "Bearer "+a.token)
	}
	response, err := a.http.Do(request)
	if err != nil {
		return notAnswered(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return notAnswered(err)
	}
	if response.StatusCode/100 == 2 {
		if into == nil {
			return nil
		}
		if err := json.Unmarshal(text, into); err == nil {
			return nil
		}
	}
	var refusal struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(text, &refusal) != nil || refusal.Error == "" {
		return inputError{fmt.Errorf("what answers there (%s) is no edge-agent with a queue to look at", response.Status)}
	}
	switch code := response.StatusCode; {
	case code == http.StatusUnauthorized:
		return inputError{fmt.Errorf("the agent at %s does not take the token in %s; is that the token of this agent?", a.address, a.tokenFile)}
	case code >= 400 && code < 500 && code != http.StatusTooManyRequests:
		return inputError{errors.New(plain(refusal.Error))}
	}
	return errors.New(plain(refusal.Error))
}
