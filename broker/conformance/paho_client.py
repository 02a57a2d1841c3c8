"""Eclipse's Python client against the door: every case in both protocol versions, and in the clear and through TLS.

The rig `conformance` sets the environment. Each case prints one line, `ok NAME` or `FAILED NAME: why`."""

import os
import queue
import sys
import uuid

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

PATIENCE = 30
QUIET = 1.0
V4, V5 = mqtt.MQTTv311, mqtt.MQTTv5
BELOW = os.environ["DOOR_TOPICS"]


class Place:
    """How a client comes to the door, and whose device it is there."""

    def __init__(self, name, port, device, tls=False, certificate=False, login=None):
        self.name, self.port, self.device = name, int(os.environ[port]), device
        self.tls, self.certificate, self.login = tls, certificate, login


PLACES = [
    Place("plain", "DOOR_PORT", "local-paho"),
    Place("tls, password", "DOOR_TLS_PORT", "d7", tls=True, login=("d7", os.environ["DOOR_PASSWORD"])),
    Place("tls, certificate", "DOOR_TLS_PORT", "d8", tls=True, certificate=True),
]


class Client:
    """A client whose events come out of queues."""

    def __init__(self, place, version, client_id=None, clean=True, expiry=None, will=None, login=None):
        client_id = uuid.uuid4().hex if client_id is None else client_id
        options = {} if version == V5 else {"clean_session": clean}
        self.version, self.place = version, place
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=version, **options)
        self.connacks, self.messages, self.acks, self.ends = (queue.Queue() for _ in range(4))
        self.subacks = queue.Queue()
        self.client.on_connect = lambda _c, _u, flags, code, props: self.connacks.put((flags, code, props))
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        self.client.on_subscribe = lambda _c, _u, _id, codes, _p: self.subacks.put(codes)
        self.client.on_publish = lambda _c, _u, mid, code, props: self.acks.put((mid, code, props))
        self.client.on_disconnect = lambda _c, _u, _f, code, _p: self.ends.put(code)
        self.client.reconnect_delay_set(PATIENCE, PATIENCE)
        if place.tls:
            pair = {"certfile": os.environ["DOOR_CERT"], "keyfile": os.environ["DOOR_KEY"]}
            self.client.tls_set(os.environ["DOOR_CA"], **(pair if place.certificate else {}))
        if login or place.login:
            self.client.username_pw_set(*(login or place.login))
        if will:
            self.client.will_set(*will)
        self.connect_options = {}
        if version == V5:
            properties = Properties(PacketTypes.CONNECT)
            if expiry is not None:
                properties.SessionExpiryInterval = expiry
            self.connect_options = {"clean_start": clean, "properties": properties}

    def connect(self):
        self.client.connect("localhost", self.place.port, 60, **self.connect_options)
        self.client.loop_start()
        return self.connacks.get(timeout=PATIENCE)

    def enter(self):
        flags, code, self.announced = self.connect()
        assert not code.is_failure, f"CONNACK says {code}"
        self.present = flags.session_present
        return self

    def subscribe(self, topic, qos=1, **options):
        what = (topic, SubscribeOptions(qos=qos, **options)) if self.version == V5 else (topic, qos)
        self.client.subscribe([what])
        return self.subacks.get(timeout=PATIENCE)[0]

    def publish(self, topic, payload, qos=1, retain=False, properties=None):
        sent = self.client.publish(topic, payload, qos, retain, properties)
        while True:
            mid, code, _ = self.acks.get(timeout=PATIENCE)
            if mid == sent.mid:
                return code

    def message(self, patience=PATIENCE):
        try:
            return self.messages.get(timeout=patience)
        except queue.Empty:
            return None

    def outcome(self, name):
        while True:
            message = self.message()
            assert message, f"no outcome of {name} came"
            text = message.payload.decode()
            if f'"{name}"' in text and '"kind":"answer"' in text:
                return message

    def leave(self):
        self.client.disconnect()
        self.client.loop_stop()

    def die(self):
        self.client.loop_stop()
        self.client.socket().shutdown(2)
        self.client._sock_close()


def prompt_topic(place):
    return f"{BELOW}/prompt/{place.device}"


def answer_topic(place):
    return f"{BELOW}/answer/{place.device}"


def prompt(name):
    return f'{{"id":"{name}","task":"intent","input":"how warm is it"}}'


def name():
    return uuid.uuid4().hex[:12]


def a_prompt_is_accepted_and_answered(place, version):
    client = Client(place, version).enter()
    assert client.subscribe(answer_topic(place)) == 1
    for qos in (0, 1, 2):
        which = name()
        client.publish(prompt_topic(place), prompt(which), qos)
        client.outcome(which)
    client.leave()


def general_messages_come_at_every_qos(place, version):
    topic = f"conformance/{name()}"
    reader, writer = Client(place, version).enter(), Client(place, version).enter()
    assert reader.subscribe(topic, 1) == 1
    for qos in (0, 1, 2):
        code = writer.publish(topic, f"at {qos}", qos)
        assert not code.is_failure, code
        message = reader.message()
        assert message.payload == f"at {qos}".encode() and not message.retain
    reader.leave(), writer.leave()


def a_retained_message_waits_and_can_be_cleared(place, version):
    topic = f"conformance/{name()}"
    writer = Client(place, version).enter()
    writer.publish(topic, "kept", 1, True)
    reader = Client(place, version).enter()
    reader.subscribe(topic)
    message = reader.message()
    assert message.payload == b"kept" and message.retain, message
    writer.publish(topic, "", 1, True)
    late = Client(place, version).enter()
    late.subscribe(topic)
    assert late.message(QUIET) is None
    reader.leave(), writer.leave(), late.leave()


def an_unsubscribed_filter_brings_nothing(place, version):
    topic = f"conformance/{name()}"
    client = Client(place, version).enter()
    client.subscribe(topic)
    done = queue.Queue()
    client.client.on_unsubscribe = lambda *_: done.put(True)
    client.client.unsubscribe(topic)
    done.get(timeout=PATIENCE)
    client.publish(topic, "unheard")
    assert client.message(QUIET) is None
    client.leave()


def a_session_is_kept_over_a_reconnect(place, version):
    topic, who = f"conformance/{name()}", f"kept-{name()}"
    first = Client(place, version, who, clean=False, expiry=600).enter()
    assert not first.present
    first.subscribe(topic)
    first.leave()
    writer = Client(place, version).enter()
    for number in range(5):
        writer.publish(topic, str(number))
    again = Client(place, version, who, clean=False, expiry=600).enter()
    assert again.present, "the session is not there"
    assert [again.message().payload for _ in range(5)] == [str(n).encode() for n in range(5)]
    again.leave()
    fresh = Client(place, version, who, clean=True).enter()
    assert not fresh.present, "a clean start finds a session"
    fresh.leave(), writer.leave()


def an_outcome_waits_for_a_device_that_was_away(place, version):
    who, which = f"away-{name()}", name()
    first = Client(place, version, who, clean=False, expiry=600).enter()
    first.subscribe(answer_topic(place))
    first.leave()
    other = Client(place, version).enter()
    other.publish(prompt_topic(place), prompt(which))
    other.leave()
    again = Client(place, version, who, clean=False, expiry=600).enter()
    again.outcome(which)
    again.leave()


def a_will_is_published_when_its_client_dies(place, version):
    topic = f"conformance/{name()}"
    watcher = Client(place, version).enter()
    watcher.subscribe(topic)
    polite = Client(place, version, will=(topic, "polite", 1, False)).enter()
    polite.leave()
    rude = Client(place, version, will=(topic, "rude", 1, False)).enter()
    rude.die()
    assert watcher.message().payload == b"rude"
    watcher.leave()


def a_client_id_is_taken_over(place, version):
    who = f"twice-{name()}"
    first = Client(place, version, who).enter()
    second = Client(place, version, who).enter()
    code = first.ends.get(timeout=PATIENCE)
    assert version == V4 or code.value == 0x8E, code
    first.client.loop_stop()
    second.leave()


def what_is_not_allowed_has_a_reason(place, version):
    client = Client(place, version).enter()
    denied = client.subscribe(f"{BELOW}/answer/somebody-else")
    assert denied.value == (0x87 if version == V5 else 0x80), denied
    if version == V5:
        code = client.publish(f"{BELOW}/prompt/somebody-else", prompt(name()))
        assert code.value == 0x87, code
    client.leave()


def properties_of_mqtt_5_are_kept(place, version):
    if version == V4:
        return
    client = Client(place, version, client_id="", expiry=0).enter()
    announced = client.announced
    assert announced.AssignedClientIdentifier, "no client id was assigned"
    assert announced.ReceiveMaximum > 0 and announced.MaximumPacketSize > 65536
    client.subscribe(answer_topic(place))
    properties = Properties(PacketTypes.PUBLISH)
    properties.CorrelationData, properties.MessageExpiryInterval = b"\x00\x01", 60
    properties.ResponseTopic = answer_topic(place)
    which = name()
    assert not client.publish(prompt_topic(place), prompt(which), 1, False, properties).is_failure
    accepted = client.message()
    assert accepted.properties.CorrelationData == b"\x00\x01", accepted.payload
    client.outcome(which)
    client.leave()


def a_wrong_password_is_refused(place, version):
    if place.certificate:
        return
    _, code, _ = Client(place, version, login=("d7", "wrong")).connect()
    assert code.value in (0x86, 4), code


CASES = [
    a_prompt_is_accepted_and_answered,
    general_messages_come_at_every_qos,
    a_retained_message_waits_and_can_be_cleared,
    an_unsubscribed_filter_brings_nothing,
    a_session_is_kept_over_a_reconnect,
    an_outcome_waits_for_a_device_that_was_away,
    a_will_is_published_when_its_client_dies,
    a_client_id_is_taken_over,
    what_is_not_allowed_has_a_reason,
    properties_of_mqtt_5_are_kept,
    a_wrong_password_is_refused,
]


def main():
    failed = 0
    for place in PLACES:
        for version in (V4, V5):
            for case in CASES:
                title = f"paho: {case.__name__} ({place.name}, {'5' if version == V5 else '3.1.1'})"
                try:
                    case(place, version)
                    print(f"ok {title}", flush=True)
                except Exception as error:  # whatever it is, it is the case's
                    failed += 1
                    print(f"FAILED {title}: {type(error).__name__} {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
