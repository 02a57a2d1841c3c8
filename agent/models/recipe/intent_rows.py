"""Makes up utterances near the training lines; the teacher says what each one means, and how surely.

A made-up utterance need not keep its label: the teacher's distribution is what the student learns, and utterances on
the border between two intents teach the most.
"""

from collections import defaultdict
from pathlib import Path
from random import Random

import numpy as np

from rows import Row, Tables
from teacher import Teacher

VARIANTS_PER_LINE = 8
FILLERS_BEFORE = (
    "please ",
    "hey ",
    "can you ",
    "could you ",
    "i need to know ",
    "tell me ",
    "hi ",
    "so ",
    "ok ",
    "um ",
    "i want to know ",
    "would you ",
)
FILLERS_AFTER = (" please", " thanks", " now", " today", " for me", "?", ".", " right now", " asap")
NEIGHBOURS = 6
SIMILARITY_MIN = 0.45


def similar_words(teacher: Teacher, words: list[str]) -> dict[str, list[str]]:
    """For each word the nearest other words in the teacher's embedding table, also ones that no training line has."""
    tokenizer = teacher.neural.tokenizer
    table = teacher.neural.encoder.embeddings.word_embeddings.weight.detach().numpy()
    whole = {
        word: number
        for word, number in tokenizer.get_vocab().items()
        if word.isalpha() and word.isascii() and len(word) > 1
    }
    names, numbers = list(whole), np.array(list(whole.values()))
    unit = table[numbers] - table[numbers].mean(0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    at = {word: index for index, word in enumerate(names)}
    near = {}
    for word in words:
        if word in at:
            scores = unit @ unit[at[word]]
            best = np.argsort(-scores)[1 : NEIGHBOURS + 1]
            near[word] = [names[index] for index in best if scores[index] > SIMILARITY_MIN]
    return near


class Mutator:
    """Applies one to three of the edits below to a training line."""

    def __init__(self, rows: list[Row], near: dict[str, list[str]], seed: int):
        self.random, self.rows, self.near = Random(seed), rows, near
        self.by_label: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            self.by_label[row.answer].append(row.prompt)
        self.edits = (
            self.drop,
            self.drop,
            self.swap,
            self.replace,
            self.replace,
            self.replace,
            self.splice,
            self.splice,
            self.cross,
            self.typo,
            self.fill,
        )

    def mutate(self, row: Row) -> str:
        words = row.prompt.split()
        for edit in self.random.sample(self.edits, self.random.choice((1, 1, 2, 2, 3))):
            words = edit(words, row.answer) or words
        return " ".join(words)

    def drop(self, words: list[str], _: str) -> list[str]:
        return [word for word in words if self.random.random() > 0.12]

    def swap(self, words: list[str], _: str) -> list[str]:
        at = self.random.randrange(max(1, len(words) - 1))
        return words[:at] + words[at : at + 2][::-1] + words[at + 2 :]

    def replace(self, words: list[str], _: str) -> list[str]:
        """Puts a word of like meaning in the place of some."""
        return [
            self.random.choice(self.near[word]) if self.near.get(word) and self.random.random() < 0.2 else word
            for word in words
        ]

    def splice(self, words: list[str], label: str) -> list[str]:
        """Begins as this line and ends as another of the same intent."""
        return self.join(words, self.random.choice(self.by_label[label]).split())

    def cross(self, words: list[str], _: str) -> list[str]:
        """Begins as this line and ends as any other: border cases and nonsense."""
        return self.join(words, self.random.choice(self.rows).prompt.split())

    def join(self, words: list[str], other: list[str]) -> list[str]:
        share = self.random.uniform(0.3, 0.7)
        return words[: round(len(words) * share)] + other[round(len(other) * share) :]

    def typo(self, words: list[str], _: str) -> list[str]:
        at = self.random.randrange(len(words))
        word = words[at]
        spot = self.random.randrange(len(word))
        changed = self.random.choice(
            (
                word[:spot] + word[spot + 1 :],
                word[:spot] + word[spot] + word[spot:],
                word[:spot] + word[spot : spot + 2][::-1] + word[spot + 2 :],
            )
        )
        return words[:at] + ([changed] if changed else []) + words[at + 1 :]

    def fill(self, words: list[str], _: str) -> list[str]:
        before = self.random.choice(FILLERS_BEFORE) if self.random.random() < 0.5 else ""
        after = "" if before else self.random.choice(FILLERS_AFTER)
        return (before + " ".join(words) + after).split(" ")


def made_up_utterances(tables: Tables, teacher: Teacher, action_prompts: list[str], seed: int) -> list[str]:
    """The training lines' relatives, without repeats; some device commands join them as foreign matter."""
    rows = tables.intent["train"] + tables.intent["oos_train"] * 4
    words = sorted({word for row in rows for word in row.prompt.split()})
    mutator = Mutator(rows, similar_words(teacher, words), seed)
    made = {mutator.mutate(row) for row in rows for _ in range(VARIANTS_PER_LINE)}
    return sorted(text for text in made if text.strip()) + sorted(set(action_prompts))


def labelled_utterances(tables: Tables, teacher: Teacher, action_prompts: list[str], seed: int, out: Path):
    """Utterances and the teacher's distributions over the labels; kept on disk for the next run."""
    stored = out / "made_up.npz"
    if not stored.exists():
        texts = made_up_utterances(tables, teacher, action_prompts, seed)
        print(f"teacher: labels {len(texts)} made-up utterances", flush=True)
        np.savez(stored, texts=np.array(texts), soft=teacher.label(texts).astype(np.float16))
    loaded = np.load(stored)
    return loaded["texts"].tolist(), loaded["soft"]
