"""What each example must do. A case raises AssertionError; it gets the device and the World."""

import json
import re
import time

import mqtt
import wrong
from gateway import DEVICES_EACH, GATEWAY, PASSWORD, SERVER, Cut, Port, Stranger, device_name

TEXT = "turn off the lights in the packing hall"
# Generous, for machines that do other things besides: what is slow is no fault here, what never ends is.
PATIENT_MS = 60000
# Where nothing comes, the device's own deadline must end it. Before it stands the connection, which may be slow here.
SILENT_MS = 8000
# Where the gateway waits for the deadline: long enough for a prompt to run before it on any machine.
ESCALATED_MS = 15000


class World:
    """What the cases share: the agent, and where images and CAs lie."""

    def __init__(self, gateway, work):
        self.gateway, self.work = gateway, work

    def port(self, device):
        return self.gateway.tls_port if "tls" in device.parts else self.gateway.port


def login(device, n=1):
    name = device_name(device.number, n)
    return {"device": name, "user": name, "password": PASSWORD}


def check(truth, *what):
    if not truth:
        raise AssertionError(" ".join(str(part) for part in what))


def same_body(shown, record):
    """What the device showed is what the agent has."""
    if "text" in record:
        return shown == record["text"]
    return json.loads(shown) == record["json"]


def answered(result, world, device, n=1):
    """Status 0, and the agent's record of that id says the same."""
    check(result.status == 0, "status", result.status, "\n" + result.output)
    check(re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", result.id or ""), "id", result.id)
    record = world.gateway.record(device_name(device.number, n), result.id)
    check(record["kind"] == "answer" and record["provisional"] is False, "record", record)
    route, shown = result.answer()
    check(route in ("local", "stored"), "route", route)
    check(same_body(shown, record), "shown", shown, "record", record)
    return record


def a_prompt_is_answered(device, world):
    for encoding in device.encodings:
        how = {"encoding": encoding} if len(device.encodings) > 1 else {}
        answered(device.run(world.port(device), **login(device), text=TEXT, deadline_ms=PATIENT_MS, **how), world, device)


def bare_text_is_answered(device, world):
    """A second session of the device listens: bare text has no id to fetch by."""
    name = device_name(device.number, 1)
    watch = mqtt.Client(world.gateway.port, f"watch-{name}", name, PASSWORD)
    watch.subscribe(f"tg/v1/{GATEWAY}/answer/{name}")
    result = device.run(world.port(device), **login(device), text=TEXT, deadline_ms=PATIENT_MS, bare=1)
    check(result.status == 0, "status", result.status, result.output)
    heard = watch.message()[1].decode()
    watch.close()
    check(result.answer()[1] == heard, "shown", result.answer(), "sent", heard)


def tokens_are_shown_as_they_come(device, world):
    result = device.run(world.port(device), **login(device), text=TEXT, deadline_ms=PATIENT_MS, stream=1)
    record = answered(result, world, device)
    tokens = result.said("token")
    check(tokens, "no token was shown", result.output)
    check(all(later.startswith(earlier) for earlier, later in zip(tokens, tokens[1:])), "tokens", tokens)
    check("HassTurnOff" in tokens[-1] and record["json"]["intent"] == "HassTurnOff", "tokens", tokens[-1])


def after_a_cut_the_same_id_gets_the_stored_outcome(device, world):
    """The will is published too: the connection ended without DISCONNECT."""
    cut = Cut(world.port(device), tls=world.gateway.server_files if "tls" in device.parts else None).open()
    will, watcher = f"device/{device_name(device.number, 1)}/state", device_name(device.number, 2)
    watch = mqtt.Client(world.gateway.port, f"watch-{watcher}", watcher, PASSWORD)
    watch.subscribe(will)
    result = device.run(cut.port, **login(device), text=TEXT, deadline_ms=PATIENT_MS, will=will)
    cut.close()
    check(cut.cuts == 1 and cut.connections == 2, cut.cuts, "cuts", cut.connections, "connections")
    record = answered(result, world, device)
    check(record["id"] == result.id and len(result.said("id")) == 1, "ids", result.output)
    check(watch.message()[1] == b"lost", "no will")
    watch.close()


def absent_then_there(device, world):
    door = Cut(world.port(device), cut=False)
    run = device.start(door.port, **login(device), text=TEXT, deadline_ms=PATIENT_MS, attempts=20)
    time.sleep(1.5)
    check(run.child.poll() is None, "gave up at once")
    door.open()
    answered(run.wait(), world, device)
    door.close()


def absent(device, _world):
    nobody = Port()
    result = device.run(nobody.number, **login(device), text=TEXT, deadline_ms=PATIENT_MS, attempts=2)
    nobody.close()
    check(result.status == 3, "status", result.status, result.output)


def no_other_port_can_be_reached(device, world):
    """The gateway listens at the other port, and would answer."""
    nobody = Port()
    result = device.start_astray(nobody.number, world.port(device), **login(device), text=TEXT, deadline_ms=SILENT_MS,
                                 attempts=1).wait()
    nobody.close()
    check(result.status == 3, "status", result.status, result.output)


def a_wrong_password_is_refused_and_said(device, world):
    result = device.run(world.port(device), **{**login(device), "password": "ebb"}, text=TEXT, deadline_ms=PATIENT_MS)
    check(result.status == 2, "status", result.status, result.output)
    check("wrong user name or password" in result.said("end")[-1], result.output)
    # The agent lets nobody try passwords without end; a good login of the same address clears it.
    mqtt.Client(world.gateway.port, "again", device_name(device.number, 1), PASSWORD).close()


def a_topic_of_others_is_refused_and_said(device, world):
    settings = {**login(device), "device": device_name(device.number, 8)}
    result = device.run(world.port(device), **settings, text=TEXT, deadline_ms=PATIENT_MS)
    check(result.status == 2, "status", result.status, result.output)
    check("not our topic" in result.said("end")[-1], result.output)


def an_answer_larger_than_the_buffer(device, world):
    """The agent says so within the buffer, and keeps the answer."""
    result = device.run(world.port(device), **login(device), text=TEXT, deadline_ms=PATIENT_MS, buffer=device.small_buffer)
    check(result.status == 2, "status", result.status, result.output)
    check(result.said("error") and result.said("error")[0].startswith("too_large"), result.output)
    check(world.gateway.record(device_name(device.number, 1), result.id)["kind"] == "answer", "the answer is gone")


def the_link_to_the_cloud_is_down(device, world):
    """Not sure enough, and nobody to ask: a provisional answer, and the final one when the deadline comes."""
    result = device.run(world.port(device), **login(device), text="why is it cold", task="intent",
                        deadline_ms=ESCALATED_MS, grace_ms=PATIENT_MS)
    record = answered(result, world, device)
    check(result.said("provisional"), "no provisional answer", result.output)
    check(record["reason"] in ("cloud_silent", "link_down", "low_confidence"), record)


def eight_devices_at_once(device, world):
    numbers = range(1, DEVICES_EACH + 1)
    runs = [device.start(world.port(device), **login(device, n), text=TEXT, deadline_ms=PATIENT_MS) for n in numbers]
    for n, run in zip(numbers, runs):
        answered(run.wait(), world, device, n)


def a_certificate_of_another_name_is_refused(device, world):
    result = device.run(world.port(device), **login(device), text=TEXT, deadline_ms=PATIENT_MS, attempts=1,
                        server="other.example")
    check(result.status == 3 and "another name" in result.said("end")[-1], result.status, result.output)


def a_certificate_of_another_ca_is_refused(device, world):
    stranger = Stranger(world.work.folder(f"stranger-{device.number}"))
    result = device.run(stranger.port, **login(device), text=TEXT, deadline_ms=PATIENT_MS, attempts=1, server=SERVER)
    stranger.close()
    check(result.status == 3 and "not lead to our CA" in result.said("end")[-1], result.status, result.output)


def deadline_ms(status):
    return SILENT_MS if status == 1 else PATIENT_MS


def wrong_bytes(script):
    status = wrong.SCRIPTS[script]

    def case(device, _world):
        gateway = wrong.WrongGateway(script)
        streams = {"stream": 1} if script is wrong.gaps and "stream" in device.parts else {}
        result = device.run(gateway.port, device="press-1", text=TEXT, id="t-1", attempts=3,
                            deadline_ms=deadline_ms(status), **streams)
        gateway.close()
        check(result.status == status, "status", result.status, "expected", status, "\n" + result.output)
        check("never shown" not in result.output and "LOST" not in result.output, result.output)
        check(gateway.prompts, "no prompt came", result.output)
        check(all(prompt == gateway.prompts[0] for prompt in gateway.prompts), "the prompt changed", gateway.prompts)
        if status == 0:
            check(result.answer()[1] == wrong.GOOD, "shown", result.output)
            check(gateway.good_ids & gateway.acknowledged, "the outcome was not acknowledged", gateway.acknowledged)
        if script is wrong.truncated:
            check(101 in gateway.acknowledged, "what makes no sense was not acknowledged")

    case.__name__ = "wrong_" + script.__name__
    return case


def a_fleet_loses_nothing(device, world):
    """Each pattern of arrivals, with connections cut; the fleet's own audit is by `fetch`. A cut brings the last will."""
    watcher = device_name(device.number, 2)
    watch = mqtt.Client(world.gateway.port, f"watch-{watcher}", watcher, PASSWORD)
    watch.subscribe("fleet/#")
    for arrivals, cuts in (("burst", 0), ("poisson", 0.3), ("steady", 0.3)):
        result = device.run(world.gateway.port, name=f"local-{arrivals}", arrivals=arrivals, cuts=cuts, devices=8,
                            prompts=2, rate=4, deadline_ms=PATIENT_MS, text=TEXT)
        check(result.status == 0, "status", result.status, result.output)
        check("fleet: 16 prompts, 16 answers, 0 errors" in result.output, result.output)
    check(watch.message()[1] == b"lost", "no will")
    watch.close()


def fleet_of_one(device, port, **settings):
    return device.start(port, **{"devices": 1, "prompts": 1, "arrivals": "burst", "deadline_ms": PATIENT_MS,
                                 "text": TEXT, **settings})


def a_fleet_waits_for_its_gateway(device, world):
    door = Cut(world.gateway.port, cut=False)
    run = fleet_of_one(device, door.port, name="local-late")
    time.sleep(1.5)
    check(run.child.poll() is None, "gave up at once")
    door.open()
    result = run.wait()
    door.close()
    check(result.status == 0 and "1 answers" in result.output, result.status, result.output)


def a_fleet_without_a_gateway_says_so(device, _world):
    nobody = Port()
    result = fleet_of_one(device, nobody.number, deadline_ms=1000).wait()
    nobody.close()
    check(result.status == 3 and result.said("end"), result.status, result.output)


def a_fleet_is_refused_and_says_why(device, world):
    name = device_name(device.number, 1)
    wrong_password = fleet_of_one(device, world.gateway.port, name="press", user=name, password="ebb").wait()
    check(wrong_password.status == 2, wrong_password.status, wrong_password.output)
    check("wrong user name or password" in wrong_password.said("end")[-1], wrong_password.output)
    mqtt.Client(world.gateway.port, "again", name, PASSWORD).close()
    not_its_topic = fleet_of_one(device, world.gateway.port, name="press", user=name, password=PASSWORD).wait()
    check(not_its_topic.status == 2, not_its_topic.status, not_its_topic.output)
    check("not our topic" in not_its_topic.said("end")[-1], not_its_topic.output)


def a_fleet_waits_for_the_final_answer(device, world):
    """The link to the cloud is down: provisional answers first, and each prompt's one outcome when its deadline comes."""
    result = fleet_of_one(device, world.gateway.port, name="local-down", text="why is it cold", task="intent",
                          devices=4, deadline_ms=ESCALATED_MS, grace_ms=PATIENT_MS).wait()
    check(result.status == 0, "status", result.status, result.output)
    check("provisional: 4" in result.output and "fleet: 4 prompts, 4 answers, 0 errors" in result.output, result.output)


def fleet_wrong_bytes(script):
    # A second outcome is a fault of the gateway, a refusal is an outcome too, and who never heard it was silent.
    status = {wrong.duplicate: 1, wrong.refuses: 0, wrong.garbage: 1}.get(script, wrong.SCRIPTS[script])

    def case(device, _world):
        gateway = wrong.WrongGateway(script)
        result = fleet_of_one(device, gateway.port, deadline_ms=deadline_ms(status)).wait()
        gateway.close()
        check(result.status == status, "status", result.status, "expected", status, "\n" + result.output)
        check("never shown" not in result.output and "Traceback" not in result.output, result.output)
        if script is wrong.duplicate:
            check("has a second outcome" in result.output, result.output)

    case.__name__ = "wrong_" + script.__name__
    return case


PLAIN = [
    a_prompt_is_answered, after_a_cut_the_same_id_gets_the_stored_outcome, absent_then_there, absent,
    a_topic_of_others_is_refused_and_said, eight_devices_at_once,
]
BY_PART = {
    "bare": [bare_text_is_answered],
    "stream": [tokens_are_shown_as_they_come],
    "buffer": [an_answer_larger_than_the_buffer],
    "tasks": [the_link_to_the_cloud_is_down],
    "tls": [a_certificate_of_another_name_is_refused, a_certificate_of_another_ca_is_refused],
}
WAITING = {f"wrong_{script.__name__}" for script, status in wrong.SCRIPTS.items() if status == 1}
FLEET = [a_fleet_loses_nothing, a_fleet_waits_for_its_gateway, a_fleet_without_a_gateway_says_so,
         a_fleet_waits_for_the_final_answer]


def waits(case):
    """Whether all that the device does is to wait for its deadline: such cases go side by side."""
    return case.__name__ in WAITING


def of(device):
    """The cases of a device that others may be tried beside."""
    if "fleet" in device.parts:
        return FLEET + [fleet_wrong_bytes(script) for script in wrong.SCRIPTS]
    parts = [case for part, cases in BY_PART.items() if part in device.parts for case in cases]
    # The scripted gateway speaks no TLS, and the bytes of a frame are the same.
    scripts = [] if "tls" in device.parts else wrong.SCRIPTS
    astray = [no_other_port_can_be_reached] if device.outside else []
    return PLAIN + astray + parts + [wrong_bytes(script) for script in scripts]


def alone(device):
    """After a wrong password the gateway is slow with all who come from the same address, as are all here."""
    return [a_fleet_is_refused_and_says_why if "fleet" in device.parts else a_wrong_password_is_refused_and_said]
