#!/usr/bin/env python3
"""An MCP client in Python, with nothing but the standard library.

It is written from docs/protocol.md alone, as a device maker would, and shows how
little a device needs. It is for trying things out and for checking the document:

    mcp_client.py vectors docs/protocol.md
    mcp_client.py publish tcp://127.0.0.1:7700 press-7 --stream stroke n=42 force=80.25
    mcp_client.py publish udp://127.0.0.1:7701 press-7 --count 1000 n=1
    mcp_client.py publish tls://gw-01:7700 press-7 --ca ca.crt --cert client.crt --key client.key n=42

publish sends the readings as one record (or --count of them) and exits with 0 when the
agent has them on disk. A connection that breaks is made again, and no record is lost or
stored twice; after --patience seconds without progress it exits with 1, as it does at
once when the agent says no.
"""

import argparse
import os
import random
import re
import socket
import ssl
import struct
import sys
import time

MAGIC = b"MC"
HEARTBEAT, HEARTBEAT_ACK, HELLO, WELCOME, PUBLISH, ACK, REQUEST, RESPONSE, CLOSE, ERROR = range(1, 11)
NAMES = ["", "HEARTBEAT", "HEARTBEAT_ACK", "HELLO", "WELCOME", "PUBLISH", "ACK", "REQUEST", "RESPONSE", "CLOSE", "ERROR"]
CODES = (
    "ok", "bad frame", "unknown version", "unknown command", "bad payload", "not allowed", "too large", "busy",
    "window exceeded", "hello expected", "hello time-out", "heartbeat missed", "unexpected command", "going away",
    "replaced", "unknown method", "internal error", "epoch spent", "unauthorized", "token expired", "rate exceeded",
)  # fmt: skip
HELLO_EXPECTED, GOING_AWAY, UNKNOWN_METHOD, INTERNAL_ERROR = 9, 13, 15, 16
# The codes that may be over when we connect again: bad frame, busy, hello expected, hello
# time-out, heartbeat missed, going away, replaced, internal error, rate exceeded.
PASSING = (1, 7, 9, 10, 11, 13, 14, 16, 20)
CHALLENGE = 0  # no command, but what a line says where a datagram came with a new cookie
COOKIE = 8  # bytes in front of each datagram
MAX_DATAGRAM = 1232
HEARTBEAT_MS = 10000  # more often than a stream's time-out


class ProtocolError(Exception):
    """Something is wrong that waiting can't mend."""


class Lost(Exception):
    """The session is over; connect again."""


# --- frames ---------------------------------------------------------------


def crc8(data):
    """CRC-8/SMBUS."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
    return crc


def crc32c_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ 0x82F63B78 if n & 1 else n >> 1  # the polynomial, reflected
        table.append(n)
    return table


CRC32C = crc32c_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC32C[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def checksum(version, data):
    return bytes([crc8(data)]) if version == 1 else struct.pack(">I", crc32c(data))


def frame(command, payload=b"", version=2):
    body = MAGIC + struct.pack(">BBI", version, command, len(payload)) + payload
    return body + checksum(version, body)


def take_frame(buffer):
    """Returns (version, command, payload, rest), or None while bytes are missing."""
    if len(buffer) < 8:
        return None
    version, command, length = struct.unpack(">BBI", buffer[2:8])
    if buffer[:2] != MAGIC or version not in (1, 2):
        raise ProtocolError("these bytes are no frame: %s" % buffer[:8].hex())
    end = 8 + length + (1 if version == 1 else 4)
    if len(buffer) < end:
        return None
    if checksum(version, buffer[: 8 + length]) != buffer[8 + length : end]:
        raise ProtocolError("wrong checksum")
    return version, command, buffer[8 : 8 + length], buffer[end:]


# --- protobuf -------------------------------------------------------------


def varint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def field(number, value):
    """One field: an int as varint, bytes or str with its length, a float as double."""
    if isinstance(value, (bytes, str)):
        value = value.encode() if isinstance(value, str) else value
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    return varint(number << 3) + varint(value)


def fixed64(number, value):
    return varint(number << 3 | 1) + struct.pack("<Q", value & (1 << 64) - 1)


def zigzag(n):
    return n << 1 if n >= 0 else (-n << 1) - 1


def fields(payload):
    """Yields (number, value) of a message; unknown fields are the caller's to skip."""
    at = 0

    def read_varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = payload[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    try:
        while at < len(payload):
            key = read_varint()
            number, kind = key >> 3, key & 7
            if kind == 0:
                value = read_varint()
            elif kind in (1, 5):
                size = 8 if kind == 1 else 4
                value = int.from_bytes(payload[at : at + size], "little")
                at += size
            elif kind == 2:
                size = read_varint()
                value = payload[at : at + size]
                at += size
            else:
                raise ProtocolError("wire type %d" % kind)
            if at > len(payload):
                raise ProtocolError("the payload ends inside a field")
            yield number, value
    except IndexError:
        raise ProtocolError("the payload ends inside a field") from None


def first(payload, number, default):
    return next((value for n, value in fields(payload) if n == number), default)


def positions(payload, number, channel):
    """[(safe, resend_from, resend_to)] of a channel, in an ACK (field 1) or a WELCOME (field 16)."""
    found = [value for n, value in fields(payload) if n == number]
    return [tuple(first(p, n, 0) for n in (2, 3, 4)) for p in found if first(p, 1, b"") == channel.encode()]


def reason(payload):
    """The code of a CLOSE or an ERROR, and what it says to people."""
    code, text = first(payload, 1, 0), first(payload, 2, b"").decode(errors="replace")
    code = code if code < len(CODES) else INTERNAL_ERROR
    return code, CODES[code] + (": " + text if text else "")


def is_challenge(command, payload):
    try:
        return command == ERROR and reason(payload)[0] == HELLO_EXPECTED
    except ProtocolError:
        return False


# --- what a device says -----------------------------------------------------


def hello(sender, epoch, channel, token=""):
    return (
        field(1, sender)
        + fixed64(2, epoch)
        + (field(3, token) if token else b"")
        + field(4, "mcp_client.py")
        + field(5, bytes([1, 2]))  # versions, packed
        + field(6, HEARTBEAT_MS)
        + field(7, channel)
        + field(9, 4096)
    )


def point(name, value):
    body = field(1, name)
    if isinstance(value, bool):
        return body + field(6, int(value))
    if isinstance(value, int):
        return body + field(4, zigzag(value))
    if isinstance(value, float):
        return body + field(2, value)
    return body + field(7, value)


def record(device, stream, readings):
    body = field(1, device) + field(2, stream) + fixed64(3, time.time_ns())
    return body + b"".join(field(6, point(name, value)) for name, value in readings)


def publish(channel, previous, records):
    return field(1, channel) + field(2, previous) + b"".join(field(4, r) for r in records)


def weight(record):
    """How many bytes a record takes in PUBLISH."""
    return len(field(4, record))


# --- the ways to an agent ---------------------------------------------------


class Stream:
    """Frames over TCP or TLS."""

    name = "TCP"
    reliable = True
    time_out = 10.0  # seconds until an agent that is silent is asked whether it is there
    max_payload = 16 << 20  # of the protocol; the agent says what it takes
    burst = 1 << 30  # bytes on their way: TCP itself takes care

    def __init__(self, sock):
        self.sock, self.buffer = sock, b""

    def send(self, data):
        self.sock.settimeout(self.time_out)
        self.sock.sendall(data)

    def receive(self, timeout):
        """The next frame as (command, payload), or None when the time is over."""
        deadline = time.monotonic() + timeout
        while True:
            found = take_frame(self.buffer)
            if found:
                _, command, payload, self.buffer = found
                return command, payload
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.sock.settimeout(left)
            try:
                data = self.sock.recv(65536)
            except socket.timeout:
                return None
            if not data:
                raise Lost("the agent has closed the connection")
            self.buffer += data


class Datagrams:
    """Frames over UDP: a cookie, then whole frames. Each frame gets a datagram of its own."""

    name = "UDP"
    reliable = False
    time_out = 1.0  # seconds until what is not acknowledged is sent again
    max_payload = MAX_DATAGRAM - COOKIE - 12
    burst = 10 * MAX_DATAGRAM  # bytes on their way: as RFC 5681 begins, and we stay there

    def __init__(self, sock):
        self.sock, self.cookie, self.frames = sock, bytes(COOKIE), []

    def send(self, data):
        self.sock.send(self.cookie + data)

    def receive(self, timeout):
        """As Stream.receive; (CHALLENGE, cookie) is an agent that does not know our cookie."""
        deadline = time.monotonic() + timeout
        while not self.frames:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.sock.settimeout(left)
            try:
                self.take(self.sock.recv(65536))
            except socket.timeout:
                return None
        return self.frames.pop(0)

    def take(self, datagram):
        """Takes a datagram apart; what is foreign is dropped, and what is damaged or behind that."""
        cookie, rest, frames = datagram[:COOKIE], datagram[COOKIE:], []
        try:
            found = take_frame(rest)
            while found:
                frames.append(found[1:3])
                found = take_frame(found[3])
        except ProtocolError:
            pass
        if cookie == self.cookie:
            self.frames += frames
        elif len(frames) == 1 and is_challenge(*frames[0]):
            self.frames.append((CHALLENGE, cookie))


def address(url):
    """(scheme, host, port) of tcp://HOST:PORT and its like."""
    parts = re.fullmatch(r"(tcp|tls|udp)://(\[[^]/]+\]|[^]/:[]+):(\d{1,5})", url)
    if not parts or not 0 < int(parts.group(3)) < 65536:
        what = "%r is not an agent's address; write tcp://HOST:PORT, tls://HOST:PORT or udp://HOST:PORT"
        raise argparse.ArgumentTypeError((what + ", such as tcp://127.0.0.1:7700") % url)
    return parts.group(1), parts.group(2).strip("[]"), int(parts.group(3))


def dialer(scheme, host, port, options):
    """Returns a function that connects, in so many seconds at most."""
    context = None
    if scheme == "tls":
        context = ssl.create_default_context(cafile=options.ca)
        if options.cert:
            context.load_cert_chain(options.cert, options.key)

    def dial(timeout):
        if scheme == "udp":
            family, kind, proto, _, to = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            sock = socket.socket(family, kind, proto)
            sock.connect(to)
            return Datagrams(sock)
        sock = socket.create_connection((host, port), timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Stream(context.wrap_socket(sock, server_hostname=host) if context else sock)

    return dial


# --- a device that loses nothing --------------------------------------------


class Publisher:
    """Publishes on one channel, over as many sessions as it takes.

    It keeps its records, their numbers and its epoch: WELCOME says what is safe, and it
    goes on behind that. So what is sent twice is stored once.
    """

    def __init__(self, dial, sender, token="", patience=60.0):
        self.dial, self.sender, self.token, self.patience = dial, sender, token, patience
        self.epoch = int.from_bytes(os.urandom(8), "big") | 1  # no memory: a new epoch each start
        self.channel = "main"
        self.records = []  # record n is records[n - 1]
        self.safe = 0  # the agent has every record up to this one on its disk
        self.sent, self.missing = 0, []  # in this session: up to which record, and what is asked for again
        self.line = None  # while there is a session

    def publish(self, records):
        """Returns when the records are safe; ProtocolError says why they never will be."""
        self.records += records
        self.advanced, bound, told = time.monotonic(), 0.1, ""
        while self.safe < len(self.records):
            safe = self.safe
            try:
                if not self.line:
                    self.open()
                self.work()
            except (Lost, OSError) as problem:
                self.hang_up()
                if isinstance(problem, ssl.SSLError) and not isinstance(problem, ssl.SSLEOFError):
                    raise ProtocolError("TLS: %s" % problem) from None  # a certificate is not good
                if self.left() <= 0:
                    raise ProtocolError("%s (gave up after %g s)" % (problem, self.patience)) from None
                if told != str(problem):
                    told = str(problem)
                    print("mcp_client.py: %s; trying again" % told, file=sys.stderr)
                if self.safe > safe:
                    bound = 0.1
                # At random, so that a thousand devices do not come back as one.
                time.sleep(min(random.uniform(0, bound), self.left()))
                bound = min(2 * bound, 5.0)

    def left(self):
        """How many seconds our patience lasts if no further record becomes safe."""
        return max(0.0, self.advanced + self.patience - time.monotonic())

    def open(self):
        """Begins a session: HELLO, WELCOME."""
        deadline = time.monotonic() + min(10.0, max(1.0, self.left()))
        self.line = self.dial(deadline - time.monotonic())
        greeting = frame(HELLO, hello(self.sender, self.epoch, self.channel, self.token))
        self.line.send(greeting)
        challenges = 0
        while time.monotonic() < deadline:
            left = deadline - time.monotonic()
            got = self.line.receive(left if self.line.reliable else min(1.0, left))
            if got is None:
                if not self.line.reliable:
                    self.line.send(greeting)  # the datagram may be lost
                continue
            command, payload = got
            if command == WELCOME:
                self.welcome(payload)
                return
            if command != CHALLENGE:
                self.handle(command, payload)
            elif challenges < 4:
                challenges += 1
                self.line.cookie = payload  # it proves our address
                self.line.send(greeting)
        raise Lost("no WELCOME from the agent")

    def welcome(self, payload):
        found = positions(payload, 16, self.channel)
        safe = found[0][0] if found else 0
        if safe > len(self.records):
            raise ProtocolError("the agent has %d records of us, who made %d" % (safe, len(self.records)))
        if safe > self.safe:
            self.advanced = time.monotonic()
        self.safe = self.sent = safe  # or less than we knew of: its disk was restored
        self.missing = []
        self.max_payload = min(first(payload, 9, 0) or 4096, self.line.max_payload)
        self.window_records = first(payload, 10, 0)
        self.window_bytes = first(payload, 11, 0)
        if not self.window_records or not self.window_bytes:
            raise ProtocolError("the agent takes no records")

    def check_sizes(self):
        most = min(self.max_payload, self.window_bytes)
        for record in self.records[self.safe :]:
            needs = len(publish(self.channel, len(self.records), [record]))
            if needs > most:
                what = "too large: a record of %d bytes makes a payload of %d bytes; this agent takes %d over %s"
                raise ProtocolError(what % (len(record), needs, most, self.line.name))

    def work(self):
        """Sends in this session what is not safe, until all is."""
        self.check_sizes()
        self.heard, silences = time.monotonic(), 0
        while self.safe < len(self.records):
            for begin, end in self.missing:
                while begin <= end:
                    begin = self.send(begin, end) + 1
            self.missing = []
            allowed = self.allowed()
            if self.sent < allowed:
                self.sent = self.send(self.sent + 1, allowed)
            got = self.line.receive(0 if self.sent < allowed else 0.2)
            if got:
                self.handle(*got)
                if got[0] != CHALLENGE:
                    self.heard, silences = time.monotonic(), 0
            elif time.monotonic() > self.heard + self.line.time_out * (1 + 2 * silences):
                silences += 1
                if silences == 2:
                    raise Lost("the agent is silent")
                self.line.send(frame(HEARTBEAT))
                if not self.line.reliable:
                    self.sent = self.safe  # the datagrams, or their ACKs, may be lost
            if self.left() <= 0:
                raise Lost("the agent acknowledges nothing")

    def allowed(self):
        """The last record that the window lets us send."""
        number, size = self.safe, 0
        while number < min(len(self.records), self.safe + self.window_records):
            size += weight(self.records[number])
            if size > self.window_bytes or number > self.safe and size > self.line.burst:
                break
            number += 1
        return number

    def send(self, number, last):
        """Says PUBLISH with the records from number on, as many as it takes; returns the last one."""
        batch, size = [], len(publish(self.channel, last, []))
        for record in self.records[number - 1 : min(last, number + 63)]:
            size += weight(record)
            if size > self.max_payload:
                break
            batch.append(record)
        self.line.send(frame(PUBLISH, publish(self.channel, number - 1, batch)))
        return number + len(batch) - 1

    def handle(self, command, payload):
        """What any session must answer."""
        if command == HEARTBEAT:
            self.line.send(frame(HEARTBEAT_ACK))
        elif command == ACK:
            self.acknowledged(positions(payload, 1, self.channel))
        elif command == REQUEST:
            self.line.send(frame(RESPONSE, field(1, first(payload, 1, 0)) + field(2, UNKNOWN_METHOD)))
        elif command == CHALLENGE and time.monotonic() > self.heard + 1:
            raise Lost("the agent has restarted")  # sooner, somebody else may speak in our name
        elif command in (CLOSE, ERROR):
            code, text = reason(payload)
            if command == CLOSE or code in PASSING:
                raise Lost("the agent says %s %s" % (NAMES[command], text))
            raise ProtocolError("the agent says %s %s" % (NAMES[command], text))

    def acknowledged(self, found):
        for number, resend_from, resend_to in found:
            if not self.safe <= number <= len(self.records):
                continue  # it was overtaken by a later one
            if number > self.safe:
                self.safe, self.advanced = number, time.monotonic()
                self.sent = max(self.sent, number)
            if resend_from > number and resend_to:
                self.missing.append((resend_from, min(resend_to, self.sent)))
            elif resend_from > number:
                self.sent = min(self.sent, resend_from - 1)  # what came behind was refused

    def hang_up(self):
        if self.line:
            self.line.sock.close()
        self.line = None

    def close(self):
        """Says goodbye, and waits for the answer, so that no reset overtakes it."""
        if not self.line:
            return
        try:
            self.line.send(frame(CLOSE, field(1, GOING_AWAY)))
            got = self.line.receive(1)
            while got and got[0] != CLOSE:
                got = self.line.receive(1)
        except (ProtocolError, Lost, OSError):
            pass
        self.hang_up()


# --- the document's vectors -------------------------------------------------


def check_vectors(path):
    """Takes each frame of the document apart and puts it together again."""
    with open(path, encoding="utf-8") as document:
        block = re.search(r"```vectors\n(.*?)```", document.read(), re.S)
    lines = [line.split() for line in block.group(1).splitlines() if line.strip()] if block else []
    if not lines:
        raise ProtocolError("%s has no vectors" % path)
    checked = 0
    for kind, name, text in lines:
        data = bytes.fromhex(text)
        if kind not in ("v1", "v2"):
            data = data[COOKIE:]  # a datagram
        found = take_frame(data)
        if not found or found[3]:
            raise ProtocolError("%s %s is not one frame" % (kind, name))
        version, command, payload, _ = found
        if NAMES[command] != name.split("-")[0] or kind in ("v1", "v2") and kind != "v%d" % version:
            raise ProtocolError("%s %s reads as v%d %s" % (kind, name, version, NAMES[command]))
        list(fields(payload))
        if frame(command, payload, version) != data:
            raise ProtocolError("%s %s is encoded differently here" % (kind, name))
        checked += 1
    epoch = 0x0123456789ABCDEF
    ours = field(1, "press-7") + fixed64(2, epoch) + field(4, "demo 1.0") + field(5, bytes([1, 2]))
    ours += field(6, 30000) + field(7, "main") + field(9, 4096)
    want = next(bytes.fromhex(text) for kind, name, text in lines if (kind, name) == ("v2", "HELLO"))
    if frame(HELLO, ours) != want:
        raise ProtocolError("HELLO built from the document's words differs from its bytes")
    return checked


def name(text):
    """A name as the document allows it; over UDP, HELLO with another one is not even answered."""
    if not 1 <= len(text.encode()) <= 64 or text[0] in "_$" or re.search(r"[/+#\x00-\x1f\x7f-\x9f]", text):
        what = "%r is not a name: 1 to 64 bytes, without / + # and control characters, and not beginning with _ or $"
        raise argparse.ArgumentTypeError(what % text)
    return text


def reading(text):
    label, _, value = text.partition("=")
    if not value:
        raise argparse.ArgumentTypeError("%r is not a reading; write NAME=VALUE, such as n=42" % text)
    label = name(label)
    if value in ("true", "false"):
        return label, value == "true"
    for kind in (int, float):
        try:
            return label, kind(value)
        except ValueError:
            pass
    return label, value


def count(safe, produced):
    if safe < produced:
        return "%d of %d records are safe" % (safe, produced)
    return "1 record is safe" if safe == 1 else "%d records are safe" % safe


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    vectors = commands.add_parser("vectors", help="check the frames in docs/protocol.md")
    vectors.add_argument("document")
    send = commands.add_parser("publish", help="send readings, and wait until they are safe")
    send.add_argument("url", type=address, help="tcp://HOST:PORT, tls://HOST:PORT or udp://HOST:PORT")
    send.add_argument("device", type=name)
    send.add_argument("readings", nargs="+", type=reading, metavar="NAME=VALUE")
    send.add_argument("--stream", type=name, default="readings")
    send.add_argument("--count", type=int, default=1, help="how many times")
    send.add_argument("--patience", type=float, default=60.0, help="seconds to go on trying without progress (%(default)g)")
    send.add_argument("--token-file", help="a JWT, where the agent asks for one")
    send.add_argument("--ca", help="whom to trust for tls://, a PEM file")
    send.add_argument("--cert", help="our certificate, where the agent asks for one")
    send.add_argument("--key", help="its key")
    options = parser.parse_args()
    device = None
    try:
        if options.command == "vectors":
            print("%d vectors are right" % check_vectors(options.document))
            return 0
        token = open(options.token_file, encoding="utf-8").read().strip() if options.token_file else ""
        device = Publisher(dialer(*options.url, options), options.device, token, options.patience)
        device.publish([record(options.device, options.stream, options.readings) for _ in range(options.count)])
        device.close()
        print(count(device.safe, options.count))
        return 0
    except (ProtocolError, OSError) as problem:
        print("mcp_client.py: %s" % problem, file=sys.stderr)
        if device:
            print("mcp_client.py: %s" % count(device.safe, options.count), file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
