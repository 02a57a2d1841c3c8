"""Every golden payload decoded and encoded again, on CPython and MicroPython: test_golden.py FOLDER. CBOR must come out
byte for byte, JSON too where the language keeps the order of keys; elsewhere as the same value."""

import json
import sys

from collections import OrderedDict

import cbor
from cbor import cbor_decode, cbor_encode
from config import SETTINGS
from tidegate import Ask, frame

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


def asks(**settings):
    """An ask, and what it says."""
    said = []
    return Ask(dict(SETTINGS, **settings), "b3f1-7", lambda word, text: said.append((word, text))), said


def check_text(name, raw):
    """Bare text is sent as it is, and taken as it is; of a line the first character tells what it is."""
    ask, said = asks(bare=True, text=raw.decode())
    assert ask.payload == raw, name
    ask._take_text(raw)
    assert said == [("error", raw.decode()) if name == "error.txt" else ("answer", "- " + raw.decode())], name


def check_written(folder):
    """What a device writes is there. MicroPython's dict keeps no order: the same value then."""
    topic_bytes = len("tg/v1/site/gateway/answer/press-7") + 9
    ask, _ = asks(task="action", max_tokens=64, buffer=1024 + topic_bytes, stream=True, local=True)
    raw = read(folder, "prompt-device.cbor")
    assert ask.payload == raw or sys.implementation.name != "cpython"
    assert dict(cbor_decode(ask.payload)) == dict(cbor_decode(raw))
    ask, _ = asks(task="action", max_tokens=64, buffer=1024 + topic_bytes, stream=True, local=True, encoding="json")
    assert json.loads(ask.payload) == dict(cbor_decode(raw))


def main(folder):
    cbor.MAP, seen = OrderedDict, 0
    check_written(folder)
    for line in read(folder, "index.txt").decode().split("\n"):
        if not line:
            continue
        name = line.split(" ")[0]
        raw = read(folder, name)
        if name.endswith(".txt"):
            check_text(name, raw)
        else:
            value = check_cbor(name, raw) if name.endswith(".cbor") else check_json(name, raw)
            assert not is_frame(name) or frame(raw)["kind"] == value["kind"], name
        seen += 1
    assert seen > 30, "only %d payloads" % seen
    print(seen, "golden payloads")


if __name__ == "__main__":
    main(sys.argv[1])
