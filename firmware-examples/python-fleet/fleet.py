"""N simulated devices: arrival patterns, faults, and an audit of every prompt. The load generator for a gateway, and the
reference for devices with Linux.

  fleet.py host=127.0.0.1 port=1883 gateway=site/gateway devices=8 prompts=5 arrivals=poisson rate=1 cuts=0.2

arrivals: `steady`, `poisson` or `burst` (all at once); rate is prompts a second per device; cuts is the share of prompts
after which the connection is cut before anything came back. The last lines are the audit and `end STATUS WHY`; the exit
status is 0 only when each prompt has exactly one outcome and the gateway's own record (`fetch`) says the same, 1 when not, 2
when the gateway refuses a device, 3 when there was no connection, 64 for a setting that is none."""

import os
import random
import socket
import sys
import threading
import time

import cbor2
import paho.mqtt.client as mqtt

SETTINGS = {
    "host": "127.0.0.1", "port": 1883, "gateway": "site/gateway", "name": "local-fleet", "user": "", "password": "",
    "devices": 8, "prompts": 5, "arrivals": "poisson", "rate": 1.0, "cuts": 0.0, "seed": 1, "deadline_ms": 30000,
    # What comes this long after the deadline of the last prompt still counts.
    "grace_ms": 5000,
    "text": "turn off the lights in the packing hall", "task": "", "stream": 0,
}
# Publishes of one prompt, and of one question of the audit.
ATTEMPTS_MAX = 5
# How long the gateway's record may take each time.
RECORD_S = 10
MAX_BYTES = 16384
HELD, FAULTS, REFUSED, UNREACHABLE, USAGE = 0, 1, 2, 3, 64
# MQTT 5 §3.2.2.2.
WHY_REFUSED = {134: "wrong user name or password", 135: "not authorised"}


def read(payload):
    """A frame with the fields that are looked at; None: it makes no sense, or is larger than was asked for."""
    try:
        frame = cbor2.loads(payload) if len(payload) <= MAX_BYTES else None
    except Exception:  # what strange bytes make of a decoder has many names, and a device goes on after each
        return None
    if not isinstance(frame, dict) or not isinstance(frame.get("id"), str) or not isinstance(frame.get("kind"), str):
        return None
    if frame["kind"] != "answer":
        return frame
    body = isinstance(frame["text"], str) if "text" in frame else "json" in frame
    return frame if body and isinstance(frame.get("provisional"), bool) else None


class Device:
    """One MQTT 5 client with its ledger. paho calls back in a thread of its own; `lock` guards what both touch."""

    def __init__(self, settings, number):
        self.set, self.name = settings, "%s-%d" % (settings["name"], number)
        self.dice = random.Random("%s %s" % (settings["seed"], number))
        self.boot = os.urandom(4).hex()
        self.lock, self.changed = threading.Lock(), threading.Condition()
        self.open, self.outcomes, self.records, self.repeats, self.strange = {}, {}, {}, 0, 0
        # Prompts with two outcomes that differ; questions of the audit that the gateway has taken.
        self.doubled, self.taken = {}, set()
        self.provisional = set()
        self.cut_ids, self.connected, self.met, self.refused = set(), threading.Event(), False, None
        self.repeats_left, self.due = {}, {}
        self.client = self._client()

    def _client(self):
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=self.name, protocol=mqtt.MQTTv5)
        if self.set["user"]:
            client.username_pw_set(self.set["user"], self.set["password"])
        client.will_set("fleet/%s" % self.name, b"lost", qos=1)
        client.reconnect_delay_set(1, 8)
        client.manual_ack_set(True)
        client.on_connect, client.on_message, client.on_disconnect = self._on_connect, self._on_message, self._on_gone
        client.on_subscribe, client.on_publish = self._on_subscribe, self._on_publish
        return client

    def _topic(self, what):
        return "tg/v1/%s/%s/%s" % (self.set["gateway"], what, self.name)

    def _on_connect(self, client, _with, _flags, reason, _properties):
        if reason.is_failure:
            self._refuse(WHY_REFUSED.get(reason.value, str(reason)))
            # Else paho would try again, and the gateway would take it for one who guesses.
            client.disconnect()
            return
        self.met = True
        client.subscribe(self._topic("answer"), qos=1)
        with self.lock:
            again = [(i, p) for i, p in self.open.items() if i not in self.outcomes]
        for prompt_id, payload in again:
            # The same bytes with the same id: answered once.
            client.publish(self._topic("prompt"), payload, qos=1)
        self.connected.set()

    def _on_subscribe(self, _client, _with, _mid, reasons, _properties):
        if any(reason.is_failure for reason in reasons):
            self._refuse("not our topic: the subscription was refused")

    def _on_publish(self, _client, _with, mid, _reason, _properties):
        with self.changed:
            self.taken.add(mid)
            self.changed.notify_all()

    def _refuse(self, why):
        with self.changed:
            self.refused = why
            self.changed.notify_all()
        self.connected.set()

    def _on_gone(self, *_):
        if not self.refused:
            self.connected.clear()

    def _on_message(self, client, _with, message):
        frame = read(message.payload) if message.topic == self._topic("answer") else None
        if frame is None:
            self.strange += 1
        elif frame["kind"] in ("answer", "error") and not frame.get("provisional"):
            self._outcome(frame)
        elif frame["kind"] == "answer":
            self.provisional.add(frame["id"])
        # Only now: acknowledged means taken.
        client.ack(message.mid, message.qos)

    def _outcome(self, frame):
        prompt_id, kind = frame["id"], frame["kind"]
        said = (kind, repr(frame.get("text", frame.get("json", frame.get("code")))))
        with self.changed:
            if prompt_id not in self.open:
                self.strange += 1
            elif prompt_id in self.outcomes:
                # The same outcome may come twice; a second one may not.
                self.repeats += 1
                self.records[prompt_id] = said
                if said != self.outcomes[prompt_id]:
                    self.doubled[prompt_id] = said
            elif self._may_repeat(prompt_id, frame):
                self.due[prompt_id] = time.monotonic() + frame["retry_after_ms"] / 1000
            else:
                self.outcomes[prompt_id] = said
            self.changed.notify_all()

    def _may_repeat(self, prompt_id, frame):
        """`busy` is no outcome: the same prompt with the same id a while later, a few times."""
        if frame.get("code") != "busy" or not isinstance(frame.get("retry_after_ms"), int):
            return False
        self.repeats_left[prompt_id] = self.repeats_left.get(prompt_id, ATTEMPTS_MAX) - 1
        return self.repeats_left[prompt_id] > 0

    def _repeat_due(self):
        for prompt_id in [i for i, when in self.due.items() if when <= time.monotonic()]:
            del self.due[prompt_id]
            self.client.publish(self._topic("prompt"), self.open[prompt_id], qos=1)

    def _pause(self):
        if self.set["arrivals"] == "burst":
            return 0
        return 1 / self.set["rate"] if self.set["arrivals"] == "steady" else self.dice.expovariate(self.set["rate"])

    def _ask(self, number):
        prompt_id = "%s-%d" % (self.boot, number)
        prompt = {"id": prompt_id, "input": self.set["text"], "max_bytes": MAX_BYTES, "deadline_ms": self.set["deadline_ms"]}
        if self.set["task"]:
            prompt["task"] = self.set["task"]
        if self.set["stream"]:
            prompt["stream"] = True
        payload = cbor2.dumps(prompt)
        with self.lock:
            self.open[prompt_id] = payload
        self.client.publish(self._topic("prompt"), payload, qos=1)
        if self.dice.random() < self.set["cuts"]:
            self.cut_ids.add(prompt_id)
            # No DISCONNECT: as if the radio were gone. paho connects again by itself.
            self._cut()

    def _cut(self):
        try:
            if sock := self.client.socket():
                sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            # It was cut already, and paho has not noticed yet.
            pass

    def run(self):
        self.client.connect_async(self.set["host"], self.set["port"], keepalive=30)
        self.client.loop_start()
        end = time.monotonic() + (self.set["deadline_ms"] + self.set["grace_ms"]) / 1000
        self.connected.wait(end - time.monotonic())
        if self.met and not self.refused:
            for number in range(1, self.set["prompts"] + 1):
                time.sleep(self._pause())
                self._ask(number)
            end = time.monotonic() + (self.set["deadline_ms"] + self.set["grace_ms"]) / 1000
            self._wait(end, lambda: len(self.outcomes) == len(self.open) or self.refused)
            if not self.refused:
                self._audit()
        self.client.disconnect()
        self.client.loop_stop()

    def _wait(self, end, done):
        """Whether it is done."""
        while True:
            with self.changed:
                if done() or time.monotonic() >= end:
                    return done()
                self.changed.wait(max(min(end - time.monotonic(), 0.1), 0))
            self._repeat_due()

    def _audit(self):
        """Asks the gateway for its record of each prompt, one by one: `fetch` is a QoS 1 copy. What the gateway sent before
        it took the question is heard by then."""
        self.connected.wait(self.set["grace_ms"] / 1000)
        self.records.clear()
        for prompt_id in list(self.outcomes):
            for _ in range(ATTEMPTS_MAX):
                question = cbor2.dumps({"op": "fetch", "id": prompt_id})
                mid = self.client.publish(self._topic("control"), question, qos=1).mid
                if self._wait(time.monotonic() + RECORD_S, lambda: mid in self.taken and prompt_id in self.records):
                    break

    def faults(self):
        """What is not as it must be, in words."""
        for prompt_id in self.open:
            if prompt_id not in self.outcomes:
                yield "%s %s has no outcome" % (self.name, prompt_id)
            elif prompt_id in self.doubled:
                yield "%s %s has a second outcome: first %s, then %s" % (
                    self.name, prompt_id, self.outcomes[prompt_id], self.doubled[prompt_id])
            elif self.records.get(prompt_id) != self.outcomes[prompt_id]:
                yield "%s %s: the device has %s, the gateway %s" % (
                    self.name, prompt_id, self.outcomes[prompt_id], self.records.get(prompt_id))


def settings(pairs):
    found = dict(SETTINGS)
    for pair in pairs:
        key, _, value = pair.partition("=")
        try:
            found[key] = type(found[key])(value)
        except (KeyError, ValueError):
            print("end", USAGE, "not a setting:", pair)
            raise SystemExit(USAGE)
    return found


def end(devices, faults):
    """Status and why."""
    if refused := [device.refused for device in devices if device.refused]:
        return REFUSED, refused[0]
    if not all(device.met for device in devices):
        return UNREACHABLE, "no connection in time"
    return (FAULTS, "the audit found faults") if faults else (HELD, "each prompt has its one outcome")


def main(pairs):
    chosen = settings(pairs)
    devices = [Device(chosen, number) for number in range(1, chosen["devices"] + 1)]
    threads = [threading.Thread(target=device.run) for device in devices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    faults = [fault for device in devices for fault in device.faults()]
    for fault in faults:
        print(fault)
    answers = sum(kind == "answer" for device in devices for kind, _ in device.outcomes.values())
    print("provisional: %d" % sum(len(device.provisional) for device in devices))
    print("fleet: %d prompts, %d answers, %d errors, %d cuts, %d faults" % (
        sum(len(device.open) for device in devices), answers,
        sum(len(device.outcomes) for device in devices) - answers,
        sum(len(device.cut_ids) for device in devices), len(faults)))
    status, why = end(devices, faults)
    print("end", status, why)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
