package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// hearWitness compares the file with its witness, at Open, and begins a new epoch
// if they disagree. A file of before there were witnesses gets one.
//
// repair: a file that lacks its last commits is an error, *rolledBack: they may
// still be in its old pages.
func (s *Store) hearWitness(repair bool) error {
	dir := filepath.Dir(s.path)
	h, err := s.witness.hear(dir)
	if err != nil {
		return fmt.Errorf("reading %s: %w", WitnessName, err)
	}
	switch reason, lost := h.contradicts(&s.about, s.txid, s.end); {
	case reason != "" && repair && h.behind(&s.about, s.txid):
		return &rolledBack{reason: reason, txid: s.txid, end: s.end}
	case reason != "":
		return s.beginEpoch(reason, lost)
	case !h.found || !s.about.witnessed || !s.about.sums:
		return s.swearIn(s.about)
	case h.epoch != s.about.epoch:
		// A power cut came before it was on disk.
		return s.witness.make(dir, s.testimony(), s.disk.sync)
	case h.generation != s.about.generation || h.txid != s.txid:
		s.testify(s.txid, s.end)
	}
	return nil
}

func (s *Store) testimony() testimony {
	return testimony{epoch: s.about.epoch, generation: s.about.generation, txid: s.txid, end: s.end}
}

// swearIn makes a witness for what the file is to say of itself, and then has the
// file say it.
func (s *Store) swearIn(next about) error {
	before := s.about
	s.about = next
	err := s.witness.make(filepath.Dir(s.path), s.testimony(), s.disk.sync)
	if err != nil {
		s.log.Warn("the witness of the queue can't be made: a rolled-back queue will not be noticed", "file", s.path, "error", err)
	}
	s.about.witnessed = err == nil
	if err := s.saveAbout(); err != nil {
		s.about = before
		return err
	}
	s.testify(s.txid, s.end)
	return nil
}

// saveAbout commits what the file says of itself, at Open.
func (s *Store) saveAbout() (err error) {
	tx, err := begin(s.db, true)
	if err != nil {
		return err
	}
	defer rollback(tx, &err)
	txid := uint64(tx.ID()) // which a transaction that has ended does not tell
	if !s.about.sums {
		if err := addSums(tx); err != nil {
			return fmt.Errorf("adding checksums: %w", err)
		}
		s.about.sums = true
	}
	if err := errors.Join(s.about.put(tx), s.disk.commit(tx)); err != nil {
		return fmt.Errorf("writing what the file says of itself: %w", err)
	}
	s.txid = txid
	return nil
}

// beginEpoch starts the numbers anew, as some may be lost that were given out.
func (s *Store) beginEpoch(reason string, lost uint64) error {
	epoch, err := drawEpoch()
	if err != nil {
		return err
	}
	next := s.about
	next.epoch, next.previous, next.since, next.reason = epoch, s.about.epoch, time.Now(), reason
	if err := s.swearIn(next); err != nil {
		return err
	}
	s.notice(fmt.Sprintf("a new epoch has begun, in which each device is numbered from 1: the queue's file is not what it was, %s", reason))
	s.log.Error("the queue's file is not what it was, so a new epoch begins: devices are numbered from 1, and what is stored keeps its numbers",
		"file", s.path, "why", reason, "records_lost", lost, "epoch", s.about.epoch, "epoch_before", s.about.previous)
	return nil
}

// countPast counts the sources of this agent's epochs before.
func (s *Store) countPast() {
	for _, source := range s.ids.byID[1:] {
		if source.key.Agent == "" && source.key.Epoch != s.about.epoch {
			s.ids.past++
		}
	}
}

// notice is for Stats to tell.
func (s *Store) notice(text string) { s.notices = append(s.notices, text) }

// forgetWitness is for a new queue: it says so when there has been one.
func (s *Store) forgetWitness(reason string) error {
	path := filepath.Join(filepath.Dir(s.path), WitnessName)
	if _, err := os.Stat(path); err != nil {
		return nil //nolint:nilerr // there is none, or hearWitness will say what is wrong
	}
	if reason == "" {
		s.notice("the queue's file was missing though its witness " + WitnessName + " is there: a new queue has begun, in a new epoch")
		s.log.Error("the queue's file is missing though its witness is there: records may be lost; a new queue begins, in a new epoch", "file", s.path)
	}
	return os.Remove(path)
}
