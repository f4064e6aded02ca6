package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/mcp-edge/edge-agent/store"
)

type queueRepairCommand struct{ queueFlags }

// Help is what --help says besides.
func (queueRepairCommand) Help() string {
	return `For a stopped agent whose queue file is damaged. What can be read is written to a fresh file, the damaged one is
moved aside with a report, and the routes are told what is missing. The agent does the same by itself when it
starts; here one sees it happen. It needs room on the disk for as much as is stored.

Single records that can't be read need no repair: each is announced to its routes as missing when its turn comes.

Exit code: 0 the queue is good now; 1 the input or configuration is wrong; 2 it could not be repaired.`
}

func (c queueRepairCommand) Run(ctx context.Context, out io.Writer, errs errorWriter) error {
	t, err := c.find()
	if err != nil {
		return err
	}
	if t.dir == "" {
		return inputError{errors.New("which queue? Name the agent's configuration (-c FILE)")}
	}
	image, err := store.OpenImage(t.dir)
	switch {
	case err == nil:
		t.image = image
		defer t.close()
		return c.whole(ctx, out, image, newMeter(errs, "checking"))
	case errors.Is(err, store.ErrLocked):
		return fmt.Errorf("the agent runs: stop it first (systemctl stop edge-agent); the file in %s can't be repaired under its hands", t.dir)
	case !errors.Is(err, store.ErrDamaged):
		return t.explain(err)
	}
	fmt.Fprintln(out, err)
	return c.repair(out, errs, t)
}

// whole says what there is to say of a file whose structure is good.
func (c queueRepairCommand) whole(ctx context.Context, out io.Writer, image *store.Image, meter *meter) error {
	defer meter.end()
	found := 0
	survey, err := image.Check(ctx, func(f store.Finding) {
		if found++; found <= maxFindings {
			meter.end()
			fmt.Fprintln(out, inWords(&f))
		}
	}, func(done, total int64) { meter.show(uint64(done), uint64(total)) })
	meter.end()
	if err != nil {
		return err
	}
	if found == 0 {
		_, err = fmt.Fprintf(out, "nothing is wrong with the %s in %s; it is as it was\n", counted(survey.Records, "record"), image.Path())
		return err
	}
	_, err = fmt.Fprintf(out, "The structure of %s is good, and it is as it was. The %s that can be read\nwill be delivered, and what can't is announced to the routes as missing.\n", image.Path(), counted(survey.Records, "record"))
	return err
}

// repair opens the file as the agent does when it starts, and tells what came of it.
func (c queueRepairCommand) repair(out io.Writer, errs errorWriter, t *queueTarget) error {
	before, err := names(t.dir)
	if err != nil {
		return err
	}
	s, stop, err := t.run(errs)
	if err != nil {
		return err
	}
	st := s.Stats()
	if err := stop(); err != nil {
		return err
	}
	for _, notice := range st.Notices {
		fmt.Fprintln(out, plain(notice))
	}
	fmt.Fprintf(out, "repaired; in the queue now: %s, %s\n", counted(st.Records, "record"), sized(st.Bytes))
	after, err := names(t.dir)
	if err != nil {
		return err
	}
	for _, name := range after {
		if !slices.Contains(before, name) {
			fmt.Fprintf(out, "new in %s: %s\n", t.dir, plain(name))
		}
	}
	return nil
}

func names(dir string) (list []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list, err
}
