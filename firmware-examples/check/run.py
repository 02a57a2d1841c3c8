"""Builds the examples and tries each against the real agent: `run.py BINARY BUILD [NAME …]`.

The last line is `N passed, N failed`. A part that the machine lacks is a failure that says which package it is in."""

import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cases
import sizes
import sources
from devices import DEVICES
from gateway import Gateway, make_ca


# Examples that are tried at a time. A trial waits most of its time, for deadlines and for what is not there.
SIDE_BY_SIDE = 4


class Work:
    """Folders: `build` is kept between runs, `home` is not."""

    def __init__(self, build, home):
        self.build, self.home = Path(build).resolve(), Path(home)
        self.build.mkdir(parents=True, exist_ok=True)
        self.ca = make_ca(self.folder("ca", self.build), "ca")

    def folder(self, name, under=None):
        folder = (under or self.home) / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def sources(self, *packages):
        sources.fetch(self.folder("source", self.build), packages)


class Tally:
    """Counts, and says what failed as it fails. Several threads count."""

    def __init__(self):
        self.passed, self.failed, self.lock = 0, 0, threading.Lock()

    def attempt(self, name, what, *arguments):
        began = time.monotonic()
        try:
            what(*arguments)
        except Exception as error:  # a case may fail in any way, and the others run all the same
            with self.lock:
                self.failed += 1
                print(f"FAILED {name}: {type(error).__name__} {error}", flush=True)
                if not isinstance(error, AssertionError):
                    traceback.print_exc()
            return False
        with self.lock:
            self.passed += 1
        print(f"ok {name} {time.monotonic() - began:.1f} s", flush=True)
        return True


def chosen(names):
    known = {device.name for device in DEVICES}
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"no such example: {' '.join(unknown)}; there are {' '.join(sorted(known))}")
    return [device for device in DEVICES if not names or device.name in names]


def try_device(device, tally, world):
    for case in cases.of(device):
        tally.attempt(f"{device.name}: {case.__name__}", case, device, world)


def build(device, tally, work):
    """Whether it can be tried."""
    if not tally.attempt(f"{device.name}: builds", device.build, work):
        return False
    for name, what in device.checks(work):
        tally.attempt(f"{device.name}: {name}", what)
    return True


def main(binary, folder, *names):
    devices = [kind() for kind in chosen(names)]
    tally = Tally()
    with tempfile.TemporaryDirectory() as home:
        work = Work(folder, home)
        built = [device for device in devices if build(device, tally, work)]
        images = {device.name: device.elf for device in built if device.elf}
        if images:
            tally.attempt("flash and RAM", sizes.compare, images)
        gateway = Gateway(binary, home, work.folder("ca", work.build))
        world = cases.World(gateway, work)
        try:
            with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
                list(pool.map(lambda device: try_device(device, tally, world), built))
            for device in built:
                for case in cases.alone(device):
                    tally.attempt(f"{device.name}: {case.__name__}", case, device, world)
        finally:
            gateway.close()
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
