"""What the students see: token sequences of both tasks, drawn anew for every round and batched by length."""

from dataclasses import dataclass
from random import Random

import numpy as np
import torch

from action_rows import ActionSource
from rows import Row, Tables
from vocabulary import Vocabulary

INTENT, ACTION = "intent", "action"
# How much of an original line's target is its own label; the teacher's opinion is the rest.
OWN_LABEL_SHARE = 0.7
ORIGINAL_SHARE = 0.35
INTENT_SHARE = 0.4
# Weights in the loss. An action has some ten tokens to an intent's one, and `<|end|>` after a label is never in doubt.
ACTION_TOKEN_WEIGHT = 0.3
END_WEIGHT = 0.1


@dataclass
class Lesson:
    """A sequence; `start` is where its answer begins; `soft` holds the teacher's distribution, if there is one."""

    tokens: list[int]
    start: int
    soft: np.ndarray | None


@dataclass
class Batch:
    """Padded on the right. `flat` are the positions whose successor counts, with the tokens that come there."""

    tokens: torch.Tensor
    flat: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    label_flat: torch.Tensor
    label_soft: torch.Tensor


class IntentSource:
    """An endless supply of original and made-up utterances with the teacher's distributions."""

    def __init__(
        self, rows: list[Row], labels: list[str], row_soft: np.ndarray, made_up: list[str], soft: np.ndarray, seed: int
    ):
        own = np.zeros((len(rows), len(labels)), dtype=np.float32)
        own[np.arange(len(rows)), [labels.index(row.answer) for row in rows]] = 1.0
        self.row_soft = OWN_LABEL_SHARE * own + (1 - OWN_LABEL_SHARE) * row_soft
        self.rows, self.made_up, self.soft, self.random = rows, made_up, soft, Random(seed)

    def draw(self, count: int) -> list[tuple[str, np.ndarray]]:
        drawn = []
        for _ in range(count):
            if self.random.random() < ORIGINAL_SHARE:
                at = self.random.randrange(len(self.rows))
                drawn.append((self.rows[at].prompt, self.row_soft[at]))
            else:
                at = self.random.randrange(len(self.made_up))
                drawn.append((self.made_up[at], self.soft[at].astype(np.float32)))
        return drawn


class Lessons:
    """Mixes both tasks."""

    def __init__(
        self, vocabulary: Vocabulary, labels: list[str], intents: IntentSource, actions: ActionSource, seed: int
    ):
        self.vocabulary, self.intents, self.actions = vocabulary, intents, actions
        self.labels = labels
        self.random = Random(seed)

    def round(self, count: int, batch: int) -> list[list[Lesson]]:
        """Batches of `count` lessons; sequences of like length stand together, in random order of batches."""
        intents = round(count * INTENT_SHARE)
        lessons = [self.intent_lesson(text, soft) for text, soft in self.intents.draw(intents)]
        lessons += [self.action_lesson(row) for row in self.actions.draw(count - intents)]
        lessons.sort(key=lambda lesson: len(lesson.tokens) + self.random.random())
        batches = [lessons[at : at + batch] for at in range(0, len(lessons), batch)]
        self.random.shuffle(batches)
        return batches

    def intent_lesson(self, text: str, soft: np.ndarray) -> Lesson:
        prompt = self.vocabulary.prompt(INTENT, text)
        answer = self.vocabulary.answer(self.labels[int(soft.argmax())])
        return Lesson(prompt + answer, len(prompt), soft)

    def action_lesson(self, row: Row) -> Lesson:
        prompt = self.vocabulary.prompt(ACTION, row.prompt)
        return Lesson(prompt + self.vocabulary.answer(row.answer), len(prompt), None)


def collate(lessons: list[Lesson], device: str) -> Batch:
    """Stacks lessons; the last token of each is only ever a target."""
    length = max(len(lesson.tokens) for lesson in lessons) - 1
    tokens = torch.zeros(len(lessons), length, dtype=torch.long)
    flat, targets, weights, label_flat, soft = [], [], [], [], []
    for number, lesson in enumerate(lessons):
        inputs = lesson.tokens[:-1]
        tokens[number, : len(inputs)] = torch.tensor(inputs)
        for at in range(lesson.start - 1, len(inputs)):
            if lesson.soft is not None and at == lesson.start - 1:
                label_flat.append(number * length + at)
                soft.append(lesson.soft)
                continue
            flat.append(number * length + at)
            targets.append(lesson.tokens[at + 1])
            weights.append(END_WEIGHT if lesson.soft is not None else ACTION_TOKEN_WEIGHT)
    stacked = torch.from_numpy(np.stack(soft)) if soft else torch.zeros(0, 1)
    parts = (
        tokens,
        torch.tensor(flat),
        torch.tensor(targets),
        torch.tensor(weights),
        torch.tensor(label_flat, dtype=torch.long),
        stacked,
    )
    return Batch(*(part.to(device) for part in parts))


def lesson_loss(model, batch: Batch, label_ids: torch.Tensor) -> torch.Tensor:
    """Cross-entropy on answer tokens; on labels, cross-entropy with the teacher's distribution."""
    hidden = model(batch.tokens).flatten(0, 1)
    chosen = torch.cat((batch.flat, batch.label_flat))
    logs = model.logits(hidden[chosen]).float().log_softmax(-1)
    hard, label = logs[: len(batch.flat)], logs[len(batch.flat) :]
    loss = -(batch.weights * hard.gather(1, batch.targets.unsqueeze(1)).squeeze(1)).sum()
    if len(batch.label_flat):
        loss = loss - (batch.label_soft * label[:, label_ids]).sum()
    return loss / len(batch.tokens)
