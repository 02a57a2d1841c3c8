"""Trains one student: warm-up, a long plateau, a straight descent; an average of the weights is what is kept."""

import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lessons import Lessons, collate, lesson_loss
from model import Decoder, Shape
from vocabulary import SPACE

ROUND = 8192
WARM_UP_STEPS = 300
# The last share of the steps over which the learning rate falls to nothing.
DESCENT_SHARE = 0.4
AVERAGE_DECAY = 0.996
# The average is brought up to date every few steps: it costs as much as a good part of a step.
AVERAGE_STEPS = 4
SAVE_STEPS = 250


@dataclass(frozen=True)
class Plan:
    """How long and how fast a student learns."""

    steps: int
    rate: float
    batch: int = 64
    dropout: float = 0.1
    # Steps the blocks' matrices by orthogonalised momentum (Jordan 2024, Muon). Tried once on tide-cloud from step 5,200,
    # on the same 150 batches: loss 1.03 where AdamW had 1.18, at 1.7 times the time a step. tide-edge was trained without.
    muon: bool = False


def rate_at(step: int, plan: Plan) -> float:
    descent = plan.steps * DESCENT_SHARE
    return plan.rate * min(1.0, (step + 1) / WARM_UP_STEPS, max(0.01, (plan.steps - step) / descent))


def new_student(shape: Shape, plan: Plan, lessons: Lessons) -> Decoder:
    ids = lessons.vocabulary.ids
    student = Decoder(shape, len(ids), plan.dropout)
    student.align_twins(
        [(ids[piece[1:]], number) for piece, number in ids.items() if piece.startswith(SPACE) and piece[1:] in ids]
    )
    return student


def optimizers(student: Decoder, plan: Plan) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or for what is no matrix of a block; the rate means the same to both."""
    inner = [weight for weight in student.blocks.parameters() if weight.dim() == 2] if plan.muon else []
    taken = {id(weight) for weight in inner}
    matrices = [weight for weight in student.parameters() if weight.dim() == 2 and id(weight) not in taken]
    vectors = [weight for weight in student.parameters() if weight.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    chosen: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)]
    if inner:
        chosen.append(torch.optim.Muon(inner, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"))
    return chosen


class Training:
    """The whole state of a run, so that a run that was cut short goes on where it was saved."""

    def __init__(self, shape: Shape, plan: Plan, lessons: Lessons, seed: int, device: str):
        torch.manual_seed(seed)
        self.plan, self.lessons, self.device, self.seed = plan, lessons, device, seed
        self.student = new_student(shape, plan, lessons).to(device)
        self.average = {name: weight.detach().clone() for name, weight in self.student.state_dict().items()}
        self.optimizers = optimizers(self.student, plan)
        ids = lessons.vocabulary
        self.label_ids = torch.tensor([ids.encode(label)[0] for label in lessons.labels], device=device)
        self.step, self.spent_s, self.queue = 0, 0.0, []

    def save(self, path: Path) -> None:
        state = {
            "step": self.step,
            "spent_s": self.spent_s,
            "student": self.student.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)

    def restore(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device)
        self.step, self.spent_s, self.average = state["step"], state["spent_s"], state["average"]
        self.student.load_state_dict(state["student"])
        for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)
        # Lessons are drawn, not stored: a resumed run draws others than an unbroken one would have.
        for source in (self.lessons, self.lessons.intents, self.lessons.actions):
            source.random.seed(self.seed + self.step)

    def take_step(self) -> float:
        if not self.queue:
            self.queue = self.lessons.round(ROUND, self.plan.batch)
        batch = collate(self.queue.pop(), self.device)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate_at(self.step, self.plan)
        with torch.autocast(self.device, torch.bfloat16):
            loss = lesson_loss(self.student, batch, self.label_ids)
        loss.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        if self.step % AVERAGE_STEPS == 0:
            self.update_average()
        return loss.item()

    @torch.no_grad()
    def update_average(self) -> None:
        decay = min(AVERAGE_DECAY, (1 + self.step) / (10 + self.step))
        for name, weight in self.student.state_dict().items():
            self.average[name].lerp_(weight, 1 - decay)

    def averaged(self) -> Decoder:
        student = Decoder(self.student.shape, self.student.embedding.num_embeddings, 0.0)
        student.load_state_dict(self.average)
        return student.eval()


def fit(shape: Shape, plan: Plan, lessons: Lessons, seed: int, out: Path) -> tuple[Decoder, float]:
    """Trains, or goes on training; returns the averaged student and the minutes spent on it in all."""
    random.seed(seed)
    np.random.seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    training = Training(shape, plan, lessons, seed, device)
    saved = out / f"{shape.name}.checkpoint"
    if saved.exists():
        training.restore(saved)
    last, loss_mean = time.monotonic(), None
    first_step, first_spent_s = training.step, training.spent_s
    while training.step < plan.steps:
        loss = training.take_step()
        loss_mean = loss if loss_mean is None else 0.98 * loss_mean + 0.02 * loss
        now = time.monotonic()
        training.spent_s, last = training.spent_s + now - last, now
        if training.step % 50 == 0:
            pace_s = (training.spent_s - first_spent_s) / (training.step - first_step)
            left_min = pace_s * (plan.steps - training.step) / 60
            print(
                f"{shape.name}: step {training.step} of {plan.steps}, loss {loss_mean:.3f}, {left_min:.1f} min left",
                flush=True,
            )
        if training.step % SAVE_STEPS == 0 or training.step == plan.steps:
            training.save(saved)
    return training.averaged(), training.spent_s / 60
