package mcp

import (
	"fmt"
	"iter"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	publishChannel  = 1
	publishPrevious = 2
	publishNumbers  = 3
	publishRecords  = 4
	publishOnce     = 5
)

// Publish is the payload of a PUBLISH: records of one channel, in the order of
// their numbers. A Publish is meant to be used again and again: Unmarshal then
// does not allocate.
type Publish struct {
	Channel    []byte // aliases the payload
	Previous   uint64 // the number before the first record's, or one below it: those between are none
	BestEffort bool   // sent once: not acknowledged, not repeated

	before  uint64   // the number before the first record's, if numbers is empty
	numbers []uint64 // empty: before+1, before+2, …
	payload []byte
	count   int
	bytes   int
	repeats int // that many of the first records are left out
}

// Unmarshal sets p from a payload, which must stay as it is for as long as p is
// used. It does not look into the records. Errors are of class ErrPayload.
func (p *Publish) Unmarshal(b []byte) error {
	*p = Publish{numbers: p.numbers[:0], payload: b}
	for len(b) > 0 {
		f, rest, err := nextField(b)
		if err != nil {
			return err
		}
		switch {
		case f.isBytes(publishRecords):
			p.count++
			p.bytes += 1 + protowire.SizeBytes(len(f.bytes))
		case f.isBytes(publishChannel):
			p.Channel = f.bytes
		case f.isVarint(publishPrevious):
			p.Previous, p.before = f.number, f.number
		case f.isVarint(publishOnce):
			p.BestEffort = f.number != 0
		case f.isBytes(publishNumbers), f.isVarint(publishNumbers):
			if err := f.eachVarint(p.addNumber); err != nil {
				return err
			}
		}
		b = rest
	}
	return p.check()
}

func (p *Publish) addNumber(v uint64) error {
	if len(p.numbers) == MaxBatch {
		return fmt.Errorf("%w: more than %d numbers", ErrPayload, MaxBatch)
	}
	p.numbers = append(p.numbers, v)
	return nil
}

func (p *Publish) check() error {
	switch {
	case p.count == 0:
		return fmt.Errorf("%w: no records", ErrPayload)
	case p.count > MaxBatch:
		return fmt.Errorf("%w: more than %d records", ErrPayload, MaxBatch)
	case len(p.numbers) > 0 && len(p.numbers) != p.count:
		return fmt.Errorf("%w: %d numbers for %d records", ErrPayload, len(p.numbers), p.count)
	case p.Previous > math.MaxUint64-uint64(p.count):
		return fmt.Errorf("%w: the numbers go beyond 64 bits", ErrPayload)
	}
	last := p.Previous
	for _, n := range p.numbers {
		if n <= last {
			return fmt.Errorf("%w: number %d follows %d", ErrPayload, n, last)
		}
		last = n
	}
	return nil
}

// First is the number of the first record.
func (p *Publish) First() uint64 { return p.number(0) }

// Last is the number of the last record.
func (p *Publish) Last() uint64 {
	if len(p.numbers) > 0 {
		return p.numbers[len(p.numbers)-1]
	}
	return p.before + uint64(p.count)
}

// Len is how many records Records yields.
func (p *Publish) Len() int { return p.count - p.repeats }

// Bytes is the size of what Records yields, each with its tag and length. The
// window in bytes counts it.
func (p *Publish) Bytes() int { return p.bytes }

// skip leaves out the records up to number, which the receiver has.
func (p *Publish) skip(number uint64) {
	if number <= p.Previous {
		return
	}
	for i, raw := range p.Records() {
		if i > number {
			break
		}
		p.bytes -= 1 + protowire.SizeBytes(len(raw))
		p.repeats++
	}
}

func (p *Publish) number(i int) uint64 {
	if len(p.numbers) > 0 {
		return p.numbers[i]
	}
	return p.before + uint64(i) + 1
}

// Records yields each new record with its number, as protobuf
// (record.Record.Unmarshal reads it). The bytes alias the payload.
func (p *Publish) Records() iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		b, repeats := p.payload, p.repeats
		for i := 0; i < p.count; {
			f, rest, err := nextField(b)
			if err != nil {
				return // can't be: Unmarshal has read the same bytes
			}
			b = rest
			if !f.isBytes(publishRecords) {
				continue
			}
			if i >= repeats && !yield(p.number(i), f.bytes) {
				return
			}
			i++
		}
	}
}

// AppendPublish appends the payload of a PUBLISH to b. records are as
// AppendRecord made them, one behind the other. numbers is empty where they are
// previous+1, previous+2 and so on.
func AppendPublish(b []byte, channel string, previous uint64, numbers []uint64, records []byte) []byte {
	b = appendText(b, publishChannel, channel)
	b = appendVarint(b, publishPrevious, previous)
	if len(numbers) > 0 {
		size := 0
		for _, n := range numbers {
			size += protowire.SizeVarint(n)
		}
		b = protowire.AppendTag(b, publishNumbers, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(size))
		for _, n := range numbers {
			b = protowire.AppendVarint(b, n)
		}
	}
	return append(b, records...)
}

// AppendBestEffort is AppendPublish for records that are sent once.
func AppendBestEffort(b []byte, channel string, previous uint64, records []byte) []byte {
	b = appendText(b, publishChannel, channel)
	b = appendVarint(b, publishPrevious, previous)
	b = append(b, records...)
	return appendBool(b, publishOnce, true)
}

// AppendRecord appends one record, given as protobuf, in the form that
// AppendPublish wants.
func AppendRecord(b, record []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, publishRecords, protowire.BytesType), record)
}
