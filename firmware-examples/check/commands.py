"""Programs that the tests run to build and to fetch. What one said last stands in the failure that it makes."""

import subprocess
import time

# One program. What is stuck is left.
SECONDS_MAX = 1800
LAST_WORDS_CHARACTERS = 3000
# What comes over a network may not come at once.
PAUSES_S = (2, 10, 30)


class Failed(Exception):
    """A program ended with another status than 0."""


def ran(argv, cwd=None, env=None):
    """Runs it to its end, and says what it says."""
    argv = [str(part) for part in argv]
    try:
        done = subprocess.run(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=SECONDS_MAX)
        status, said = f"status {done.returncode}", done.stdout
    except subprocess.TimeoutExpired as late:
        status, said = f"not at its end within {SECONDS_MAX} s", late.stdout or b""
    text = said.decode(errors="replace").strip()
    if text:
        print(text, flush=True)
    if status != "status 0":
        raise Failed(f"{' '.join(argv[:4])} …: {status}\n" + text[-LAST_WORDS_CHARACTERS:])


def fetched(what, argv, cwd=None):
    """Runs a program that needs a network until it succeeds, a few times."""
    for pause in PAUSES_S:
        try:
            return ran(argv, cwd)
        except Failed as failed:
            print(f"could not fetch {what}, again in {pause} s: {failed}", flush=True)
            time.sleep(pause)
    try:
        ran(argv, cwd)
    except Failed as failed:
        raise Failed(f"could not fetch {what} in {len(PAUSES_S) + 1} attempts: {failed}") from None
