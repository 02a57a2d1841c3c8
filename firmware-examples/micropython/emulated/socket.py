"""MicroPython's blocking socket, as far as tidegate.py needs it, over the socket thread of host.mjs."""

import binascii

import _link

WAIT_MS = 60000


def getaddrinfo(host, port):
    return [(2, 1, 0, "", (host, port))]


class socket:
    def __init__(self):
        self.id, self.wait_ms = _link.open(), WAIT_MS

    def settimeout(self, seconds):
        self.wait_ms = int(seconds * 1000)

    def connect(self, address):
        self._checked(_link.connect(self.id, address[0], address[1], self.wait_ms))

    def send(self, data):
        return self._checked(_link.send(self.id, binascii.hexlify(bytes(data)).decode(), self.wait_ms))

    def recv(self, count):
        count = self._checked(_link.receive(self.id, count, self.wait_ms))
        return binascii.unhexlify(_link.received(count)) if count else b""

    def close(self):
        _link.close(self.id)

    @staticmethod
    def _checked(result):
        if result < 0:
            raise OSError(-result)
        return result
