"""Rewrites the action lines with other names and numbers, alike in prompt and answer."""

import json
import re
from random import Random

import names
from names import Namer
from rows import Row
from vocabulary import CLOSED_STATES

NAME_KEYS = ("name", "area", "floor", "item", "search_query", "message", "conversation_command", "color", "state")
# What devices report, and the word for every device: these mean something, so no other word can stand for them.
FIXED_VALUES = ("all", *CLOSED_STATES)
# How often a name fits its device; the rest keeps the model reading the sentence and not only the name.
HINT_SHARE = 0.85
KEEP_SHARE = 0.1
# Intents whose `name` is not a device, or is a device of one kind.
NAME_KIND_OF_INTENT = {
    "HassVacuumStart": "rover|roomba|robot|vacuum|robovac|dusty|hoover".split("|"),
    "HassVacuumReturnToBase": "rover|roomba|robot|vacuum|robovac|dusty|hoover".split("|"),
    "HassListAddItem": names.LISTS,
    "HassListCompleteItem": names.LISTS,
    "HassGetWeather": "london|new york|boston|paris|berlin|tokyo|my city|forecast|chicago|home|amsterdam".split("|"),
    "HassClimateGetTemperature": "thermostat|hvac|ac|heater|air conditioner|ecobee|nest|radiator|heat pump|boiler".split(
        "|"
    ),
    "HassClimateSetTemperature": "thermostat|hvac|ac|heater|air conditioner|ecobee|nest|radiator|heat pump|boiler".split(
        "|"
    ),
}
MEDIA_INTENTS = (
    "HassMediaNext",
    "HassMediaPrevious",
    "HassMediaPause",
    "HassMediaUnpause",
    "HassSetVolume",
    "HassMediaSearchAndPlay",
)
MEDIA_DEVICES = (
    "tv|speaker|stereo|radio|player|soundbar|homepod|chromecast|sonos|television|projector|receiver|echo".split("|")
)
QUESTION = re.compile(r"^(is|are|what|whats|which|how|when|where|who|do|does|did|has|have|can|will|any)\b")
OPENINGS = (
    "please ",
    "can you ",
    "could you ",
    "hey ",
    "would you ",
    "i want you to ",
    "can you please ",
    "ok ",
    "now ",
    "just ",
)


def name_for(key: str, action: dict, namer: Namer, commands: list[str]) -> str:
    """A new value for one key of an action."""
    if key == "area":
        return namer.area()
    if key == "floor":
        return namer.random.choice(names.FLOORS) if namer.random.random() < 0.85 else f"{namer.invented()} floor"
    if key == "name":
        return new_device(action, namer)
    if key == "conversation_command":
        return namer.random.choice(commands) if namer.random.random() < 0.8 else namer.phrase(4)
    usual, words_max = {
        "item": (names.THINGS, 3),
        "search_query": (names.MEDIA, 4),
        "color": (names.COLORS, 1),
        "message": (names.THINGS, 6),
        "state": (names.ZONES, 2),
    }[key]
    return namer.random.choice(usual) if key == "color" else namer.mixed(usual, words_max)


def new_device(action: dict, namer: Namer) -> str:
    intent = action["intent"]
    if "Timer" in intent:
        return namer.mixed(names.TIMERS, 2)
    if action.get("domain") == "person":
        return namer.mixed(names.PEOPLE, 1)
    if namer.random.random() > HINT_SHARE:
        return namer.device(None)
    usual = NAME_KIND_OF_INTENT.get(intent) or (MEDIA_DEVICES if intent in MEDIA_INTENTS else None)
    if usual:
        noun = namer.random.choice(usual)
        return noun if namer.random.random() < 0.5 else f"{namer.random.choice(names.ROOMS + names.PEOPLE)} {noun}"
    return namer.device(action.get("device_class") or action.get("domain"))


def whole(value: str) -> re.Pattern:
    return re.compile(rf"(?<![\w.]){re.escape(value)}(?![\w]|\.\d)")


def rename(row: Row, namer: Namer, commands: list[str]) -> Row:
    """Draws new names and numbers for a line. A value that stands more than once in the prompt, or not at all, is kept."""
    action, prompt = json.loads(row.answer), row.prompt
    fresh: dict[str, object] = {}
    slots = sorted(action.items(), key=lambda slot: -len(str(slot[1])))
    for number, (key, value) in enumerate(slots):
        if isinstance(value, str) and (key not in NAME_KEYS or value in FIXED_VALUES):
            continue
        if sum(value == other for other in action.values()) > 1 or len(whole(str(value)).findall(prompt)) != 1:
            continue
        mark = chr(0xE000 + number)
        prompt = whole(str(value)).sub(mark, prompt)
        fresh[key] = (mark, value)
    taken: set = set()
    for key, (mark, value) in fresh.items():
        if isinstance(value, str):
            new = value if namer.random.random() < KEEP_SHARE else name_for(key, action, namer, commands)
        else:
            new = new_number(value, prompt, namer.random)
        new = value if new in taken else new
        taken.add(new)
        prompt = prompt.replace(mark, str(new))
        action[key] = new
    return Row(prompt, json.dumps(action, separators=(",", ":"), ensure_ascii=False))


def new_number(value: int | float, prompt: str, random: Random) -> int | float:
    if isinstance(value, float):
        return random.randint(-10, 110) + 0.5 if random.random() < 0.8 else random.randint(0, 300) / 10 + 0.1
    return random.randint(0 if value == 0 else 2, 100 if "%" in prompt or random.random() < 0.9 else 400)


def reword(prompt: str, random: Random) -> str:
    """The small liberties that people take: politeness, a question mark, capitals."""
    if QUESTION.match(prompt):
        prompt += random.choice(("", "", "?"))
    elif random.random() < 0.25:
        prompt = random.choice(OPENINGS) + prompt
    elif random.random() < 0.12:
        prompt += random.choice((" please", ".", " now", "!", " for me", " please."))
    pick = random.random()
    if pick < 0.12:
        return prompt[:1].upper() + prompt[1:]
    if pick < 0.15:
        return prompt.title()
    if pick < 0.25:
        words = prompt.split(" ")
        at = random.randrange(len(words))
        words[at] = words[at].upper() if random.random() < 0.5 else words[at].capitalize()
        return " ".join(words)
    return prompt.upper() if pick < 0.255 else prompt


def hold_out(rows: list[Row], share: float, random: Random) -> tuple[list[Row], list[Row]]:
    """Splits off lines that are never trained on, to choose and to calibrate with."""
    shuffled = rows[:]
    random.shuffle(shuffled)
    count = round(len(rows) * share)
    return shuffled[count:], shuffled[:count]


class ActionSource:
    """An endless supply of renamed action lines."""

    def __init__(self, rows: list[Row], words: list[str], seed: int):
        self.rows, self.random = rows, Random(seed)
        self.namer = Namer(self.random, words)
        starts = ("turn", "open", "close", "set", "start", "pause", "add", "lock", "play", "switch")
        self.commands = [row.prompt for row in rows if row.prompt.startswith(starts) and "timer" not in row.prompt][
            :2000
        ]

    def draw(self, count: int) -> list[Row]:
        drawn = []
        for row in self.random.choices(self.rows, k=count):
            renamed = rename(row, self.namer, self.commands)
            drawn.append(Row(reword(renamed.prompt, self.random), renamed.answer))
        return drawn
