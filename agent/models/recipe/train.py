"""Trains both models from the data folder: `train --data DIR [--out DIR] [--only NAME] [--share SHARE]`.

A share of the steps, such as 0.01, tries the whole way on a machine before a night is spent on it; what comes out is as
poor as that sounds.
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from random import Random

import numpy as np
import torch

import names
from action_rows import ActionSource, hold_out
from fit import Plan, fit
from intent_rows import labelled_utterances
from lessons import IntentSource, Lessons
from model import CLOUD, EDGE
from rows import BrokenLine, Row, Tables, load_tables
from teacher import fit_teacher
from vocabulary import Vocabulary, build_vocabulary

SEED = 3
HELD_OUT_SHARE = 0.05
PLANS = {EDGE: Plan(steps=8_500, rate=1.5e-3), CLOUD: Plan(steps=16_000, rate=8e-4, muon=True)}


def split_actions(tables: Tables) -> tuple[list[Row], list[Row]]:
    """The action lines to learn from, and those kept to choose and calibrate with."""
    return hold_out(tables.action["train"], HELD_OUT_SHARE, Random(SEED))


def plain_words(tables: Tables) -> list[str]:
    """Words of the intent lines, to make odd names from."""
    found = {word for row in tables.intent["train"] for word in row.prompt.lower().split()}
    return sorted(word for word in found if word.isalpha() and len(word) > 2)


def vocabulary_for(tables: Tables, out: Path) -> Vocabulary:
    stored = out / "vocabulary.json"
    if not stored.exists():
        words = names.every_word()
        more = words * 4 + [word.title() for word in words] + [word.upper() for word in names.DEVICES]
        more += [row.prompt.capitalize() for row in tables.intent["train"][::10]]
        stored.write_text(build_vocabulary(tables, more).to_json())
    return Vocabulary.from_json(stored.read_text())


def intent_source(tables: Tables, out: Path, seed: int, share: float) -> IntentSource:
    """Original and made-up utterances with soft labels; the teacher runs only where these are not on disk yet."""
    rows = tables.intent["train"] + tables.intent["oos_train"]
    stored = out / "train_soft.npz"
    if not stored.exists() or not (out / "made_up.npz").exists():
        teacher = fit_teacher(tables, SEED, out, share)
        np.savez(stored, soft=teacher.label([row.prompt for row in rows]).astype(np.float16))
        foreign = [row.prompt for row in tables.action["train"][::10]]
        labelled_utterances(tables, teacher, foreign, SEED, out)
    made_up, soft = labelled_utterances(tables, None, [], SEED, out)
    # Out-of-scope lines are few and of no one topic, so they come four times as often.
    row_soft = np.load(stored)["soft"].astype(np.float32)
    repeated = [at for at, row in enumerate(rows) for _ in range(4 if row.answer == "oos" else 1)]
    return IntentSource([rows[at] for at in repeated], tables.labels(), row_soft[repeated], made_up, soft, seed)


def share_of_steps(text: str) -> float:
    share = float(text)
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"a share of {text} is not above 0 and at most 1")
    return share


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--out", type=Path, default=Path("out"))
    arguments.add_argument("--only", choices=[shape.name for shape in PLANS])
    arguments.add_argument("--threads", type=int)
    arguments.add_argument("--share", type=share_of_steps, default=1.0, help="share of all steps, to try the whole way")
    chosen = arguments.parse_args()
    try:
        tables = load_tables(chosen.data)
    except (BrokenLine, OSError) as reason:
        print(f"train: {reason}", file=sys.stderr)
        return 65
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    chosen.out.mkdir(parents=True, exist_ok=True)
    vocabulary = vocabulary_for(tables, chosen.out)
    action_rows, _ = split_actions(tables)
    for number, (shape, plan) in enumerate(PLANS.items()):
        if chosen.only in (None, shape.name):
            seed = SEED + number
            intents = intent_source(tables, chosen.out, seed, chosen.share)
            lessons = Lessons(
                vocabulary, tables.labels(), intents, ActionSource(action_rows, plain_words(tables), seed), seed
            )
            plan = dataclasses.replace(plan, steps=max(1, round(chosen.share * plan.steps)))
            student, minutes = fit(shape, plan, lessons, seed, chosen.out)
            torch.save({"student": student.state_dict(), "minutes": minutes}, chosen.out / f"{shape.name}.pt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
