"""What each example must do. A case raises AssertionError; it gets the device and the World."""

import json
import re
import time

import mqtt
import wrong
from gateway import GATEWAY, PASSWORD, SERVER, Cut, Stranger, free_port

TEXT = "turn off the lights in the packing hall"
# Generous, for machines that do other things besides: what is slow is no fault here, what never ends is.
PATIENT_MS = 60000


class World:
    """What the cases share: the agent, and where images and CAs lie."""

    def __init__(self, gateway, work):
        self.gateway, self.work = gateway, work

    def port(self, device):
        return self.gateway.tls_port if "tls" in device.parts else self.gateway.port


def login(name="press-1"):
    return {"device": name, "user": name, "password": PASSWORD}


def check(truth, *what):
    if not truth:
        raise AssertionError(" ".join(str(part) for part in what))


def same_body(shown, record):
    """What the device showed is what the agent has."""
    if "text" in record:
        return shown == record["text"]
    return json.loads(shown) == record["json"]


def answered(result, world, name="press-1"):
    """Status 0, and the agent's record of that id says the same."""
    check(result.status == 0, "status", result.status, "\n" + result.output)
    check(re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", result.id or ""), "id", result.id)
    record = world.gateway.record(name, result.id)
    check(record["kind"] == "answer" and record["provisional"] is False, "record", record)
    route, shown = result.answer()
    check(route in ("local", "stored"), "route", route)
    check(same_body(shown, record), "shown", shown, "record", record)
    return record


def a_prompt_is_answered(device, world):
    for encoding in device.encodings:
        how = {"encoding": encoding} if len(device.encodings) > 1 else {}
        answered(device.run(world.port(device), **login(), text=TEXT, deadline_ms=PATIENT_MS, **how), world)


def bare_text_is_answered(device, world):
    """A second session of the device listens: bare text has no id to fetch by."""
    watch = mqtt.Client(world.gateway.port, "watch", "press-1", PASSWORD)
    watch.subscribe(f"tg/v1/{GATEWAY}/answer/press-1")
    result = device.run(world.port(device), **login(), text=TEXT, deadline_ms=PATIENT_MS, bare=1)
    check(result.status == 0, "status", result.status, result.output)
    heard = watch.message(10)[1].decode()
    watch.close()
    check(result.answer()[1] == heard, "shown", result.answer(), "sent", heard)


def tokens_are_shown_as_they_come(device, world):
    result = device.run(world.port(device), **login(), text=TEXT, deadline_ms=PATIENT_MS, stream=1)
    record = answered(result, world)
    tokens = result.said("token")
    check(tokens, "no token was shown", result.output)
    check(all(later.startswith(earlier) for earlier, later in zip(tokens, tokens[1:])), "tokens", tokens)
    check("HassTurnOff" in tokens[-1] and record["json"]["intent"] == "HassTurnOff", "tokens", tokens[-1])


def after_a_cut_the_same_id_gets_the_stored_outcome(device, world):
    """The will is published too: the connection ended without DISCONNECT."""
    cut = Cut(world.gateway.port).open()
    watch = mqtt.Client(world.gateway.port, "watch", "press-2", PASSWORD)
    watch.subscribe("device/press-1/state")
    result = device.run(cut.port, **login(), text=TEXT, deadline_ms=PATIENT_MS, will="device/press-1/state")
    cut.close()
    check(cut.cuts == 1 and cut.connections == 2, cut.cuts, "cuts", cut.connections, "connections")
    record = answered(result, world)
    check(record["id"] == result.id and len(result.said("id")) == 1, "ids", result.output)
    check(watch.message(10)[1] == b"lost", "no will")
    watch.close()


def absent_then_there(device, world):
    door = Cut(world.gateway.port, cut=False)
    run = device.start(door.port, **login(), text=TEXT, deadline_ms=PATIENT_MS, attempts=20)
    time.sleep(1.5)
    check(run.child.poll() is None, "gave up at once")
    door.open()
    answered(run.wait(), world)
    door.close()


def absent(device, _world):
    result = device.run(free_port(), **login(), text=TEXT, deadline_ms=PATIENT_MS, attempts=2)
    check(result.status == 3, "status", result.status, result.output)


def a_wrong_password_is_refused_and_said(device, world):
    result = device.run(world.port(device), **{**login(), "password": "ebb"}, text=TEXT, deadline_ms=PATIENT_MS)
    check(result.status == 2, "status", result.status, result.output)
    check("wrong user name or password" in result.said("end")[-1], result.output)
    # The agent lets nobody try passwords without end; a good login of the same address clears it.
    time.sleep(0.1)
    mqtt.Client(world.gateway.port, "again", "press-1", PASSWORD).close()


def a_topic_of_others_is_refused_and_said(device, world):
    settings = {**login(), "device": "press-8"}
    result = device.run(world.port(device), **settings, text=TEXT, deadline_ms=PATIENT_MS)
    check(result.status == 2, "status", result.status, result.output)
    check("not our topic" in result.said("end")[-1], result.output)


def an_answer_larger_than_the_buffer(device, world):
    """The agent says so within the buffer, and keeps the answer."""
    result = device.run(world.port(device), **login(), text=TEXT, deadline_ms=PATIENT_MS, buffer=device.small_buffer)
    check(result.status == 2, "status", result.status, result.output)
    check(result.said("error") and result.said("error")[0].startswith("too_large"), result.output)
    check(world.gateway.record("press-1", result.id)["kind"] == "answer", "the answer is gone")


def the_link_to_the_cloud_is_down(device, world):
    """Not sure enough, and nobody to ask: a provisional answer, and the final one when the deadline comes."""
    result = device.run(world.port(device), **login(), text="why is it cold", task="intent", deadline_ms=8000)
    record = answered(result, world)
    check(record["reason"] in ("cloud_silent", "link_down", "low_confidence"), record)


def eight_devices_at_once(device, world):
    names = ["press-%d" % n for n in range(1, 9)]
    runs = [device.start(world.port(device), **login(name), text=TEXT, deadline_ms=PATIENT_MS) for name in names]
    for name, run in zip(names, runs):
        answered(run.wait(), world, name)


def a_certificate_of_another_name_is_refused(device, world):
    result = device.run(world.port(device), **login(), text=TEXT, deadline_ms=PATIENT_MS, attempts=1,
                        server="other.example")
    check(result.status == 3 and "another name" in result.said("end")[-1], result.status, result.output)


def a_certificate_of_another_ca_is_refused(device, world):
    stranger = Stranger(world.work.folder("stranger"))
    result = device.run(stranger.port, **login(), text=TEXT, deadline_ms=PATIENT_MS, attempts=1, server=SERVER)
    stranger.close()
    check(result.status == 3 and "not lead to our CA" in result.said("end")[-1], result.status, result.output)


def wrong_bytes(script):
    statuses, text = wrong.SCRIPTS[script]

    def case(device, _world):
        gateway = wrong.WrongGateway(script)
        # Where nothing comes, the device's own deadline must end it.
        deadline_ms = 20000 if 0 in statuses or 2 in statuses else 1000
        streams = {"stream": 1} if script is wrong.gaps and "stream" in device.parts else {}
        result = device.run(gateway.port, device="press-1", text=TEXT, id="t-1", attempts=3, deadline_ms=deadline_ms,
                            **streams)
        gateway.close()
        check(result.status in statuses, "status", result.status, "allowed", statuses, "\n" + result.output)
        check("never shown" not in result.output and "LOST" not in result.output, result.output)
        check(all(prompt == gateway.prompts[0] for prompt in gateway.prompts), "the prompt changed", gateway.prompts)
        if text is not None:
            check(result.answer()[1] == text, "shown", result.output)
        if script is wrong.truncated:
            check(101 in gateway.acknowledged, "what makes no sense was not acknowledged")

    case.__name__ = "wrong_" + script.__name__
    return case


def a_fleet_loses_nothing(device, world):
    """Each pattern of arrivals, with connections cut; the fleet's own audit is by `fetch`."""
    for arrivals, cuts in (("burst", 0), ("poisson", 0.3), ("steady", 0.3)):
        result = device.run(world.gateway.port, name=f"local-{arrivals}", arrivals=arrivals, cuts=cuts, devices=4,
                            prompts=3, rate=4, deadline_ms=PATIENT_MS, text=TEXT)
        check(result.status == 0, "status", result.status, result.output)
        check("fleet: 12 prompts, 12 answers, 0 errors" in result.output, result.output)


PLAIN = [
    a_prompt_is_answered, after_a_cut_the_same_id_gets_the_stored_outcome, absent_then_there, absent,
    a_wrong_password_is_refused_and_said, a_topic_of_others_is_refused_and_said, eight_devices_at_once,
]
BY_PART = {
    "bare": [bare_text_is_answered],
    "stream": [tokens_are_shown_as_they_come],
    "buffer": [an_answer_larger_than_the_buffer],
    "tasks": [the_link_to_the_cloud_is_down],
}
TLS = [
    a_prompt_is_answered, tokens_are_shown_as_they_come, a_certificate_of_another_name_is_refused,
    a_certificate_of_another_ca_is_refused, a_wrong_password_is_refused_and_said,
]


def of(device):
    """The cases of a device."""
    if "tls" in device.parts:
        return TLS
    if "fleet" in device.parts:
        return [a_fleet_loses_nothing]
    parts = [case for part, cases in BY_PART.items() if part in device.parts for case in cases]
    return PLAIN + parts + [wrong_bytes(script) for script in wrong.SCRIPTS]
