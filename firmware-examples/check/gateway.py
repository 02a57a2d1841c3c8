"""The real agent for the tests: on free loopback ports, with the shipped model, users, TLS, and a central broker that
is never there."""

import os
import selectors
import signal
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import mqtt

GATEWAY = "mill/gw-3"
SERVER = "gateway.example"
PASSWORD = "tide"
# argon2id of PASSWORD with the least cost that the algorithm has, so that logins of tests are quick.
HASH = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQx$jtUecPrxkknxaDISRhtOfCLjwGLu0iZqNkMTJIvSHyA"
# Boards are tried side by side: each has devices of its own, so that none takes over the session of another.
BOARDS_MAX, DEVICES_EACH = 10, 8


def device_name(board, n):
    return f"press-{board}{n}"


USERS = [device_name(board, n) for board in range(1, BOARDS_MAX + 1) for n in range(1, DEVICES_EACH + 1)]
START_SECONDS_MAX = 120
# Starts with other ports, when somebody else took one of them in between.
STARTS_MAX = 3
MODEL = Path(__file__).resolve().parents[2] / "agent/models/tide-edge.gguf"

CONFIG = """
site = "mill"
gateway = "gw-3"
data_dir = "{home}/data"
[engine]
model = "{model}"
[door]
listen = ["127.0.0.1:{port}"]
listen_tls = ["127.0.0.1:{tls_port}"]
cert = "{home}/server.pem"
key = "{home}/server.key"
users_file = "{home}/users"
# Emulated boards need long for a handshake, eight at a time on a busy machine.
[door.limits]
handshake_timeout_ms = 60000
connect_timeout_ms = 60000
[page]
listen = ["127.0.0.1:0"]
[bridge]
url = "mqtt://127.0.0.1:{dead_port}"
[tasks.action]
cloud = "allowed"
threshold = 0.0
# Never sure enough: the cloud would be asked, were there a link.
[tasks.intent]
cloud = "allowed"
threshold = 1.0
"""


class Port:
    """A port of loopback that is ours from now on. Nobody answers there until `listen`."""

    def __init__(self):
        self.sock = socket.socket()
        self.sock.bind(("127.0.0.1", 0))
        self.number = self.sock.getsockname()[1]

    def listen(self):
        self.sock.listen(64)
        return self.sock

    def close(self):
        self.sock.close()


def close_listener(sock):
    """A close alone leaves the thread that accepts, and with it the port."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    sock.close()


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def make_ca(folder, name):
    """A CA on P-256, kept as long as the folder: images have it built in."""
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    if not certificate.exists():
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key))
        openssl("req", "-x509", "-new", "-key", str(key), "-subj", f"/CN={name}", "-days", "3650", "-out",
                str(certificate))
    return certificate


def make_server(ca_folder, ca_name, folder, stem):
    """A certificate for SERVER, signed by the CA."""
    key, request, certificate = (str(folder / f"{stem}.{end}") for end in ("key", "csr", "pem"))
    extensions = folder / f"{stem}.ext"
    extensions.write_text(f"subjectAltName=DNS:{SERVER}\nextendedKeyUsage=serverAuth\n")
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key + ".sec1")
    openssl("pkcs8", "-topk8", "-nocrypt", "-in", key + ".sec1", "-out", key)
    openssl("req", "-new", "-key", key, "-subj", f"/CN={SERVER}", "-out", request)
    openssl("x509", "-req", "-in", request, "-CA", str(ca_folder / f"{ca_name}.pem"), "-CAkey",
            str(ca_folder / f"{ca_name}.key"), "-CAcreateserial", "-days", "30", "-extfile", str(extensions),
            "-out", certificate)


class Gateway:
    """`tidegate up`, until `close`."""

    def __init__(self, binary, home, ca_folder):
        home = Path(home)
        make_server(ca_folder, "ca", home, "server")
        (home / "users").write_text("".join(f"{user}:{HASH}\n" for user in USERS))
        self.server_files = home / "server.pem", home / "server.key"
        self.config, self.log, self.no_broker = home / "tidegate.toml", home / "log", Port()
        for start in range(1, STARTS_MAX + 1):
            self._start(binary, home)
            if self._is_ready():
                return
            if start == STARTS_MAX or "in use" not in self.log_since(0):
                raise RuntimeError("the gateway does not start:\n" + self.log_since(0)[-2000:])

    def _start(self, binary, home):
        door, door_tls = Port(), Port()
        self.port, self.tls_port = door.number, door_tls.number
        self.config.write_text(CONFIG.format(home=home, model=MODEL, port=self.port, tls_port=self.tls_port,
                                             dead_port=self.no_broker.number))
        door.close()
        door_tls.close()
        with open(self.log, "wb") as log:
            self.child = subprocess.Popen([binary, "up", "--config", str(self.config)], stdin=subprocess.DEVNULL,
                                          stdout=log, stderr=log, start_new_session=True)

    def log_since(self, place):
        """What the gateway wrote after that many bytes."""
        return self.log.read_bytes()[place:].decode(errors="replace")

    def _is_ready(self):
        """False: it ended."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            if self.child.poll() is not None:
                return False
            if time.monotonic() > deadline:
                raise RuntimeError("the gateway is not ready in time:\n" + self.log_since(0)[-2000:])
            try:
                client = mqtt.Client(self.port, "local-wait")
                client.subscribe(f"tg/v1/{GATEWAY}/state/health")
                while b'"engine_ready":true' not in client.message(deadline - time.monotonic())[1]:
                    pass
                client.close()
                return True
            except (OSError, ConnectionError):
                time.sleep(0.02)

    def record(self, device, prompt_id):
        login = () if device.startswith("local-") else (device, PASSWORD)
        return mqtt.record(self.port, GATEWAY, device, prompt_id, login)

    def close(self):
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()


class Stranger:
    """A TLS server whose certificate comes from a CA that no device knows."""

    def __init__(self, folder):
        make_ca(folder, "stranger")
        make_server(folder, "stranger", folder, "stranger-server")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "stranger-server.pem", folder / "stranger-server.key")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, args=(context,), daemon=True).start()

    def _serve(self, context):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            try:
                sock.settimeout(mqtt.PATIENCE_S)
                # A client that refuses the certificate never gets this far.
                context.wrap_socket(sock, server_side=True).close()
            except (OSError, ssl.SSLError):
                sock.close()

    def close(self):
        close_listener(self.listener)


class Cut:
    """A connection to the gateway that is cut once, when the outcome was on its way: the device gets neither the PUBACK of
    its prompt nor the outcome. Later connections pass. Not listening before `open`. With `tls`, a server's certificate and
    key, it speaks TLS to both sides, since it must read what the gateway says."""

    def __init__(self, to_port, cut=True, tls=None):
        self.to_port, self.cut, self.tls = to_port, cut, tls
        self.door, self.connections, self.cuts = Port(), 0, 0
        self.port, self.listener = self.door.number, self.door.sock

    def open(self):
        self.door.listen()
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def _serve(self):
        while True:
            try:
                device, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            first = self.cut and self.connections == 1
            threading.Thread(target=self._pass, args=(device, first), daemon=True).start()

    def _pass(self, device, cut):
        socks = [device]
        try:
            socks.append(socket.create_connection(("127.0.0.1", self.to_port), timeout=mqtt.PATIENCE_S))
            device.settimeout(mqtt.PATIENCE_S)
            if self.tls:
                ours, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                ours.load_cert_chain(*self.tls)
                theirs.check_hostname, theirs.verify_mode = False, ssl.CERT_NONE
                socks = [ours.wrap_socket(device, server_side=True), theirs.wrap_socket(socks[1])]
            self._pump(*socks, mqtt.Reader(None) if cut else None)
        except OSError:
            pass
        for sock in socks:
            sock.close()

    def _pump(self, device, far, reader):
        """Both directions in one thread, until either side ends or the connection is cut."""
        ready = selectors.DefaultSelector()
        for sock in (device, far):
            sock.setblocking(False)
            ready.register(sock, selectors.EVENT_READ)
        while True:
            waiting = [sock for sock in (device, far) if self.tls and sock.pending()]
            for sock in waiting or [key.fileobj for key, _ in ready.select()]:
                try:
                    piece = sock.recv(65536)
                except (ssl.SSLWantReadError, BlockingIOError):
                    # A ticket, or half a record.
                    continue
                if not piece:
                    return
                if sock is device or reader is None:
                    (far if sock is device else device).sendall(piece)
                elif not self._let_through(device, reader, piece):
                    self.cuts += 1
                    return

    @staticmethod
    def _let_through(device, reader, piece):
        """False: the outcome is there."""
        reader.kept += piece
        while (found := reader.take()) is not None:
            kind, flags, body = found
            if kind in (mqtt.CONNACK, mqtt.SUBACK, mqtt.PINGRESP):
                device.sendall(mqtt.packet(kind, flags, body))
            elif kind == mqtt.PUBLISH and b"answer" in mqtt.split_publish(flags, body)[2]:
                return False
        return True

    def close(self):
        close_listener(self.listener)
