package store_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mcp-edge/edge-agent/store"
)

const (
	childDir      = "STORE_TEST_CHILD" // in the environment of the process to be killed
	killProducers = 8
	killCount     = "STORE_TEST_KILLS" // in the environment: how often
	mailer        = killProducers      // puts numbers into the mailbox
	mailKeys      = 5
)

// childMain is the process that is killed: it appends for ever, and prints what it
// would acknowledge.
func childMain() bool {
	dir, work := os.Getenv(childDir), appendForEver
	if polls := os.Getenv(childPolls); polls != "" {
		dir, work = polls, pollForEver
	}
	if dir == "" {
		return false
	}
	if err := work(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return true
}

func appendForEver(dir string) error {
	s, err := store.Open(dir, killConfig(), quiet())
	if err != nil {
		return err
	}
	var out sync.Mutex
	errs := make(chan error, killProducers+3)
	go func() { errs <- compactForEver(s) }()
	go func() { errs <- s.Run(context.Background()) }()
	for i := range killProducers + 1 {
		work := send
		if i == mailer {
			work = mail
		}
		go func() {
			errs <- work(s, i, func(number uint64) {
				out.Lock()
				defer out.Unlock()
				fmt.Printf("%d %d\n", i, number)
			})
		}()
	}
	return <-errs
}

// compactForEver has the file replaced again and again, so that kills meet that, too.
func compactForEver(s *store.Store) error {
	for {
		// It fails when records come too fast for it, and does no harm then.
		if err := s.Compact(context.Background()); errors.Is(err, store.ErrClosed) {
			return err
		}
	}
}

// The checkpoint and the folding of small segments have to be met by the kills, so
// the store is small and the bodies are not.
func killConfig() store.Config {
	return store.Config{MaxSize: 64 << 20, CommitDelay: 5 * time.Millisecond}
}

func send(s *store.Store, i int, acknowledge func(uint64)) error {
	source, err := s.Source(store.SourceKey{Device: fmt.Sprint("device-", i), Stream: "s"})
	if err != nil {
		return err
	}
	c, err := s.Channel(store.ChannelKey{Sender: fmt.Sprint("sender-", i), Epoch: 1})
	if err != nil {
		return err
	}
	padding := bytes.Repeat([]byte("x"), 300*i)
	for number := c.Safe(); ; {
		batch := store.Batch{Channel: c, Previous: number, Delay: i == 0}
		for range 1 + rand.IntN(3) {
			number++
			body := append(strconv.AppendUint(nil, number, 10), ' ')
			batch.Entries = append(batch.Entries, store.Entry{Source: source, Number: number, Body: append(body, padding...)})
		}
		commit, err := s.Append(context.Background(), batch)
		if err != nil {
			return err
		}
		if err := commit.Wait(context.Background()); err != nil {
			return err
		}
		acknowledge(number)
	}
}

// mail puts rising numbers under a few keys in turn.
func mail(s *store.Store, _ int, acknowledge func(uint64)) error {
	number, err := lastMail(s)
	if err != nil {
		return err
	}
	for {
		number++
		commit, err := s.Mailbox().Put(fmt.Sprint("key-", number%mailKeys), strconv.AppendUint(nil, number, 10))
		if err != nil {
			return err
		}
		if err := commit.Wait(context.Background()); err != nil {
			return err
		}
		acknowledge(number)
	}
}

// lastMail checks that each key holds the last number that it was due.
func lastMail(s *store.Store) (last uint64, err error) {
	letters, err := s.Mailbox().All()
	if err != nil {
		return 0, err
	}
	numbers := make(map[string]uint64)
	for _, l := range letters {
		if numbers[l.Key], err = strconv.ParseUint(string(l.Value), 10, 64); err != nil {
			return 0, fmt.Errorf("%+v: %w", l, err)
		}
		last = max(last, numbers[l.Key])
	}
	for number := last; number > 0 && number+mailKeys > last; number-- {
		if got := numbers[fmt.Sprint("key-", number%mailKeys)]; got != number {
			return 0, fmt.Errorf("%d is there and %d is not: %v", last, number, numbers)
		}
	}
	return last, nil
}

func TestAKilledProcessLosesNothingAndNumbersGoOn(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(dir, killConfig(), quiet())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Cursor(store.CursorConfig{Name: "check"}); err != nil {
		t.Fatal(err)
	}
	run(t, s)()
	var stored [killProducers]uint64
	kills, total := parameter(t, killCount, 50), uint64(0)
	for round := range kills {
		acked := killedRound(t, dir)
		before := total
		total = checkKilled(t, dir, acked, &stored)
		if total == before && round > 5 {
			t.Logf("round %d: nothing was stored", round)
		}
	}
	if total < kills*killProducers {
		t.Errorf("only %d records in %d rounds: the test shows little", total, kills)
	}
}

// killedRound lets the child work for a moment, kills it, and returns what it had
// acknowledged.
func killedRound(t *testing.T, dir string) (acked [killProducers + 1]uint64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(pipe)
	var timer *time.Timer
	for lines.Scan() {
		if timer == nil { // it is at work now
			timer = time.AfterFunc(rand.N(60*time.Millisecond), func() { _ = cmd.Process.Kill() })
		}
		var i int
		var number uint64
		// The last line may be torn: then it is not acknowledged.
		if n, err := fmt.Sscanf(lines.Text()+"\n", "%d %d\n", &i, &number); err == nil && n == 2 {
			acked[i] = max(acked[i], number)
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the child ended by itself: %v\n%s", err, stderr.String())
	}
	return acked
}

// checkKilled reads all that was stored since the round before.
func checkKilled(t *testing.T, dir string, acked [killProducers + 1]uint64, stored *[killProducers]uint64) (total uint64) {
	t.Helper()
	s, err := store.Open(dir, killConfig(), quiet())
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Cursor(store.CursorConfig{Name: "check"})
	if err != nil {
		t.Fatal(err)
	}
	if last, err := lastMail(s); err != nil || last < acked[mailer] {
		t.Fatalf("mailbox: %d was acknowledged, %d is stored; %v", acked[mailer], last, err)
	}
	lag := s.Stats().Cursors[0].Lag
	stop := run(t, s)
	defer stop()
	var items []store.Item
	for read := uint64(0); read < lag; read += uint64(len(items)) {
		if items, err = c.Read(t.Context(), items[:0], 1000, 1<<20); err != nil {
			t.Fatal(err)
		}
		for _, item := range items {
			checkItem(t, item, stored)
		}
		c.Ack(items[len(items)-1].Position)
	}
	for i, n := range stored {
		channel, err := s.Channel(store.ChannelKey{Sender: fmt.Sprint("sender-", i), Epoch: 1})
		if err != nil {
			t.Fatal(err)
		}
		if n < acked[i] || channel.Safe() != n {
			t.Fatalf("producer %d: %d was acknowledged, %d is stored, the channel says %d", i, acked[i], n, channel.Safe())
		}
		total += n
	}
	return total
}

// checkItem: each producer's records are numbered like the channel, by one.
func checkItem(t *testing.T, item store.Item, stored *[killProducers]uint64) {
	t.Helper()
	i, err := strconv.Atoi(strings.TrimPrefix(item.Source.Key().Device, "device-"))
	if err != nil || item.Gap != nil {
		t.Fatalf("%+v", item)
	}
	stored[i]++
	want := strconv.FormatUint(stored[i], 10)
	if body, _, _ := strings.Cut(string(item.Body), " "); item.Seq != stored[i] || body != want {
		t.Fatalf("producer %d: seq %d, body %s, want %s", i, item.Seq, body, want)
	}
}
