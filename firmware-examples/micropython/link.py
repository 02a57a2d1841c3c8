"""MQTT 3.1.1 packets over a socket, plain or TLS, for MicroPython and CPython. Every wait ends: whoever calls says when."""

import socket
import time

try:
    ticks_ms, ticks_diff, sleep_ms = time.ticks_ms, time.ticks_diff, time.sleep_ms
except AttributeError:

    def ticks_ms():
        return int(time.monotonic() * 1000)

    def ticks_diff(later, earlier):
        return later - earlier

    def sleep_ms(ms):
        time.sleep(ms / 1000)


class Lost(Exception):
    """The connection is of no use any more, and why."""


def string(text):
    """A text with its length in front."""
    raw = text.encode() if isinstance(text, str) else text
    return len(raw).to_bytes(2, "big") + raw


def packed(first, body):
    """A packet of that first byte."""
    n, size = len(body), bytearray()
    while True:
        n, low = n >> 7, n & 0x7F
        size.append(low | 0x80 if n else low)
        if not n:
            return bytes([first]) + bytes(size) + body


def tls(server, ca):
    """What makes TLS of a socket: the gateway's certificate must lead to the CA (a file, DER) and have the server's name."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with open(ca, "rb") as file:
        context.load_verify_locations(cadata=file.read())
    context.verify_mode = ssl.CERT_REQUIRED

    def wrap(sock):
        try:
            return context.wrap_socket(sock, server_hostname=server)
        except (OSError, ValueError) as error:
            raise Lost(_certificate_fault(error))

    return wrap


def _certificate_fault(error):
    """CPython has a number of OpenSSL's (62: the name); boards have words of mbedTLS's."""
    code, words = getattr(error, "verify_code", None), str(error)
    if code == 62 or "expected Common Name" in words:
        return "the gateway's certificate has another name"
    if code or "not correctly signed by the trusted CA" in words:
        return "the gateway's certificate does not lead to our CA"
    return "the TLS handshake failed"


class Link:
    """Packets over a socket; `left` says how many milliseconds there are at most."""

    def __init__(self, host, port, wait_ms, wrap=None):
        self.got = b""
        self.sock = socket.socket()
        try:
            self.sock.settimeout(max(wait_ms, 1) / 1000)
            self._hurry()
            self.sock.connect(socket.getaddrinfo(host, port)[0][-1])
            # TLS: a function that wraps the socket and checks chain and name.
            self.sock = wrap(self.sock) if wrap else self.sock
        except OSError:
            self.close()
            raise Lost("no connection")
        except Lost:
            self.close()
            raise

    def _hurry(self):
        """A PUBACK that waits for the peer's acknowledgement of what went before it is lost when we leave."""
        try:
            self.sock.setsockopt(6, 1, 1)  # IPPROTO_TCP, TCP_NODELAY
        except (AttributeError, OSError):
            pass  # not every board has it

    def send(self, data):
        try:
            view = memoryview(data)
            while len(view):
                view = view[self.sock.send(view) :]
        except OSError:
            raise Lost("the connection broke")

    def _more(self, wait_ms):
        """False: nothing came in time."""
        self.sock.settimeout(max(wait_ms, 1) / 1000)
        try:
            piece = self.sock.recv(512)
        except OSError as error:
            # A timeout is an OSError of several numbers, and of several classes.
            if error.args and error.args[0] in (11, 110, 116, "timed out", "The read operation timed out"):
                return False
            raise Lost("the connection broke")
        if not piece:
            raise Lost("the connection broke")
        self.got += piece
        return True

    def packet(self, wait_ms, bytes_max):
        """First byte and body; None when nothing came. Larger ones come without their body, as (first byte, None, id)."""
        end = ticks_ms()
        while True:
            size, at = 0, 1
            while at < len(self.got) and at < 5:
                size |= (self.got[at] & 0x7F) << 7 * (at - 1)
                at += 1
                if self.got[at - 1] & 0x80 == 0:
                    if size > bytes_max:
                        return self._skip(at, size, wait_ms)
                    if len(self.got) >= at + size:
                        first, body = self.got[0], self.got[at : at + size]
                        self.got = self.got[at + size :]
                        return first, body, 0
                    break
            else:
                if at == 5:
                    raise Lost("what came is no MQTT")
            left = wait_ms - ticks_diff(ticks_ms(), end)
            if left <= 0 or not self._more(left):
                return None

    def _skip(self, at, size, wait_ms):
        """Drops a packet that is too large, but for the packet id of a publish."""
        first, end, head = self.got[0], ticks_ms(), b""
        self.got = self.got[at:]
        while size > 0:
            take = min(size, len(self.got))
            if len(head) < 300:
                head += self.got[:take]
            self.got = self.got[take:]
            size -= take
            left = wait_ms - ticks_diff(ticks_ms(), end)
            if size > 0 and (left <= 0 or not self._more(left)):
                raise Lost("half a packet and no more")
        place = 2 + int.from_bytes(head[:2], "big")
        return first, None, int.from_bytes(head[place : place + 2], "big") if first & 6 else 0

    def close(self):
        try:
            self.sock.close()
        except OSError:
            pass
