"""One prompt and its outcome, on any board with MicroPython, and on CPython. On a board connect the network before (see
README.md). Ends with the outcome as exit status: 0 an answer, 1 none in time, 2 refused, 3 no connection, 64 a setting
that is none."""

import os
import sys

from config import SETTINGS
from link import tls
from tidegate import USAGE, Ask


def shown(text):
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def say(word, text):
    print(word, shown(text))


def taken(pair):
    """A setting `key=value`, where a program is given some; boards have config.py alone."""
    key, _, value = pair.partition("=")
    if key not in SETTINGS:
        raise ValueError("not a setting: " + pair)
    if isinstance(SETTINGS[key], bool):
        return key, value != "0"
    return key, int(value) if isinstance(SETTINGS[key], int) else value


def main(pairs=()):
    settings = dict(SETTINGS)
    for pair in pairs:
        key, value = taken(pair)
        settings[key] = value
    # A number drawn at every start and a counter: no other prompt of this device has this id.
    boot = int.from_bytes(os.urandom(4), "big")
    prompt_id = settings["id"] or "%08x-1" % boot
    print("id", prompt_id)
    ask = Ask(settings, prompt_id, say, tls(settings["server"], settings["ca"]) if settings["ca"] else None)
    status, why = ask.run()
    if ask.dropped:
        print("dropped", ask.dropped)
    print("end", status, why)
    return status


if __name__ == "__main__":
    try:
        sys.exit(main(getattr(sys, "argv", [""])[1:]))
    except ValueError as error:
        print("end", USAGE, error)
        sys.exit(USAGE)
