package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mcp-edge/edge-agent/record"
	"github.com/mcp-edge/edge-agent/store"
)

// What the laboratory for power cuts and failing disks checks. The program under
// test (see labor_test.go) tells what it has promised in marks of the trace:
//
//	case N             a case of its own begins, with an empty store
//	over N             it has ended
//	epoch E            the store was opened, this is its epoch
//	begin D N          the records of device D up to N are about to be appended
//	done D N           they are acknowledged
//	ack C N0 N1 …      cursor C is about to acknowledge the devices' records up to these
//	mail N             number N is kept in the mailbox, in the place of N - mailKeys
//	put K, kept K      letter K is about to be put; it is kept
//	take K, gone K     it is about to be deleted; it is deleted

const labDevices = 4

// labCursors are the readers: one that takes all, one that takes some, one that
// lags and drops.
func labCursors() []store.CursorConfig {
	return []store.CursorConfig{
		{Name: "all", WhenFull: store.Block},
		{Name: "few", WhenFull: store.Block, Match: func(k store.SourceKey) bool { return k.Device == "d0" || k.Device == "d1" }},
		{Name: "drop", WhenFull: store.DropOldest},
	}
}

func labConfig() store.Config {
	return store.Config{MaxSize: 256 << 10, CommitDelay: 5 * time.Millisecond}
}

// promise is what holds at some time.
type promise struct {
	epoch       string
	begun, done [labDevices]uint64
	acked       [3][labDevices]uint64
	mail        uint64
	letters     map[uint64]string // the last mark of each
}

func newPromise() *promise { return &promise{letters: make(map[uint64]string)} }

// take learns from a mark.
func (p *promise) take(mark string) error {
	word, rest, _ := strings.Cut(mark, " ")
	if word == "epoch" {
		p.epoch = rest
		return nil
	}
	var n []uint64
	for _, field := range strings.Fields(rest) {
		v, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return fmt.Errorf("mark %q: %w", mark, err)
		}
		n = append(n, v)
	}
	switch word {
	case "case":
		*p = *newPromise()
	case "over":
	case "begin":
		p.begun[n[0]] = max(p.begun[n[0]], n[1])
	case "done":
		p.done[n[0]] = max(p.done[n[0]], n[1])
	case "ack":
		for d, last := range n[1:] {
			p.acked[n[0]][d] = max(p.acked[n[0]][d], last)
		}
	case "mail":
		p.mail = max(p.mail, n[0])
	case "put", "kept", "take", "gone":
		p.letters[n[0]] = word
	default:
		return fmt.Errorf("mark %q is not known", mark)
	}
	return nil
}

// marks say what a store holds, for another program to go on with it.
func (p *promise) marks() (list []string) {
	if p.epoch != "" {
		list = append(list, "epoch "+p.epoch)
	}
	for d := range labDevices {
		list = append(list, fmt.Sprintf("begin %d %d", d, p.begun[d]), fmt.Sprintf("done %d %d", d, p.done[d]))
	}
	for c := range p.acked {
		list = append(list, ackMark(c, p.acked[c]))
	}
	list = append(list, fmt.Sprint("mail ", p.mail))
	for key, state := range p.letters {
		list = append(list, fmt.Sprint(state, " ", key))
	}
	return list
}

func ackMark(cursor int, upTo [labDevices]uint64) string {
	return fmt.Sprint("ack ", cursor, " ", strings.Trim(fmt.Sprint(upTo), "[]"))
}

// check opens the store in dir, and returns what it holds. It appends a record of
// each device, and reads up to it with each cursor.
func (p *promise) check(ctx context.Context, dir string) (found *promise, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	s, err := store.Open(dir, labConfig(), quiet())
	if err != nil {
		return nil, fmt.Errorf("it does not open: %w", err)
	}
	found = newPromise()
	epoch := fmt.Sprint(s.Epoch())
	defer func() { err = errors.Join(err, s.Close()) }()
	if p.epoch != "" && epoch != p.epoch {
		return nil, fmt.Errorf("it has the epoch %s, and had %s", epoch, p.epoch)
	}
	found.epoch = p.epoch // if that is not known, opening may just have made the store
	if err := p.checkMail(s, found); err != nil {
		return nil, err
	}
	lab := &lab{ctx: ctx, store: s, mark: func(string) error { return nil }}
	if err := lab.openCursors(); err != nil {
		return nil, err
	}
	go func() { _ = s.Run(ctx) }() // what is not committed, the appends tell
	return found, p.checkRecords(lab, found)
}

func (p *promise) checkRecords(lab *lab, found *promise) error {
	for d := range labDevices {
		channel, err := lab.channel(d)
		if err != nil {
			return err
		}
		safe := channel.Safe()
		found.begun[d], found.done[d] = safe, safe
		if safe < p.done[d] || safe > p.begun[d] {
			return fmt.Errorf("device %d: %d were acknowledged, %d appended, and %d are there", d, p.done[d], p.begun[d], safe)
		}
	}
	errs := make(chan error, len(lab.cursors)+1)
	for i := range lab.cursors {
		go func() { errs <- p.checkCursor(lab, i, found) }()
	}
	go func() { errs <- lab.appendOneEach() }()
	var err error
	for range cap(errs) {
		err = errors.Join(err, <-errs)
	}
	return err
}

// checkCursor reads up to the record that was appended last of each device.
func (p *promise) checkCursor(lab *lab, i int, found *promise) error {
	cfg, c := labCursors()[i], lab.cursors[i]
	wanted := 0
	for d := range labDevices {
		if cfg.Match == nil || cfg.Match(labSource(d)) {
			wanted++
		}
	}
	var last [labDevices]uint64
	var items []store.Item
	for wanted > 0 {
		var err error
		if items, err = c.Read(lab.ctx, items[:0], 100, 1<<20); err != nil {
			return fmt.Errorf("cursor %s, which has read %d: %w", cfg.Name, last, err)
		}
		for k := range items {
			d, from, to, err := span(&items[k])
			switch {
			case err != nil:
				return fmt.Errorf("cursor %s: %w", cfg.Name, err)
			case last[d] == 0 && from > p.acked[i][d]+1:
				return fmt.Errorf("cursor %s, device %d: it begins with %d, and had acknowledged %d", cfg.Name, d, from, p.acked[i][d])
			case last[d] == 0:
				found.acked[i][d] = from - 1
			case from != last[d]+1:
				return fmt.Errorf("cursor %s, device %d: %d follows on %d", cfg.Name, d, from, last[d])
			}
			if last[d] = to; to == found.done[d]+1 {
				wanted--
			}
		}
		c.Ack(items[len(items)-1].Position)
	}
	return nil
}

// span is which records of which device an item is or announces.
func span(item *store.Item) (device int, from, to uint64, err error) {
	device, err = strconv.Atoi(strings.TrimPrefix(item.Source.Key().Device, "d"))
	if err != nil || device >= labDevices {
		return 0, 0, 0, fmt.Errorf("a record of an unknown device: %+v", item)
	}
	if g := item.Gap; g != nil {
		if g.Reason != record.GapDropOldest || g.Count != g.To-g.From+1 {
			err = fmt.Errorf("%+v is not to be missing", *g)
		}
		return device, g.From, g.To, err
	}
	if body, _, _ := strings.Cut(string(item.Body), " "); body != strconv.FormatUint(item.Seq, 10) {
		err = fmt.Errorf("record %d of device %d holds %.20q", item.Seq, device, item.Body)
	}
	return device, item.Seq, item.Seq, err
}

func (p *promise) checkMail(s *store.Store, found *promise) error {
	letters, err := s.Mailbox().All()
	if err != nil {
		return err
	}
	var mail []uint64
	for _, l := range letters {
		n, err := strconv.ParseUint(string(l.Value), 10, 64)
		switch {
		case err != nil:
			return fmt.Errorf("letter %+v: %w", l, err)
		case l.Key == letterKey(n):
			found.letters[n] = "kept"
		case l.Key == mailKey(n):
			mail = append(mail, n)
		default:
			return fmt.Errorf("%d under the key %s", n, l.Key)
		}
	}
	for key, state := range p.letters {
		_, there := found.letters[key]
		if there && state == "gone" || !there && state == "kept" {
			return fmt.Errorf("letter %d, last mark %s: there is %t", key, state, there)
		}
	}
	slices.Sort(mail)
	if len(mail) > 0 {
		found.mail = mail[len(mail)-1]
	}
	if found.mail < p.mail {
		return fmt.Errorf("mail up to %d was acknowledged, and %v is there", p.mail, mail)
	}
	for i, n := range mail { // they follow on each other
		if n+uint64(len(mail)-1-i) != found.mail {
			return fmt.Errorf("the mailbox holds %v", mail)
		}
	}
	if uint64(len(mail)) != min(found.mail, mailKeys) {
		return fmt.Errorf("the mailbox holds %v", mail)
	}
	return nil
}

func mailKey(n uint64) string   { return fmt.Sprint("key-", n%mailKeys) }
func letterKey(n uint64) string { return fmt.Sprint("letter-", n) }
