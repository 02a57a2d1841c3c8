"""The examples: how each is built, and how it is run with given settings.

A setting is what an example's settings file has; `run` passes it the way that the example takes it. What a device prints
and its exit status are the same for all of them (see ../README.md)."""

import os
import subprocess
import sys
import threading
from pathlib import Path

from commands import fetched, ran

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent
# The emulated Mega takes a core for itself; where it has a tenth of one, 64 KiB over its serial line take minutes.
RUN_SECONDS_MAX = 900
# What each thread has started since it last began a case.
STARTED = threading.local()


class Result:
    """What a run left: the exit status and the lines on stdout."""

    def __init__(self, status, output):
        self.status, self.output = status, output
        self.lines = [line for line in output.splitlines() if line]

    def said(self, word):
        """What stands behind the word, for each line that begins with it."""
        return [line[len(word) + 1 :] for line in self.lines if line.split(" ", 1)[0] == word]

    @property
    def id(self):
        return (self.said("id") or [None])[0]

    def answer(self):
        """Route and text of the answer."""
        route, _, body = (self.said("answer") or ["none "])[-1].partition(" ")
        return route, body.replace("\\n", "\n").replace("\\r", "\r").replace("\\\\", "\\")


class Run:
    """A device that was started."""

    def __init__(self, argv, env=None, cwd=None):
        self.result = None
        self.child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                      env={**os.environ, **(env or {})}, cwd=cwd)

    def wait(self, seconds=RUN_SECONDS_MAX):
        if self.result is None:
            try:
                output, _ = self.child.communicate(timeout=seconds)
                status = self.child.returncode
            except subprocess.TimeoutExpired:
                self.child.kill()
                output, _ = self.child.communicate()
                status = 124
            self.result = Result(status, output.decode(errors="replace"))
        return self.result


def case_begins():
    STARTED.runs = []


def case_ends():
    """What the devices of the case left; none of them outlives it."""
    return [run.wait(1) for run in STARTED.runs]


def make(*arguments):
    ran(["make", "-s", f"-j{os.cpu_count()}", *arguments])


def pairs(settings):
    return [f"{key}={value}" for key, value in settings.items()]


class Device:
    """An example. `parts` are the cases that it has the parts for; its number tells its devices from those of others."""

    number = 0
    level = 4
    encodings = ("cbor",)
    parts = frozenset({"bare", "stream", "buffer", "tasks"})
    address = "127.0.0.1"
    small_buffer = 220
    # An address of this machine, for emulated boards that could ask for another port of it.
    outside = None
    elf = None

    def checks(self, work):
        """What is tried beside the cases: name and function."""
        return []

    def start(self, port, **settings):
        return self._started(port, {"host": self.address, **settings})

    def start_astray(self, port, other, **settings):
        """The board is given one port and asks for another."""
        return self._started(port, {"host": self.outside, "port": other, **settings})

    def _started(self, port, settings):
        run = self.launch(port, {"gateway": "mill/gw-3", **settings})
        STARTED.runs.append(run)
        return run

    def run(self, port, **settings):
        return self.start(port, **settings).wait()


class Host(Device):
    """c/host: the C files on this machine."""

    name = "c-host"
    folder = "c"

    def build(self, work):
        self.binary = work.build / "c" / "ask"
        make("-C", EXAMPLES / "c", f"BUILD={work.build / 'c'}", self.binary)

    def checks(self, work):
        return [("unit tests", lambda: make("-C", EXAMPLES / "c", f"BUILD={work.build / 'c'}", "check"))]

    def launch(self, port, settings):
        return Run([str(self.binary), f"port={port}", *pairs(settings)])


class Qemu(Device):
    """A board in QEMU. Its network ends in one port: `restrict` cuts off all others."""

    address = "10.0.2.100"
    # What the emulator's network calls this machine.
    outside = "10.0.2.2"
    forwarded = 1883

    def launch(self, port, settings):
        relay = f"{sys.executable} {HERE / 'relay.py'} {port}"
        arguments = [f"arg={pair.replace(' ', '+').replace(',', ',,')}" for pair in
                     pairs({"port": self.forwarded, **settings})]
        return Run([
            "qemu-system-arm", "-M", "mps2-an385", "-display", "none", "-monitor", "none", "-serial", "stdio",
            "-semihosting-config", ",".join(["enable=on,target=native,arg=fw", *arguments]),
            "-nic", f"user,model=lan9118,restrict=on,guestfwd=tcp:{self.address}:{self.forwarded}-cmd:{relay}",
            "-kernel", str(self.elf),
        ])


class CortexM(Qemu):
    """c/cortex-m: bare metal, lwIP."""

    name = "c-cortex-m"
    folder = "c/cortex-m"

    def build(self, work):
        build_cortex_m(work)
        self.elf = work.build / "cortex-m" / "plain.elf"


class CortexMTls(CortexM):
    """c/cortex-m with mbedTLS."""

    name = "c-cortex-m-tls"
    parts = frozenset({"tls", "bare", "stream", "buffer", "tasks"})

    def build(self, work):
        build_cortex_m(work)
        self.elf = work.build / "cortex-m" / "tls.elf"


def build_cortex_m(work):
    work.sources("lwip", "mbedtls")
    make("-C", EXAMPLES / "c/cortex-m", f"BUILD={work.build / 'cortex-m'}", f"LWIP={work.build / 'source/lwip'}",
         f"MBEDTLS={work.build / 'source/mbedtls'}", f"CA={work.ca}")



def is_made(folder, of):
    """Whether the folder was filled to its end, from the same list."""
    note = folder / "made-of"
    return note.exists() and note.read_text() == of


def note_made(folder, of):
    (folder / "made-of").write_text(of)


RUST = EXAMPLES / "rust"


def cargo(folder, target, *arguments, **env):
    ran(["cargo", *arguments], cwd=folder, env={**os.environ, "CARGO_TARGET_DIR": str(target), **env})


def fetch_crates(folder):
    fetched(f"the crates of {folder.name}", ["cargo", "fetch", "--quiet", "--locked"], cwd=folder)


class RustHost(Device):
    """rust/host: the device crate on this machine, MQTT 5."""

    name = "rust-host"
    level = 5

    def build(self, work):
        target = work.build / "rust-host"
        fetch_crates(RUST)
        cargo(RUST, target, "build", "--quiet", "--release", "--locked")
        self.binary = target / "release/tidegate-ask"

    def checks(self, work):
        target = work.build / "rust-host"
        return [("unit tests and golden payloads",
                 lambda: cargo(RUST, target, "test", "--quiet", "--release", "--locked"))]

    def launch(self, port, settings):
        return Run([str(self.binary), f"port={port}", *pairs(settings)])


class RustCortexM(Qemu):
    """rust/cortex-m: bare metal, embassy, smoltcp, MQTT 5."""

    name = "rust-cortex-m"
    level = 5

    def build(self, work):
        target = work.build / "rust-cortex-m"
        fetch_crates(RUST / "cortex-m")
        # Debian's and Ubuntu's own compiler with its sources: no other toolchain has to be fetched for this processor.
        cargo(RUST / "cortex-m", target, "build", "--quiet", "--release", "--locked", "-Z", "build-std=core,alloc",
              "--target", "thumbv7m-none-eabi", RUSTC="/usr/bin/rustc", RUSTC_BOOTSTRAP="1",
              RUSTFLAGS="-C link-arg=-Tlink.x -C linker=arm-none-eabi-ld -C linker-flavor=ld")
        self.elf = target / "thumbv7m-none-eabi/release/tidegate-cortex-m"


class CPython(Device):
    """micropython/, on CPython."""

    name = "cpython"
    encodings = ("cbor", "json")

    def build(self, work):
        pass

    def checks(self, work):
        golden = EXAMPLES.parent / "schemas/golden"
        return [("golden payloads", lambda: ran(
            [sys.executable, "-B", EXAMPLES / "micropython/test_golden.py", golden]))]

    def launch(self, port, settings):
        return Run([sys.executable, "-B", str(EXAMPLES / "micropython/main.py"), f"port={port}", *pairs(settings)])


class CPythonTls(CPython):
    """The same over TLS."""

    name = "cpython-tls"
    parts = frozenset({"tls", "bare", "stream", "buffer", "tasks"})

    def build(self, work):
        self.ca = work.build / "ca/ca.der"
        ran(["openssl", "x509", "-in", work.ca, "-outform", "DER", "-out", self.ca])

    def checks(self, work):
        return []

    def launch(self, port, settings):
        return super().launch(port, {"ca": self.ca, **settings})


class MicroPython(Device):
    """micropython/, unchanged, on the real MicroPython in Node."""

    name = "micropython"
    encodings = ("cbor", "json")

    def build(self, work):
        folder = work.folder("micropython", work.build)
        for name in ("package.json", "package-lock.json"):
            (folder / name).write_bytes((EXAMPLES / "micropython" / name).read_bytes())
        self.modules = folder / "node_modules"
        if not is_made(folder, (folder / "package-lock.json").read_text()):
            fetched("MicroPython, by npm", ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder)
            note_made(folder, (folder / "package-lock.json").read_text())

    # It sees the loopback of this machine, and one port of it.
    outside = "127.0.0.1"

    def _node(self, only, *arguments):
        return ["node", str(EXAMPLES / "micropython/emulated/host.mjs"), str(self.modules), only, *arguments]

    def checks(self, work):
        golden = EXAMPLES.parent / "schemas/golden"
        return [("golden payloads", lambda: ran(self._node("none", f"golden={golden}")))]

    def launch(self, port, settings):
        return Run(self._node(f"{self.address}:{port}", *pairs({"port": port, **settings})))


class Mega(Device):
    """arduino/: the sketch with the real Arduino core in simavr, behind a serial modem."""

    name = "arduino-mega"
    parts = frozenset({"bare", "stream", "buffer", "tasks"})

    def build(self, work):
        folder = work.build / "mega"
        make("-C", EXAMPLES / "arduino", f"BUILD={folder}")
        self.elf, self.board = folder / "mega.elf", folder / "mega-board"

    def launch(self, port, settings):
        return Run([str(self.board), str(self.elf), self.address, str(port), *pairs(settings)])


class Fleet(Device):
    """python-fleet/: many devices on paho-mqtt and cbor2, MQTT 5. It takes its own cases."""

    name = "python-fleet"
    level = 5
    parts = frozenset({"fleet"})

    def checks(self, work):
        golden = EXAMPLES.parent / "schemas/golden"
        return [("golden payloads", lambda: ran(
            [self.python, "-B", EXAMPLES / "python-fleet/test_golden.py", golden]))]

    def build(self, work):
        folder = work.build / "fleet"
        self.python, wanted = folder / "bin/python", EXAMPLES / "python-fleet/requirements.txt"
        if not is_made(folder, wanted.read_text()):
            ran([sys.executable, "-m", "venv", "--clear", folder])
            fetched("the fleet's packages, by pip", [self.python, "-m", "pip", "install", "--quiet",
                                                     "--disable-pip-version-check", "-r", wanted])
            note_made(folder, wanted.read_text())

    def launch(self, port, settings):
        return Run([str(self.python), "-B", str(EXAMPLES / "python-fleet/fleet.py"), f"port={port}", *pairs(settings)])


DEVICES = [Host, CortexM, CortexMTls, RustHost, RustCortexM, MicroPython, CPython, CPythonTls, Mega, Fleet]
for place, kind in enumerate(DEVICES, 1):
    kind.number = place
