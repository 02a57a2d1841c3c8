"""Standard input and output to a port of loopback: what QEMU starts for each connection of an emulated device, the only
way out that the device has. PORT is its argument."""

import os
import selectors
import socket
import sys


def main():
    try:
        far = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    except OSError:
        return
    ready = selectors.DefaultSelector()
    ready.register(0, selectors.EVENT_READ)
    ready.register(far, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            try:
                piece = os.read(0, 65536) if key.fileobj == 0 else far.recv(65536)
                if not piece:
                    return
                if key.fileobj == 0:
                    far.sendall(piece)
                else:
                    while piece:
                        piece = piece[os.write(1, piece) :]
            except OSError:
                return


main()
