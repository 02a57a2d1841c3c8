"""Every golden payload decoded and encoded again, on CPython and MicroPython: test_golden.py FOLDER. CBOR must come out
byte for byte, JSON too where the language keeps the order of keys; elsewhere as the same value."""

import json
import os
import sys

from collections import OrderedDict

import cbor
from cbor import cbor_decode, cbor_encode
from tidegate import frame

# What a device writes and reads; the others are only decoded and encoded.
FRAMES = ("accepted", "token", "answer", "error")


def read(folder, name):
    with open(folder + "/" + name, "rb") as file:
        return file.read()


def is_frame(name):
    return name.split(".")[0].split("-")[0] in FRAMES and not name.endswith(".txt")


def check_cbor(name, raw):
    value = cbor_decode(raw)
    again = cbor_encode(value)
    # The gateway may write a model's JSON with indefinite length; what has none comes out as it went in.
    assert again == raw or (b"\xbf" in raw and cbor_decode(again) == value), name
    for cut in range(len(raw)):
        try:
            cbor_decode(raw[:cut])
        except ValueError:
            continue
        raise AssertionError("%s cut at %d was taken" % (name, cut))
    return value


def check_json(name, raw):
    value = json.loads(raw)
    assert json.loads(json.dumps(value)) == value, name
    if sys.implementation.name == "cpython":
        assert json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() == raw.strip(), name
    return value


def main(folder):
    cbor.MAP, seen = OrderedDict, 0
    for name in sorted(os.listdir(folder)):
        if not name.endswith((".cbor", ".json")):
            continue
        raw = read(folder, name)
        value = check_cbor(name, raw) if name.endswith(".cbor") else check_json(name, raw)
        assert not is_frame(name) or frame(raw)["kind"] == value["kind"], name
        seen += 1
    assert seen > 20, "only %d payloads" % seen
    print(seen, "golden payloads")


if __name__ == "__main__":
    main(sys.argv[1])
