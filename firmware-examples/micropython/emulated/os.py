"""os with what boards have and the WebAssembly build has not."""

import binascii

import _link
from uos import *


def urandom(count):
    return binascii.unhexlify(_link.random(count))
