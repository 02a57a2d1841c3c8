"""MQTT as far as the tests need it, with nothing but the standard library: a client that reads the agent's records, and
the pieces of packets that the scripted gateway speaks.

Nothing waits for ever: every receive has a deadline and raises TimeoutError."""

import json
import socket
import struct
import time

# What must come comes within this, also on a machine that does other things besides: it only ends what would not end.
PATIENCE_S = 60
# No client of the tests pings, and some only listen while devices are tried.
KEEP_ALIVE_S = 1800
CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 13, 14


def length(n):
    out = bytearray()
    while True:
        n, low = n >> 7, n & 0x7F
        out.append(low | 0x80 if n else low)
        if not n:
            return bytes(out)


def text(value):
    raw = value.encode()
    return struct.pack(">H", len(raw)) + raw


def packet(kind, flags, body):
    return bytes([kind << 4 | flags]) + length(len(body)) + body


def publish(topic, payload, packet_id, flags=0x2, level=4):
    """QoS 1 unless the flags say otherwise; MQTT 5 has an empty list of properties."""
    identifier = struct.pack(">H", packet_id) if flags & 6 else b""
    return packet(PUBLISH, flags, text(topic) + identifier + (b"\0" if level == 5 else b"") + payload)


class Reader:
    """Whole packets from a socket."""

    def __init__(self, sock):
        self.sock = sock
        self.kept = b""

    def _more(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no packet in time")
        self.sock.settimeout(left)
        got = self.sock.recv(65536)
        if not got:
            raise ConnectionError("closed")
        self.kept += got

    def next(self, deadline):
        """Type, flags, body."""
        while (found := self.take()) is None:
            self._more(deadline)
        return found

    def take(self):
        """The same of what has come already. None: no whole packet."""
        size, shift, at = 0, 0, 1
        while at < len(self.kept):
            size |= (self.kept[at] & 0x7F) << shift
            shift += 7
            at += 1
            if not self.kept[at - 1] & 0x80:
                if len(self.kept) < at + size:
                    return None
                first, body = self.kept[0], self.kept[at : at + size]
                self.kept = self.kept[at + size :]
                return first >> 4, first & 15, body
        return None


def split_publish(flags, body, level=4):
    """Topic, packet id, payload."""
    at = 2 + struct.unpack_from(">H", body)[0]
    topic, packet_id = body[2:at].decode(), 0
    if flags & 6:
        packet_id = struct.unpack_from(">H", body, at)[0]
        at += 2
    if level == 5:
        # No property of a prompt is as long as 128 bytes.
        at += 1 + body[at]
    return topic, packet_id, body[at:]


class Client:
    """MQTT 3.1.1, clean session."""

    def __init__(self, port, client_id, user=None, password=None):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.reader = Reader(self.sock)
        self.last_id = 0
        flags = 0x02 | (0xC0 if user else 0)
        body = text("MQTT") + bytes([4, flags]) + struct.pack(">H", KEEP_ALIVE_S) + text(client_id)
        if user:
            body += text(user) + text(password)
        self.sock.sendall(packet(CONNECT, 0, body))
        kind, _, body = self.reader.next(time.monotonic() + PATIENCE_S)
        if kind != CONNACK or body[1] != 0:
            raise ConnectionError(f"CONNACK {body!r}")

    def _id(self):
        self.last_id += 1
        return self.last_id

    def subscribe(self, topic, qos=1):
        self.sock.sendall(packet(SUBSCRIBE, 2, struct.pack(">H", self._id()) + text(topic) + bytes([qos])))
        while True:
            kind, flags, body = self.reader.next(time.monotonic() + PATIENCE_S)
            if kind == SUBACK:
                if body[2] > 2:
                    raise PermissionError(topic)
                return
            if kind == PUBLISH:
                # What is retained may come before the SUBACK.
                self.reader.kept = packet(kind, flags, body) + self.reader.kept

    def publish(self, topic, payload):
        self.sock.sendall(publish(topic, payload, self._id()))

    def message(self, timeout=PATIENCE_S):
        """Topic and payload of the next publish; acknowledges it."""
        deadline = time.monotonic() + timeout
        while True:
            kind, flags, body = self.reader.next(deadline)
            if kind == PUBLISH:
                topic, packet_id, payload = split_publish(flags, body)
                if packet_id:
                    self.sock.sendall(packet(PUBACK, 0, struct.pack(">H", packet_id)))
                return topic, payload

    def close(self):
        try:
            self.sock.sendall(packet(DISCONNECT, 0, b""))
        except OSError:
            pass
        self.sock.close()


def record(port, gateway, device, prompt_id, login):
    """The agent's outcome of a prompt, by its id: a `fetch` over the device's control topic, in JSON."""
    client = Client(port, f"record-{device}", *login)
    try:
        client.subscribe(f"tg/v1/{gateway}/answer/{device}")
        client.publish(f"tg/v1/{gateway}/control/{device}", json.dumps({"op": "fetch", "id": prompt_id}).encode())
        deadline = time.monotonic() + PATIENCE_S
        while True:
            frame = decode(client.message(deadline - time.monotonic())[1])
            if isinstance(frame, dict) and frame.get("id") == prompt_id and frame["kind"] in ("answer", "error"):
                return frame
    finally:
        client.close()


def decode(payload):
    """A frame in JSON or CBOR, else the text itself."""
    if payload[:1] == b"{":
        return json.loads(payload)
    if payload and payload[0] >> 5 == 5:
        return cbor(payload, 0)[0]
    return payload.decode()


BREAK = object()


def cbor(raw, at):
    """The value that stands there, and where it ends."""
    major, info = raw[at] >> 5, raw[at] & 31
    at += 1
    size = {24: 1, 25: 2, 26: 4, 27: 8}.get(info, 0)
    value = int.from_bytes(raw[at : at + size], "big") if size else info
    at += size
    if major == 7:
        if info in (25, 26, 27):
            return struct.unpack({25: ">e", 26: ">f", 27: ">d"}[info], raw[at - size : at])[0], at
        return {20: False, 21: True, 22: None, 31: BREAK}[value], at
    if major < 2:
        return (value if major == 0 else -1 - value), at
    if major < 4:
        piece = raw[at : at + value]
        return (piece.decode() if major == 3 else piece), at + value
    # The agent writes a model's JSON with indefinite length.
    items, left = [], -1 if info == 31 else value * (2 if major == 5 else 1)
    while left != 0:
        item, at = cbor(raw, at)
        if item is BREAK:
            break
        items.append(item)
        left -= 1
    return (dict(zip(items[::2], items[1::2])) if major == 5 else items), at
