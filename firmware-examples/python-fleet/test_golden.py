"""Every golden payload decoded and encoded again with what the fleet speaks: test_golden.py FOLDER. CBOR comes out byte for
byte where its lengths stand in front, and JSON and lines of text always; what the fleet writes is written as it is there."""

import json
import sys
from pathlib import Path

import cbor2

from fleet import read

LEAST = {"input": "turn off the lights in the packing hall"}
FULL = {"id": "b3f1-7", "task": "action", **LEAST, "max_tokens": 64, "max_bytes": 1024, "deadline_ms": 30000, "stream": True,
        "local": True}
WRITTEN = {"prompt-min": LEAST, "prompt-device": FULL, "control-cancel": {"op": "cancel", "id": "b3f1-7"},
           "control-fetch": {"op": "fetch", "id": "b3f1-7"}}


def check_cbor(name, raw, folder):
    value = cbor2.loads(raw)
    again = cbor2.dumps(value)
    # What the gateway writes with an end mark (0xbf … 0xff) is the same value with its length in front.
    assert again == raw or (b"\xbf" in raw and cbor2.loads(again) == value), name
    twin = folder / name.replace(".cbor", ".json")
    assert not twin.exists() or json.loads(twin.read_bytes()) == value, name
    for cut in range(len(raw)):
        assert read(raw[:cut]) is None, f"{name} cut at {cut} was taken"


def check_line(name, raw, folder):
    """A line is its frame's text or JSON or refusal, byte for byte, and is itself no frame."""
    frame = read((folder / name.replace(".txt", ".cbor")).read_bytes())
    if frame["kind"] == "error":
        line = "!%s: %s" % (frame["code"], frame["message"])
    elif "text" in frame:
        line = frame["text"]
    else:
        line = json.dumps(frame["json"], separators=(",", ":"), ensure_ascii=False)
    assert line.encode() == raw, name
    assert read(raw) is None, name


def main(folder):
    seen = 0
    for line in (folder / "index.txt").read_text().splitlines():
        name, kind = line.split()
        raw = (folder / name).read_bytes()
        if name.endswith(".cbor"):
            check_cbor(name, raw, folder)
        elif name.endswith(".json"):
            value = json.loads(raw)
            assert json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() == raw, name
        else:
            if kind == "line":
                check_line(name, raw, folder)
            else:
                assert kind == "prompt" and raw == LEAST["input"].encode(), name
        if kind == "frame" and name.endswith(".cbor"):
            assert read(raw)["id"] == "b3f1-7", name
        seen += 1
    for stem, value in WRITTEN.items():
        assert cbor2.dumps(value) == (folder / f"{stem}.cbor").read_bytes(), stem
    assert seen > 30, f"only {seen} payloads"
    print(seen, "golden payloads")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
