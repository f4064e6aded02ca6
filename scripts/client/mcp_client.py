#!/usr/bin/env python3
"""An MCP client in Python, with nothing but the standard library.

It is written from docs/protocol.md alone, as a device maker would, and shows how
little a device needs. It is for trying things out and for checking the document:

    mcp_client.py vectors docs/protocol.md
    mcp_client.py publish tcp://127.0.0.1:7700 press-7 --stream stroke n=42 force=80.25
    mcp_client.py publish udp://127.0.0.1:7701 press-7 --count 1000 n=1
    mcp_client.py publish tls://gw-01:7700 press-7 --ca ca.crt --cert client.crt --key client.key n=42

publish sends the readings as one record (or --count of them) and returns when the
agent has them on disk; then it exits with 0.
"""

import argparse
import os
import re
import socket
import ssl
import struct
import sys
import time

MAGIC = b"MC"
HEARTBEAT, HEARTBEAT_ACK, HELLO, WELCOME, PUBLISH, ACK, REQUEST, RESPONSE, CLOSE, ERROR = range(1, 11)
NAMES = ["", "HEARTBEAT", "HEARTBEAT_ACK", "HELLO", "WELCOME", "PUBLISH", "ACK", "REQUEST", "RESPONSE", "CLOSE", "ERROR"]
HELLO_EXPECTED = 9
UNKNOWN_METHOD = 15
COOKIE = 8  # bytes in front of each datagram
MAX_DATAGRAM = 1232
PATIENCE = 5.0  # seconds until what is not acknowledged is sent again over UDP


class ProtocolError(Exception):
    pass


class Lost(ProtocolError):
    """The connection is gone; connect again."""


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


def positions(payload, number):
    """{channel: (safe, resend_from)} of an ACK (field 1) or a WELCOME (field 16)."""
    found = {}
    for n, value in fields(payload):
        if n == number:
            found[first(value, 1, b"").decode()] = (first(value, 2, 0), first(value, 3, 0))
    return found


def reason(payload):
    return first(payload, 1, 0), first(payload, 2, b"").decode(errors="replace")


# --- what a device says -----------------------------------------------------


def hello(sender, epoch, channel, token=""):
    return (
        field(1, sender)
        + fixed64(2, epoch)
        + (field(3, token) if token else b"")
        + field(4, "mcp_client.py")
        + field(5, bytes([1, 2]))  # versions, packed
        + field(6, 30000)
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


# --- the ways to an agent ---------------------------------------------------


class Stream:
    """Frames over TCP or TLS."""

    reliable = True
    max_payload = 64 << 10

    def __init__(self, sock):
        self.sock, self.buffer = sock, b""

    def send(self, *frames):
        self.sock.sendall(b"".join(frames))

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
    """Frames over UDP: a cookie, then whole frames."""

    reliable = False
    max_payload = MAX_DATAGRAM - COOKIE - 12

    def __init__(self, sock):
        self.sock, self.cookie, self.frames = sock, bytes(COOKIE), []

    def send(self, *frames):
        datagram = self.cookie
        for f in frames:
            if len(datagram) + len(f) > MAX_DATAGRAM:
                self.sock.send(datagram)
                datagram = self.cookie
            datagram += f
        self.sock.send(datagram)

    def receive(self, timeout):
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
            except ConnectionRefusedError:
                raise Lost("nothing listens there") from None
        return self.frames.pop(0)

    def take(self, datagram):
        """Takes a datagram apart; what is damaged or foreign is dropped."""
        if self.cookie == bytes(COOKIE):
            self.cookie = datagram[:COOKIE]  # what the agent gives us to prove our address
        if datagram[:COOKIE] != self.cookie:
            return
        rest, frames = datagram[COOKIE:], []
        try:
            while rest:
                found = take_frame(rest)
                if not found:
                    return
                frames.append(found[1:3])
                rest = found[3]
        except ProtocolError:
            return
        self.frames += frames


def connect(url, options):
    scheme, host, port = re.fullmatch(r"(tcp|tls|udp)://\[?([^/\]]+)\]?:(\d+)", url).groups()
    if scheme == "udp":
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        sock = socket.socket(family, kind, proto)
        sock.connect(address)
        return Datagrams(sock)
    sock = socket.create_connection((host, int(port)), timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if scheme == "tls":
        context = ssl.create_default_context(cafile=options.ca)
        if options.cert:
            context.load_cert_chain(options.cert, options.key)
        sock = context.wrap_socket(sock, server_hostname=host)
    return Stream(sock)


# --- a session --------------------------------------------------------------


class Publisher:
    """One session that publishes records on one channel, and keeps each until it is safe."""

    def __init__(self, line, sender, token=""):
        self.line, self.sender, self.token = line, sender, token
        self.epoch = int.from_bytes(os.urandom(8), "big") | 1  # no memory: a new epoch each start
        self.channel = "main"
        self.safe = 0

    def open(self):
        greeting = frame(HELLO, hello(self.sender, self.epoch, self.channel, self.token))
        deadline = time.monotonic() + 10
        self.line.send(greeting)
        while time.monotonic() < deadline:
            got = self.line.receive(1 if not self.line.reliable else deadline - time.monotonic())
            if got is None:
                self.line.send(greeting)  # the datagram may be lost
                continue
            command, payload = got
            if command == WELCOME:
                self.safe = positions(payload, 16).get(self.channel, (0, 0))[0]
                self.max_payload = min(first(payload, 9, 4096), self.line.max_payload)
                self.window = first(payload, 10, 0)
                return
            if command == ERROR and reason(payload)[0] == HELLO_EXPECTED and not self.line.reliable:
                self.line.send(greeting)  # now with the cookie
                continue
            self.handle(command, payload)
        raise ProtocolError("no WELCOME within 10 s")

    def handle(self, command, payload):
        """What any session must answer; returns where the channel is asked to go on from, or 0."""
        if command == HEARTBEAT:
            self.line.send(frame(HEARTBEAT_ACK))
        elif command == ACK:
            safe, resend = positions(payload, 1).get(self.channel, (0, 0))
            self.safe = max(self.safe, safe)
            return resend
        elif command == REQUEST:
            answer = field(1, first(payload, 1, 0)) + field(2, UNKNOWN_METHOD)
            self.line.send(frame(RESPONSE, answer))
        elif command in (CLOSE, ERROR):
            raise ProtocolError("the agent says %s: code %d %s" % ((NAMES[command],) + reason(payload)))
        return 0

    def publish(self, records, patience=60):
        """Sends the records and returns when all are on the agent's disk."""
        begin = sent = self.safe
        end = begin + len(records)
        deadline, heard = time.monotonic() + patience, time.monotonic()
        while self.safe < end:
            batch, size, previous = [], 0, sent
            while sent < end and sent - self.safe < self.window:
                size += len(records[sent - begin]) + 5
                if batch and (len(batch) == 64 or size > self.max_payload - 64):
                    break
                batch.append(records[sent - begin])
                sent += 1
            if batch:
                self.line.send(frame(PUBLISH, publish(self.channel, previous, batch)))
            got = self.line.receive(0 if batch and sent < end else 0.2)
            if got:
                heard = time.monotonic()
                resend = self.handle(*got)
                if resend:
                    sent = max(resend - 1, self.safe)
            elif not self.line.reliable and time.monotonic() - heard > PATIENCE:
                sent, heard = self.safe, time.monotonic()
            if time.monotonic() > deadline:
                raise ProtocolError("%d of %d records were acknowledged in time" % (self.safe - begin, len(records)))

    def close(self):
        """Says goodbye, and waits for the answer, so that no reset overtakes it."""
        self.line.send(frame(CLOSE, field(1, 13)))
        try:
            while self.line.receive(1):
                pass
        except (ProtocolError, OSError):
            pass


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


def reading(text):
    name, _, value = text.partition("=")
    if not value:
        raise argparse.ArgumentTypeError("write NAME=VALUE")
    if value in ("true", "false"):
        return name, value == "true"
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            pass
    return name, value


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    vectors = commands.add_parser("vectors", help="check the frames in docs/protocol.md")
    vectors.add_argument("document")
    send = commands.add_parser("publish", help="send readings, and wait until they are safe")
    send.add_argument("url", help="tcp://HOST:PORT, tls://HOST:PORT or udp://HOST:PORT")
    send.add_argument("device")
    send.add_argument("readings", nargs="+", type=reading, metavar="NAME=VALUE")
    send.add_argument("--stream", default="readings")
    send.add_argument("--count", type=int, default=1, help="how many times")
    send.add_argument("--token-file")
    send.add_argument("--ca")
    send.add_argument("--cert")
    send.add_argument("--key")
    options = parser.parse_args()
    try:
        if options.command == "vectors":
            print("%d vectors are right" % check_vectors(options.document))
            return 0
        token = open(options.token_file, encoding="utf-8").read().strip() if options.token_file else ""
        device = Publisher(connect(options.url, options), options.device, token)
        device.open()
        device.publish([record(options.device, options.stream, options.readings) for _ in range(options.count)])
        device.close()
        print("%d records are safe" % options.count)
        return 0
    except (ProtocolError, OSError) as problem:
        print("mcp_client.py: %s" % problem, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
