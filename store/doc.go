// Package store is the durable queue: records go in, are on disk, and stay
// there until every cursor has passed them. It knows an envelope (whose record,
// which number, when); what a record says is opaque to it.
//
// # Promises
//
//   - When a [Commit] is done without an error, its records survive kill -9 and a
//     power cut. Until then none of them is promised, and none is acknowledged.
//   - A device's own records are numbered by one, without a gap, across restarts
//     and kills. No number of an epoch is given twice: when some may be lost that
//     were given, a new epoch begins. Numbers of another agent's records are kept
//     as they came.
//   - The last number of a [Channel] is committed with the records it covers, so
//     a sender that repeats itself is stored once.
//   - Each cursor gets every record that it takes, in order, at least once:
//     again after a restart or [Cursor.Rewind], if it was not acknowledged.
//   - What a cursor will not get (dropped, unreadable) is announced to it by an
//     [Item] with a Gap, counted and logged. Nothing else is missing.
//   - Memory and disk are bounded. At the limit the store says so and does what
//     the configuration says: Append waits, or the oldest records go.
//   - What is put into the [Mailbox] survives like a record, and has room when
//     the queue is full.
//   - A damaged file stops nothing: what is readable is taken over, the file is moved
//     aside, and a [Report] says what it held.
//   - On a full disk, acknowledgements, what they free, and the mailbox go on.
//   - A full or failing disk loses nothing: the commit under way is tried again
//     until it works, and nothing is acknowledged meanwhile.
//
// # How it works
//
//	Append ──▶ group ──▶ Run: one transaction for all ──▶ Commit.Done
//	Append ──▶   │            │  records, numbers, cursors, freed space
//	Append ──▶   │            ▼
//	          in memory   queue.db ──▶ Cursor.Read ──▶ Cursor.Ack
//	                          ▲                            │
//	                          └── with the next group ◀────┘
//
// Producers copy their records into a shared group and wait on its one Commit.
// Run, the only writer, takes the group and commits it while the next one fills.
//
// # The file
//
// One bbolt file. Each commit's records are one segment: a top-level bucket with
// one value. A bucket of its own keeps bbolt from rewriting the neighbours of a
// large value; top level, because every level of buckets costs one more page in
// every commit. The names put what changes with each commit beside the newest
// segment, so that both are on the same page: a small commit writes three pages,
// or two if its records fit the page itself.
//
//	about          format, epoch, state: all of what the file says of itself, with a checksum
//	dict.channel   id ▶ sender, epoch, channel
//	dict.source    id ▶ agent, epoch, device, stream
//	log.<first>    a segment, named by the position of its first record
//	log.<first>
//	…
//	now.age        when records up to a position had come; made if somebody asks
//	now.checkpoint the last number of each device and channel, up to a position
//	now.cursor     name ▶ acknowledged position and lag
//	now.gap        name ▶ what the cursor still has to be told is missing
//	now.mailbox    key ▶ CRC-32C of key and value, value; made by the first Put
//
// Values of dict.channel, dict.source, now.cursor and now.gap are followed by their
// checksum: see sum.go.
//
//	segment   header │ record │ record │ … │ marks
//	header    checksum, lengths, count, first position, oldest time
//	record    length │ CRC-32C │ source, seq, time, part │ body
//	marks     channel, last number; for each channel that wrote in this segment
//
// Beside it stands [WitnessName], which knows the last commit and tells a queue that
// is older than it should be: then a new epoch begins, in which own devices are
// numbered from 1. See witness.go.
//
// Space in the file that is free is used again. When it is much, the file gives it
// back to the disk (see compact.go).
//
// Position counts the records of the log from 1. Small segments are folded into
// larger ones when many of them have come together (see fold.go).
//
// After a kill the numbers are those of the checkpoint, carried on with the
// records and marks of the segments behind it. A checkpoint is written when those
// would be too many to read at start, and before one of them may be freed.
package store
