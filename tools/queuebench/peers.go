package main

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/tidwall/wal"
	"golang.org/x/sys/unix"
)

// ring is the floor.
type ring struct {
	*front
	file   *os.File
	offset int64
}

const ringSize = 64 << 20

func newRing(dir string) (*ring, error) {
	file, err := os.Create(filepath.Join(dir, "ring"))
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, 1<<20)
	for range ringSize >> 20 {
		if _, err := file.Write(zeros); err != nil {
			return nil, err
		}
	}
	if err := file.Sync(); err != nil {
		return nil, err
	}
	r := &ring{file: file}
	r.front = newFront(&ringGroup{ring: r}, &ringGroup{ring: r})
	return r, nil
}

func (r *ring) close() error {
	r.front.close()
	return errors.Join(r.file.Close(), os.Remove(r.file.Name()))
}

// ringGroup frames each record with length and CRC-32C.
type ringGroup struct {
	ring *ring
	buf  []byte
}

func (g *ringGroup) size() int { return len(g.buf) }

func (g *ringGroup) add(body []byte) {
	g.buf = binary.LittleEndian.AppendUint32(g.buf, uint32(len(body)))
	g.buf = binary.LittleEndian.AppendUint32(g.buf, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	g.buf = append(g.buf, body...)
}

func (g *ringGroup) write() error {
	r := g.ring
	if r.offset+int64(len(g.buf)) > ringSize {
		r.offset = 0
	}
	if _, err := r.file.WriteAt(g.buf, r.offset); err != nil {
		return err
	}
	if err := unix.Fdatasync(int(r.file.Fd())); err != nil {
		return err
	}
	r.offset += (int64(len(g.buf)) + 4095) &^ 4095
	g.buf = g.buf[:0]
	return nil
}

// tidwall is tidwall/wal, synced after each batch.
type tidwall struct {
	*front
	log  *wal.Log
	last uint64
}

func newTidwall(dir string) (*tidwall, error) {
	log, err := wal.Open(filepath.Join(dir, "wal"), nil)
	if err != nil {
		return nil, err
	}
	w := &tidwall{log: log}
	w.front = newFront(&walGroup{wal: w}, &walGroup{wal: w})
	return w, nil
}

func (w *tidwall) close() error {
	w.front.close()
	return w.log.Close()
}

// trim lets go of what was written.
func (w *tidwall) trim() error {
	last, err := w.log.LastIndex()
	if err != nil || last == 0 {
		return err
	}
	return w.log.TruncateFront(last)
}

type walGroup struct {
	wal   *tidwall
	batch wal.Batch
	bytes int
}

func (g *walGroup) size() int { return g.bytes }

func (g *walGroup) add(body []byte) {
	g.wal.last++
	g.batch.Write(g.wal.last, body)
	g.bytes += len(body)
}

func (g *walGroup) write() error {
	g.bytes = 0
	return g.wal.log.WriteBatch(&g.batch)
}

// jet is a NATS server in this process, with a stream in files.
type jet struct {
	server *server.Server
	conns  []*nats.Conn
	js     []jetstream.JetStream
	body   []byte
}

const jetConns = 16

func newJet(dir string) (*jet, error) {
	s, err := server.NewServer(&server.Options{
		JetStream: true, StoreDir: filepath.Join(dir, "jet"), SyncAlways: true, DontListen: true, NoLog: true, NoSigs: true,
	})
	if err != nil {
		return nil, err
	}
	j := &jet{server: s, body: make([]byte, bodySize)}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return nil, errors.New("the NATS server is not ready")
	}
	for range jetConns {
		conn, err := nats.Connect("", nats.InProcessServer(s))
		if err != nil {
			return nil, err
		}
		js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(4096))
		if err != nil {
			return nil, err
		}
		j.conns, j.js = append(j.conns, conn), append(j.js, js)
	}
	_, err = j.js[0].CreateStream(context.Background(), jetstream.StreamConfig{
		Name: "queue", Subjects: []string{"records"}, Storage: jetstream.FileStorage, MaxBytes: 1 << 30, Discard: jetstream.DiscardOld,
	})
	return j, err
}

func (j *jet) append(i int) error {
	_, err := j.js[i%jetConns].Publish(context.Background(), "records", j.body)
	return err
}

func (j *jet) pipeline(window int, done *atomic.Bool) (int64, error) {
	return pipelined(window, done,
		func() (jetstream.PubAckFuture, error) { return j.js[0].PublishAsync("records", j.body) },
		func(f jetstream.PubAckFuture) error {
			select {
			case <-f.Ok():
				return nil
			case err := <-f.Err():
				return err
			}
		})
}

func (j *jet) close() error {
	for _, c := range j.conns {
		c.Close()
	}
	j.server.Shutdown()
	j.server.WaitForShutdown()
	return nil
}
