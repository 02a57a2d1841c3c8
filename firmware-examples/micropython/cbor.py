"""CBOR (RFC 8949) for MicroPython and CPython: what Tidegate's messages need. Numbers and floats are written in their
shortest form; a value that is cut off, reserved, or nested deeper than DEPTH_MAX is a ValueError, never a crash."""

import struct

# Deepest nesting of a message; a deeper one is dropped, not followed: a small board has a small stack.
DEPTH_MAX = 32
# What a map becomes. MicroPython's dict keeps no order; who needs it puts OrderedDict here.
MAP = dict


def _head(major, n):
    if n < 24:
        return bytes([major << 5 | n])
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if n < 1 << 8 * size:
            return bytes([major << 5 | info]) + n.to_bytes(size, "big")
    raise ValueError("number of more than 64 bits")


def _float(x):
    """The shortest form that holds it."""
    for code, first in ((">f", 0xFA), (">d", 0xFB)):
        raw = struct.pack(code, x)
        if struct.unpack(code, raw)[0] == x:
            return (_half(raw) if first == 0xFA else None) or bytes([first]) + raw
    # Not a number equals nothing.
    return b"\xf9\x7e\x00"


def _half(single):
    """The half-precision form of a single that it holds exactly, else None."""
    bits = int.from_bytes(single, "big")
    sign, exponent, fraction = bits >> 16 & 0x8000, bits >> 23 & 0xFF, bits & 0x7FFFFF
    if exponent == 0xFF:
        half = 0x7C00 | (fraction >> 13)
    elif 113 <= exponent <= 142 and not fraction & 0x1FFF:
        half = exponent - 112 << 10 | fraction >> 13
    elif 103 <= exponent < 113 and not (fraction | 0x800000) & (1 << 126 - exponent) - 1:
        half = (fraction | 0x800000) >> 126 - exponent
    elif bits & 0x7FFFFFFF == 0:
        half = 0
    else:
        return None
    return bytes([0xF9]) + (sign | half).to_bytes(2, "big")


def cbor_encode(value):
    if value is None:
        return b"\xf6"
    if value is True or value is False:
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, str):
        raw = value.encode()
        return _head(3, len(raw)) + raw
    if isinstance(value, (bytes, bytearray)):
        return _head(2, len(value)) + bytes(value)
    if isinstance(value, (list, tuple)):
        return _head(4, len(value)) + b"".join(cbor_encode(item) for item in value)
    return _head(5, len(value)) + b"".join(cbor_encode(k) + cbor_encode(v) for k, v in value.items())


def cbor_decode(raw):
    """Raises ValueError where the bytes are not one whole item."""
    value, at = _item(raw, 0, DEPTH_MAX)
    if at != len(raw) or value is _END:
        raise ValueError("not one item")
    return value


_END = object()


def _from_half(bits):
    exponent, fraction = bits >> 10 & 31, bits & 1023
    if exponent == 31:
        value = float("nan") if fraction else float("inf")
    else:
        value = fraction * 2.0**-24 if exponent == 0 else (fraction + 1024) * 2.0 ** (exponent - 25)
    return -value if bits & 0x8000 else value


def _item(raw, at, depth):
    if at >= len(raw) or depth == 0:
        raise ValueError("cut off or too deep")
    major, info = raw[at] >> 5, raw[at] & 31
    size = 1 << info - 24 if 24 <= info <= 27 else 0
    at += 1
    if len(raw) - at < size or 28 <= info <= 30:
        raise ValueError("cut off or reserved")
    n = int.from_bytes(raw[at : at + size], "big") if size else info
    at += size
    if major == 7:
        return _simple(info, n), at
    if info == 31:
        return _indefinite(raw, at, major, depth)
    if major < 2:
        return (n if major == 0 else -1 - n), at
    if major == 6:
        return _item(raw, at, depth - 1)
    if n > len(raw) - at:
        raise ValueError("cut off")
    if major < 4:
        piece = bytes(raw[at : at + n])
        return (piece if major == 2 else utf8(piece)), at + n
    items = []
    for _ in range(n if major == 4 else 2 * n):
        item, at = _item(raw, at, depth - 1)
        if item is _END:
            raise ValueError("an end without a beginning")
        items.append(item)
    return _collect(major, items), at


def utf8(piece):
    try:
        return piece.decode()
    except Exception:  # UnicodeError is not everywhere a ValueError
        raise ValueError("not UTF-8")


def _simple(info, n):
    if info == 25:
        return _from_half(n)
    if info in (26, 27):
        return struct.unpack(">f" if info == 26 else ">d", n.to_bytes(4 if info == 26 else 8, "big"))[0]
    if info == 31:
        return _END
    if n not in (20, 21, 22, 23):
        raise ValueError("an unknown simple value")
    return {20: False, 21: True, 22: None, 23: None}[n]


def _indefinite(raw, at, major, depth):
    if major < 2 or major == 6:
        raise ValueError("reserved")
    items = []
    while True:
        item, at = _item(raw, at, depth - 1)
        if item is _END:
            break
        if major < 4 and not isinstance(item, bytes if major == 2 else str):
            raise ValueError("a chunk of another kind")
        items.append(item)
    return _collect(major, items), at


def _collect(major, items):
    if major == 4:
        return items
    if major < 4:
        return (b"" if major == 2 else "").join(items)
    if len(items) % 2 or any(isinstance(key, (list, dict)) for key in items[::2]):
        raise ValueError("not a map")
    return MAP(zip(items[::2], items[1::2]))
