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
from commands import Failed
from devices import DEVICES, case_begins, case_ends
from gateway import Gateway, make_ca


# What is said again of a failure at the end.
WHY_LINES, DEVICE_LINES, GATEWAY_LINES, LINE_CHARACTERS_MAX = 30, 30, 30, 300
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
    """Counts, says what failed as it fails, and keeps why for the end. Several threads count."""

    def __init__(self):
        self.passed, self.faults, self.lock = 0, [], threading.Lock()
        self.gateway = None

    def attempt(self, name, what, *arguments):
        began, place = time.monotonic(), self.gateway.log.stat().st_size if self.gateway else 0
        case_begins()
        try:
            what(*arguments)
        except Exception as error:  # a case may fail in any way, and the others run all the same
            self._failed(name, error, place)
            return False
        finally:
            case_ends()
        with self.lock:
            self.passed += 1
        print(f"ok {name} {time.monotonic() - began:.1f} s", flush=True)
        return True

    def _failed(self, name, error, place):
        why = f"{type(error).__name__} {error}"
        if not isinstance(error, (AssertionError, Failed)):
            why += "\n" + "".join(traceback.format_exception(error)[-3:])
        runs = case_ends()
        lines = [f"failed: {name}: {why[:LINE_CHARACTERS_MAX].splitlines()[0]}"]
        if not runs:
            lines += last(why, WHY_LINES)
        for run in runs:
            lines += [f"device, status {run.status}:", *last(run.output, DEVICE_LINES // len(runs) + 1)]
        if self.gateway:
            lines += ["gateway:", *last(self.gateway.log_since(place), GATEWAY_LINES)]
        with self.lock:
            self.faults.append("\n  ".join(lines))
            print("FAILED " + self.faults[-1], flush=True)

    def tell(self):
        """The faults once more, each with what was said, then one line each, so that they stand at the end, and the sum."""
        for fault in self.faults:
            print(fault)
        for fault in self.faults:
            print(fault.splitlines()[0])
        print(f"{self.passed} passed, {len(self.faults)} failed")
        return 1 if self.faults else 0


def last(text, lines_max):
    """The last lines, each cut to what a log can be read with."""
    return [line[:LINE_CHARACTERS_MAX] for line in text.strip().splitlines()[-lines_max:]]


def chosen(names):
    known = {device.name for device in DEVICES}
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"no such example: {' '.join(unknown)}; there are {' '.join(sorted(known))}")
    return [device for device in DEVICES if not names or device.name in names]


def try_device(device, tally, world):
    def attempt(case):
        tally.attempt(f"{device.name}: {case.__name__}", case, device, world)

    every = cases.of(device)
    for case in every:
        if not cases.waits(case):
            attempt(case)
    with ThreadPoolExecutor() as pool:
        list(pool.map(attempt, filter(cases.waits, every)))


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
        started = []
        tally.attempt("the gateway starts", lambda: started.append(Gateway(binary, home, work.folder("ca", work.build))))
        if started:
            try_all(built, tally, cases.World(started[0], work))
    return tally.tell()


def try_all(built, tally, world):
    tally.gateway = world.gateway
    try:
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            list(pool.map(lambda device: try_device(device, tally, world), built))
        for device in built:
            for case in cases.alone(device):
                tally.attempt(f"{device.name}: {case.__name__}", case, device, world)
    finally:
        world.gateway.close()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
