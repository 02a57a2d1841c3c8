"""A gateway that sends wrong things on purpose. It speaks MQTT 3.1.1 and 5, acknowledges what it must, and answers a
prompt with what its script says. A script is a function of the Talk; it gets the prompt's id and encoding."""

import json
import socket
import struct
import threading
import time

import mqtt
from gateway import close_listener

GOOD = "all is well"
# Longer than any device lives here, also on a machine that does other things besides.
TALK_SECONDS_MAX = 1200


def head(major, n):
    if n < 24:
        return bytes([major << 5 | n])
    return bytes([major << 5 | 24, n]) if n < 256 else bytes([major << 5 | 25]) + struct.pack(">H", n)


def item(value):
    """CBOR with definite lengths."""
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return head(0, value)
    if isinstance(value, float):
        return b"\xfb" + struct.pack(">d", value)
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(item, value))
    return head(5, len(value)) + b"".join(item(key) + item(inner) for key, inner in value.items())


def answer(prompt_id, text=GOOD):
    return {"kind": "answer", "id": prompt_id, "text": text, "confidence": 0.5, "route": "local", "reason": "confident",
            "provisional": False, "model": "m", "usage": {"prompt_tokens": 1, "completion_tokens": 1},
            "timing": {"queued_ms": 0, "prefill_ms": 1, "decode_ms": 1, "total_ms": 2}}


class Talk:
    """One connection, as far as its prompt."""

    def __init__(self, sock, level, topic, payload, number):
        self.sock, self.level, self.topic, self.number = sock, level, topic, number
        self.is_json = payload[:1] == b"{"
        self.prompt = mqtt.decode(payload)
        self.id = self.prompt["id"]
        self.answers = topic.replace("/prompt/", "/answer/").replace("/control/", "/answer/")
        self.last_id, self.good_ids = 100, set()

    def encode(self, frame):
        return json.dumps(frame).encode() if self.is_json else item(frame)

    def raw(self, payload, topic=None, flags=2):
        self.last_id += 1 if flags & 8 == 0 else 0
        self.sock.sendall(mqtt.publish(topic or self.answers, payload, self.last_id, flags, self.level))

    def say(self, frame, **how):
        self.raw(self.encode(frame), **how)

    def outcome(self, payload):
        """What the device must take, and acknowledge."""
        self.good_ids.add(self.last_id + 1)
        self.raw(payload)

    def good(self):
        self.outcome(self.encode(answer(self.id)))


def truncated(talk):
    talk.raw(talk.encode(answer(talk.id, "never shown"))[:-9])
    talk.good()


def only_truncated(talk):
    talk.raw(talk.encode(answer(talk.id, "never shown"))[:-9])


def indefinite(talk):
    """A map and a text of indefinite length; JSON has no such thing and gets spaces."""
    if talk.is_json:
        talk.outcome(json.dumps(answer(talk.id), indent=3).encode())
        return
    chunks = b"\x7f" + item("all is") + item("") + item(" well") + b"\xff"
    fields = b"".join(item(key) + (chunks if key == "text" else item(value)) for key, value in answer(talk.id).items())
    talk.outcome(b"\xbf" + fields + b"\xff")


def half_float(talk):
    if talk.is_json:
        talk.outcome(talk.encode(answer(talk.id)).replace(b"0.5", b"5e-1"))
        return
    fields = b"".join(item(key) + (b"\xf9\x38\x00" if key == "confidence" else item(value))
                      for key, value in answer(talk.id).items())
    talk.outcome(head(5, len(answer(talk.id))) + fields)


def reordered(talk):
    """The last field first, and others that nobody knows."""
    strange = {"zz": [1, {"kind": "error", "id": talk.id}, "x"], "id2": talk.id, "é": 1.5}
    talk.outcome(talk.encode({**strange, **dict(reversed(answer(talk.id).items())), "later": {"deep": [[[[]]]]}}))


def unknown_kind(talk):
    talk.say({"kind": "horoscope", "id": talk.id, "text": "never shown"})
    talk.say({"id": talk.id, "text": "never shown"})
    talk.say({"kind": 7, "id": talk.id})
    talk.good()


def duplicate(talk):
    talk.good()
    talk.say(answer(talk.id), flags=0xA)
    talk.say(answer(talk.id, "a second outcome"))


def others(talk):
    talk.say(answer(talk.id, "never shown"), topic=talk.answers + "0")
    talk.say(answer(talk.id, "never shown"), topic=talk.answers.replace("/answer/", "/prompt/"))
    talk.say(answer("someone-else", "never shown"))
    talk.good()


def gaps(talk):
    """A piece is lost, one comes twice, one belongs to an attempt that is over."""
    for attempt, seq, text in ((1, 0, "all "), (1, 0, "all "), (1, 2, "LOST"), (0, 9, "OLD"), (1, 3, "LOST")):
        talk.say({"kind": "token", "id": talk.id, "attempt": attempt, "seq": seq, "text": text}, flags=0)
    talk.good()


def huge(talk):
    """64 KiB; who hangs up on it is answered the next time."""
    if talk.number == 1:
        talk.say(answer(talk.id, "x" * 65000))
    talk.good()


def wrong_types(talk):
    talk.say({**answer(talk.id), "text": 7})
    talk.say({**answer(talk.id), "provisional": "no"})
    talk.say({**answer(talk.id), "id": ["x"]})
    talk.raw(b"\xff\xff\xff")
    talk.raw(b"")
    talk.good()


def deep(talk):
    """Nested deeper than anybody follows."""
    nest = b"[" * 3000 if talk.is_json else b"\x81" * 3000
    talk.raw((b'{"a":' if talk.is_json else b"\xa1\x61a") + nest)
    talk.good()


def refuses(talk):
    talk.say({"kind": "error", "id": talk.id, "code": "unknown_task", "message": "no task of that name"})


def busy(talk):
    """Refused for a moment, then taken: the same id again."""
    talk.say({"kind": "error", "id": talk.id, "code": "busy", "message": "full", "retry_after_ms": 100})


def silent(_talk):
    pass


def early(talk):
    """Takes the prompt and hangs up; the outcome comes with the next connection, and before SUBACK."""
    if talk.number == 1:
        talk.sock.shutdown(socket.SHUT_RDWR)
    else:
        talk.good()


def half_packet(talk):
    whole = mqtt.publish(talk.answers, talk.encode(answer(talk.id)), 7, 2, talk.level)
    talk.sock.sendall(whole[:-5])


def garbage(talk):
    talk.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"\xff" * 64)


# Script: the exit status that is right. With 0 the text is GOOD.
SCRIPTS = {
    truncated: 0, only_truncated: 1, indefinite: 0, half_float: 0, reordered: 0, unknown_kind: 0, duplicate: 0, others: 0,
    gaps: 0, huge: 0, wrong_types: 0, deep: 0, refuses: 2, busy: 0, early: 0, silent: 1, half_packet: 1, garbage: 3,
}


class WrongGateway:
    """Listens on loopback and follows a script."""

    def __init__(self, script):
        self.script = script
        self.connections, self.prompts, self.last = 0, [], None
        # Packet ids: what was acknowledged, and those of good outcomes.
        self.acknowledged, self.good_ids = set(), set()
        self.talks = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self.talks.append(threading.Thread(target=self._talk, args=(sock, self.connections), daemon=True))
            self.talks[-1].start()

    def _talk(self, sock, number):
        try:
            self._follow(sock, number)
        except (OSError, TimeoutError):
            pass
        sock.close()

    def _follow(self, sock, number):
        reader, level, deadline = mqtt.Reader(sock), 4, time.monotonic() + TALK_SECONDS_MAX
        while True:
            kind, flags, body = reader.next(deadline)
            if kind == mqtt.CONNECT:
                level = body[6]
                sock.sendall(mqtt.packet(mqtt.CONNACK, 0, b"\0\0" + (b"\0" if level == 5 else b"")))
            elif kind == mqtt.SUBSCRIBE:
                granted = mqtt.packet(mqtt.SUBACK, 0, body[:2] + (b"\0" if level == 5 else b"") + b"\1")
                if self.script is not early:
                    sock.sendall(granted)
                if self.last and self.script is not busy:
                    # As the real one does: a subscription gets what is not acknowledged.
                    self._say(self.script, Talk(sock, level, *self.last, number))
                if self.script is early:
                    sock.sendall(granted)
            elif kind == mqtt.PUBLISH:
                self.last = self._taken(sock, flags, body, level)
                self._answer(Talk(sock, level, *self.last, number))
            elif kind == mqtt.PUBACK:
                self.acknowledged.add(struct.unpack_from(">H", body)[0])
            elif kind == mqtt.PINGREQ:
                sock.sendall(mqtt.packet(mqtt.PINGRESP, 0, b""))
            elif kind == mqtt.DISCONNECT:
                return

    @staticmethod
    def _taken(sock, flags, body, level):
        topic, packet_id, payload = mqtt.split_publish(flags, body, level)
        sock.sendall(mqtt.packet(mqtt.PUBACK, 0, struct.pack(">H", packet_id)))
        return topic, payload

    def _answer(self, talk):
        self.prompts.append(talk.prompt)
        self._say(Talk.good if self.script is busy and len(self.prompts) > 1 else self.script, talk)

    def _say(self, what, talk):
        try:
            what(talk)
        except OSError:
            # It had enough and left; what it said before is still to be read.
            pass
        self.good_ids |= talk.good_ids

    def close(self):
        """The device is gone: what it still said is read to its end."""
        close_listener(self.listener)
        for talk in self.talks:
            talk.join(mqtt.PATIENCE_S)
