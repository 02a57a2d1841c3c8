"""What counts as right, and how well a model's own confidence tells right from wrong."""

import json
import math

import numpy as np

from answers import Answer
from rows import OUT_OF_SCOPE, Row

COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


def same_action(written: str, wanted: str) -> bool:
    """Equal as JSON after lower-casing; key order does not matter."""
    try:
        return json.loads(written.lower()) == json.loads(wanted.lower())
    except ValueError:
        return False


def verdicts(task: str, rows: list[Row], answers: list[Answer]) -> np.ndarray:
    """True where the answer is right."""
    if task == "intent":
        return np.array([answer.text == row.answer for row, answer in zip(rows, answers)])
    return np.array([same_action(answer.text, row.answer) for row, answer in zip(rows, answers)])


def confidences(answer: Answer) -> dict[str, float]:
    """The signals that a runtime can compute while it decodes; more is surer."""
    return {
        "product": math.exp(sum(answer.logs)),
        "min token probability": math.exp(min(answer.logs)),
        "mean log-probability": sum(answer.logs) / len(answer.logs),
        "first-token margin": math.exp(answer.logs[0]) - math.exp(answer.runner_up_logs[0]),
    }


def risk_at_coverage(signal: np.ndarray, right: np.ndarray) -> list[float]:
    """Share of wrong answers among the surest 50 %, 60 %, ... of all."""
    order = np.argsort(-signal, kind="stable")
    return [1.0 - float(right[order[: max(1, round(len(right) * share))]].mean()) for share in COVERAGES]


def area_under_risk(signal: np.ndarray, right: np.ndarray) -> float:
    """Mean risk over all coverages; lower is better."""
    order = np.argsort(-signal, kind="stable")
    wrong = 1.0 - right[order]
    return float((np.cumsum(wrong) / np.arange(1, len(wrong) + 1)).mean())


def out_of_scope_recall(answers: list[Answer]) -> float:
    return float(np.mean([answer.text == OUT_OF_SCOPE for answer in answers]))
