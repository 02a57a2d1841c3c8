"""Exports what was trained, and calibrates it: `finish.py --data DIR --out DIR --ship DIR [--kind q8_0]`."""

import argparse
import hashlib
import shutil
from pathlib import Path

import torch

from action_rows import ActionSource
from calibrate import calibration_table, write_calibration
from evaluate import load_student
from export import KINDS, rounded, write_gguf
from model import CLOUD, EDGE
from rows import Row, Tables, load_tables
from train import plain_words, split_actions
from vocabulary import Vocabulary

HELD_OUT_SEED = 99


def held_out_actions(tables: Tables) -> list[Row]:
    """The lines kept from training, under names drawn anew: the names of a home are not those of the training lines."""
    _, held_out = split_actions(tables)
    return ActionSource(held_out, plain_words(tables), HELD_OUT_SEED).draw(2 * len(held_out))


def ship(source: Path, target: Path) -> None:
    part = target.with_suffix(".part")
    shutil.copyfile(source, part)
    part.rename(target)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--out", type=Path, default=Path("out"))
    arguments.add_argument("--ship", type=Path, required=True)
    arguments.add_argument("--kind", choices=list(KINDS), default="q8_0")
    arguments.add_argument("--only", choices=[EDGE.name, CLOUD.name])
    chosen = arguments.parse_args()
    (chosen.ship / "calibration").mkdir(parents=True, exist_ok=True)
    tables = load_tables(chosen.data)
    vocabulary = Vocabulary.from_json((chosen.out / "vocabulary.json").read_text())
    for shape in (EDGE, CLOUD):
        if chosen.only not in (None, shape.name) or not (chosen.out / f"{shape.name}.pt").exists():
            continue
        student, _ = load_student(shape, chosen.out, vocabulary)
        for kind in KINDS:
            write_gguf(student, vocabulary, kind, chosen.out / f"{shape.name}-{kind}.gguf")
        shipped = chosen.ship / f"{shape.name}.gguf"
        ship(chosen.out / f"{shape.name}-{chosen.kind}.gguf", shipped)
        sha256 = hashlib.sha256(shipped.read_bytes()).hexdigest()
        table = calibration_table(rounded(student, chosen.kind), vocabulary, tables, held_out_actions(tables), sha256)
        write_calibration(table, chosen.ship / "calibration" / f"{shape.name}.json")
        print(f"{shipped.name}: {shipped.stat().st_size} bytes, sha256 {sha256}", flush=True)


if __name__ == "__main__":
    main()
