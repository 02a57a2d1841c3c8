"""Reads the JSON-lines files and refuses broken ones.

A training run takes hours, so every file is read and checked in full before the first step: a broken line is
reported with its file and line number, and nothing is trained.
"""

import json
from dataclasses import dataclass
from pathlib import Path

OUT_OF_SCOPE = "oos"
INTENT_FILES = ("train", "oos_train", "validation", "oos_validation", "test", "oos_test")
ACTION_FILES = ("train", "test")


class BrokenLine(Exception):
    """A data file holds a line that cannot be trained on."""

    def __init__(self, path: Path, line: int, reason: str):
        super().__init__(f"{path}:{line}: {reason}")


@dataclass(frozen=True)
class Row:
    """One utterance with the answer that the model must write."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Tables:
    """Every split of both tasks, by file name without extension."""

    intent: dict[str, list[Row]]
    action: dict[str, list[Row]]

    def labels(self) -> list[str]:
        """All intents in a fixed order, so that a class number means the same in every stage."""
        return sorted({row.answer for row in self.intent["train"]} | {OUT_OF_SCOPE})


def action_text(action: dict) -> str:
    """The one spelling of an action: key order as given, no spaces, values in lower case.

    Lower case because the test compares after lower-casing, and because one spelling per name halves what the
    model has to learn.
    """
    lowered = {
        key: value.lower() if isinstance(value, str) and key != "intent" else value for key, value in action.items()
    }
    return json.dumps(lowered, separators=(",", ":"), ensure_ascii=False)


def parse_intent(record: dict) -> Row:
    return Row(checked_prompt(record), checked_text(record, "intent"))


def parse_action(record: dict) -> Row:
    action = record.get("answer")
    if not isinstance(action, dict):
        raise ValueError("`answer` is not an object")
    checked_text(action, "intent")
    for key, value in action.items():
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError(f"`answer.{key}` is neither text nor a number")
    return Row(checked_prompt(record), action_text(action))


def checked_prompt(record: dict) -> str:
    prompt = checked_text(record, "prompt")
    if "<|" in prompt:
        raise ValueError("`prompt` contains `<|`, which opens a control token")
    return prompt


def checked_text(record: dict, key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"`{key}` is missing or is not text")
    return value


def read_rows(path: Path, parse) -> list[Row]:
    """Reads one file; raises BrokenLine at the first line that is not what `parse` expects."""
    rows = []
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            try:
                record = json.loads(raw.decode("utf-8").rstrip("\r\n"))
                if not isinstance(record, dict):
                    raise ValueError("not a JSON object")
                rows.append(parse(record))
            except ValueError as reason:
                raise BrokenLine(path, number, str(reason)) from reason
    if not rows:
        raise BrokenLine(path, 1, "the file is empty")
    return rows


def load_tables(data: Path) -> Tables:
    """Reads and checks every file of both tasks."""
    intent = {name: read_rows(data / "clinc150" / f"{name}.jsonl", parse_intent) for name in INTENT_FILES}
    known = {row.answer for row in intent["train"]} | {OUT_OF_SCOPE}
    for name, rows in intent.items():
        for number, row in enumerate(rows, start=1):
            if row.answer not in known:
                path = data / "clinc150" / f"{name}.jsonl"
                raise BrokenLine(path, number, f"intent `{row.answer}` does not occur in train")
    action = {name: read_rows(data / "device-actions" / f"{name}.jsonl", parse_action) for name in ACTION_FILES}
    return Tables(intent, action)
