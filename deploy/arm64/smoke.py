"""Tries a gateway built for ARM64: smoke.py PROGRAM KERNELS, where programs for ARM64 start (see `emulated`).

The door takes a prompt, tide-edge answers it with the kernels of that name, SIGTERM ends the gateway with status 0 while a
prompt is under way, and the next start gives that prompt its outcome."""

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "firmware-examples/check"))

import gateway
import mqtt

DEVICE = "local-smoke"
TEXT = "turn off the lights in the packing hall"
# An emulated processor is some twenty times slower than a real one.
gateway.START_SECONDS_MAX = 300
ANSWER_SECONDS_MAX = 120
DRAIN_SECONDS_MAX = 60


def subscribed(port):
    client = mqtt.Client(port, DEVICE)
    client.subscribe(f"tg/v1/{gateway.GATEWAY}/answer/{DEVICE}")
    return client


def ask(client, prompt_id):
    prompt = {"id": prompt_id, "input": TEXT, "deadline_ms": 1000 * ANSWER_SECONDS_MAX}
    client.publish(f"tg/v1/{gateway.GATEWAY}/prompt/{DEVICE}", json.dumps(prompt).encode())


def frame(client, prompt_id, kinds):
    """The next frame of that prompt of one of these kinds."""
    deadline = time.monotonic() + ANSWER_SECONDS_MAX
    while True:
        found = mqtt.decode(client.message(deadline - time.monotonic())[1])
        if found.get("id") == prompt_id and found["kind"] in kinds:
            return found


def answered(client, prompt_id):
    found = frame(client, prompt_id, ("answer", "error"))
    if found["kind"] != "answer" or found["json"].get("intent") != "HassTurnOff":
        raise AssertionError(f"the outcome is {found}")
    return found


def kernels():
    """The libraries with kernels that processes have in memory now."""
    found = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            text = maps.read_text()
        except OSError:
            continue
        found |= {line.rsplit("/", 1)[1] for line in text.splitlines() if "/libggml-cpu-" in line}
    return found


def ends_by_sigterm(started):
    os.kill(started.child.pid, signal.SIGTERM)
    status = started.child.wait(DRAIN_SECONDS_MAX)
    if status != 0:
        raise AssertionError(f"SIGTERM ended the gateway with status {status}:\n" + started.log.read_text()[-2000:])


def step(began, what):
    print(f"{time.monotonic() - began:6.1f} s  {what}", flush=True)


def main(program, expected):
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as home:
        ca = Path(home) / "ca"
        ca.mkdir()
        gateway.make_ca(ca, "ca")
        first = gateway.Gateway(program, home, ca)
        try:
            step(began, "the door listens and the engine is ready")
            loaded = kernels()
            if not any(f"-{expected}_" in library for library in loaded):
                raise AssertionError(f"kernels of {expected} were expected, there are {sorted(loaded)}")
            step(began, f"kernels: {', '.join(sorted(loaded))}")
            client = subscribed(first.port)
            ask(client, "smoke-1")
            found = answered(client, "smoke-1")
            step(began, f"tide-edge answers {json.dumps(found['json'])}")
            ask(client, "smoke-2")
            frame(client, "smoke-2", ("accepted",))
            ends_by_sigterm(first)
            step(began, "SIGTERM while a prompt was under way: status 0")
        finally:
            first.close()
        second = gateway.Gateway(program, home, ca)
        try:
            client = subscribed(second.port)
            answered(client, "smoke-2")
            step(began, "the next start gives that prompt its outcome")
            ends_by_sigterm(second)
        finally:
            second.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
