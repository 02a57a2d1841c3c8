"""Talk to Tidegate from MicroPython and CPython: MQTT 3.1.1, prompts and answers in JSON or CBOR, one prompt and its
outcome. With cbor.py and link.py it is all that a board needs besides a network that is up.

Every wait ends: `run` returns within the prompt's deadline and a grace, counted from its first publish as the gateway
counts, and before it within as much. The same prompt has the same id and the same bytes on every attempt, so that the
gateway answers it once. A PUBACK leaves only after the frame was taken."""

import json

from cbor import DEPTH_MAX, cbor_decode, cbor_encode, utf8
from link import Link, Lost, packed, sleep_ms, string, ticks_diff, ticks_ms

# Exit statuses of a program, too.
ANSWERED, SILENT, REFUSED, UNREACHABLE, USAGE = 0, 1, 2, 3, 64
# One step of a connection: opening it, CONNACK, SUBACK.
STEP_MS = 20000
PAUSE_MS, PAUSE_MS_MAX = 250, 8000


class Refused(Exception):
    """The gateway says no, and why."""


def _too_deep(raw):
    """JSON nested deeper than we follow: a small board has a small stack."""
    depth, quoted, skip = 0, False, False
    for byte in raw:
        if skip:
            skip = False
        elif quoted:
            skip, quoted = byte == 92, byte != 34
        elif byte == 34:
            quoted = True
        elif byte in (91, 123):
            depth += 1
            if depth > DEPTH_MAX:
                return True
        elif byte in (93, 125):
            depth -= 1
    return False


def frame(payload):
    """A frame as a dict, by its first byte; None: it makes no sense."""
    try:
        if payload[:1] == b"{":
            return None if _too_deep(payload) else json.loads(utf8(bytes(payload)))
        found = cbor_decode(payload)
        return found if isinstance(found, dict) else None
    except (ValueError, RuntimeError, MemoryError):
        return None


class Stream:
    """Puts `token` frames together. The answer has it all: this is only to be shown."""

    def __init__(self, bytes_max=512):
        self.text, self.attempt, self.next, self.gap, self.bytes_max = "", 0, 0, False, bytes_max

    def add(self, token):
        """Whether there is something new to show."""
        attempt, seq, text = token.get("attempt"), token.get("seq"), token.get("text")
        if not (isinstance(attempt, int) and isinstance(seq, int) and isinstance(text, str)) or attempt < self.attempt:
            return False
        anew = attempt > self.attempt
        if anew:
            self.text, self.attempt, self.next, self.gap = "", attempt, 0, False
        if self.gap or seq < self.next:
            return anew
        if seq > self.next or len(self.text) + len(text) > self.bytes_max:
            self.gap = True
            return anew
        self.text, self.next = self.text + text, seq + 1
        return True


class Ask:
    """One prompt. `settings` has the names of config.py; `say(word, text)` is told what comes."""

    def __init__(self, settings, prompt_id, say, wrap=None):
        self.set, self.id, self.say, self.wrap = settings, prompt_id, say, wrap
        self.began, self.met, self.acknowledged, self.dropped = ticks_ms(), False, False, 0
        self.asked, self.early = False, None
        self.stream, self.attempts = Stream(), 0
        # Once: another deadline would be another prompt.
        self.payload = self._prompt()

    def _topic(self, what):
        return "tg/v1/%s/%s/%s" % (self.set["gateway"], what, self.set["device"])

    def _prompt(self):
        if self.set["bare"]:
            return self.set["text"].encode()
        prompt = {"id": self.id}
        if self.set["task"]:
            prompt["task"] = self.set["task"]
        prompt["input"] = self.set["text"]
        if self.set["max_tokens"]:
            prompt["max_tokens"] = self.set["max_tokens"]
        prompt["max_bytes"] = self.set["buffer"] - len(self._topic("answer")) - 9
        prompt["deadline_ms"] = self.set["deadline_ms"]
        for flag in ("stream", "local"):
            if self.set[flag]:
                prompt[flag] = True
        return json.dumps(prompt).encode() if self.set["encoding"] == "json" else cbor_encode(prompt)

    def left(self):
        return self.set["deadline_ms"] + self.set["grace_ms"] - ticks_diff(ticks_ms(), self.began)

    def run(self):
        """Outcome and why. Ends in time, whatever the gateway does."""
        while True:
            try:
                return self._once()
            except Refused as refused:
                return REFUSED, str(refused)
            except Lost as lost:
                why = str(lost)
            self.attempts += 1
            if self.left() <= 0:
                return (SILENT, "no outcome in time") if self.met else (UNREACHABLE, "no connection in time")
            if self.attempts >= self.set["attempts"]:
                return UNREACHABLE, why
            sleep_ms(max(min(PAUSE_MS << self.attempts - 1, PAUSE_MS_MAX, self.left()), 0))

    def _once(self):
        link = Link(self.set["host"], self.set["port"], min(STEP_MS, self.left()), self.wrap)
        try:
            self._connect(link)
            if isinstance(self.early, tuple):
                link.send(b"\xe0\0")
                return self.early
            while True:
                if not self.asked:
                    self.asked, self.began = True, ticks_ms()
                if not self.acknowledged:
                    link.send(packed(0x32, string(self._topic("prompt")) + b"\0\2" + self.payload))
                end = self._listen(link)
                if end is not None:
                    link.send(b"\xe0\0")
                    return end
        finally:
            link.close()

    def _await(self, link, kind):
        """The body of the next packet of that kind. Others in between are not for now."""
        end = ticks_ms()
        while True:
            left = min(STEP_MS - ticks_diff(ticks_ms(), end), self.left())
            packet = link.packet(left, self.set["buffer"]) if left > 0 else None
            if packet is None:
                raise Lost("the gateway does not answer")
            if packet[0] >> 4 == kind and packet[1] is not None:
                return packet[1]
            if packet[0] >> 4 == 3 and self.asked and not self.set["bare"]:
                # What was not acknowledged may come before SUBACK (MQTT 3.1.1 3.8.4).
                self.early = self._publish(link, packet) or self.early

    def _connect(self, link):
        flags, body = 2, string(self.set["device"])
        if self.set["will"]:
            flags |= 0x0C
            body += string(self.set["will"]) + string("lost")
        if self.set["user"]:
            flags |= 0xC0
            body += string(self.set["user"]) + string(self.set["password"])
        keep_alive = self.set["keep_alive_s"].to_bytes(2, "big")
        link.send(packed(0x10, string("MQTT") + bytes([4, flags]) + keep_alive + body))
        code = self._await(link, 2)[1]
        if code == 3:
            raise Lost("the broker is not available")
        if code:
            raise Refused({4: "wrong user name or password", 5: "not authorised"}.get(code, "connection refused"))
        self.met = True
        link.send(packed(0x82, b"\0\1" + string(self._topic("answer")) + b"\1"))
        if self._await(link, 9)[2] > 2:
            raise Refused("not our topic: the subscription was refused")

    def _listen(self, link):
        """The end, or None: the prompt is to be sent again."""
        pinged, half = False, self.set["keep_alive_s"] * 500
        while True:
            packet = link.packet(min(half, self.left()), self.set["buffer"]) if self.left() > 0 else None
            if self.left() <= 0:
                return SILENT, "no outcome in time"
            if packet is None:
                if pinged or link.got:
                    raise Lost("the gateway does not answer any more")
                link.send(b"\xc0\0")
                pinged = True
                continue
            pinged = False
            kind = packet[0] >> 4
            if kind == 4 and packet[1] == b"\0\2":
                self.acknowledged = True
            elif kind == 3:
                end = self._publish(link, packet)
                if isinstance(end, tuple):
                    return end
                if end:
                    sleep_ms(min(end, max(self.left(), 0)))
                    self.acknowledged = False
                    return None
            elif kind not in (2, 4, 9, 13):
                raise Lost("what came is no MQTT")

    def _publish(self, link, packet):
        first, body, packet_id = packet
        end = None
        if body is None:
            self.dropped += 1
        else:
            at = 2 + int.from_bytes(body[:2], "big")
            topic = bytes(body[2:at])
            if first & 6:
                packet_id = int.from_bytes(body[at : at + 2], "big")
                at += 2
            if at > len(body):
                raise Lost("what came is no MQTT")
            if topic == self._topic("answer").encode():
                end = self._take(body[at:])
            else:
                self.dropped += 1
        # Only now: acknowledged means taken, and the gateway keeps an outcome until it is.
        if packet_id:
            link.send(b"\x40\2" + packet_id.to_bytes(2, "big"))
        return end

    def _take(self, payload):
        """The end, a pause in milliseconds after which to ask again, or None."""
        if self.set["bare"]:
            return self._take_text(payload)
        found = frame(payload)
        kind = found.get("kind") if found else None
        if found is None or not (found.get("id") == self.id or (kind == "error" and "id" not in found)):
            self.dropped += 1
        elif kind == "accepted":
            self.say("accepted", str(found.get("position")))
        elif kind == "token":
            if self.stream.add(found):
                self.say("token", self.stream.text)
        elif kind == "error":
            return self._take_error(found)
        elif kind == "answer" and isinstance(found.get("provisional"), bool):
            return self._take_answer(found)
        else:
            self.dropped += 1
        return None

    def _take_text(self, payload):
        try:
            text = utf8(bytes(payload))
        except ValueError:
            self.dropped += 1
            return None
        if text[:1] == "!":
            self.say("error", text)
            return REFUSED, "the gateway refused"
        self.say("answer", "- " + text)
        return ANSWERED, "answered"

    def _take_error(self, found):
        self.say("error", "%s %s" % (found.get("code"), found.get("message")))
        pause = found.get("retry_after_ms")
        if found.get("code") == "busy" and isinstance(pause, int) and self.attempts + 1 < self.set["attempts"]:
            self.attempts += 1
            return max(pause, 1)
        return REFUSED, "the gateway refused"

    def _take_answer(self, found):
        body = found["text"] if isinstance(found.get("text"), str) else found.get("json")
        if body is None:
            self.dropped += 1
            return None
        shown = body if isinstance(body, str) and "text" in found else json.dumps(body)
        self.say("provisional" if found["provisional"] else "answer", "%s %s" % (found.get("route"), shown))
        return None if found["provisional"] else (ANSWERED, "answered")
