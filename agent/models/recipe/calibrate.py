"""Maps a model's raw confidence to how often it is right, from lines that it never trained on.

Raw confidence is the product of the answer tokens' probabilities under greedy decoding. The map is an isotonic
regression, thinned to a few knots between which the runtime interpolates.
"""

import json
from pathlib import Path

import numpy as np
from sklearn.isotonic import IsotonicRegression

from answers import greedy
from model import Decoder
from rows import Row, Tables
from scoring import confidences, verdicts
from vocabulary import Vocabulary

KNOTS_MAX = 20
DIGITS = 4


def knots(raw: np.ndarray, right: np.ndarray) -> list[list[float]]:
    """At most 20 points, non-decreasing in both, from raw 0 to raw 1."""
    regression = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    regression.fit(raw, smoothed(raw, right))
    places = np.unique(
        np.concatenate(([0.0], np.quantile(raw, np.linspace(0.02, 0.98, KNOTS_MAX - 2)), [1.0])).round(DIGITS)
    )
    values = np.maximum.accumulate(regression.predict(places)).round(DIGITS)
    return [[float(place), float(value)] for place, value in zip(places, values)]


def smoothed(raw: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Pulls the verdicts a little towards the middle at the ends, so that no knot claims certainty from few lines."""
    return right.astype(float) * (1 - 2e-3) + 1e-3


def calibration_rows(tables: Tables, held_out_actions: list[Row]) -> dict[str, tuple[str, list[Row]]]:
    intent = tables.intent["validation"] + tables.intent["oos_validation"]
    return {
        "intent": ("clinc150/validation+oos_validation", intent),
        "action": ("device-actions/train, 5 % held out, renamed", held_out_actions),
    }


def calibration_table(
    student: Decoder, vocabulary: Vocabulary, tables: Tables, held_out: list[Row], sha256: str
) -> dict:
    tasks = {}
    for task, (source, rows) in calibration_rows(tables, held_out).items():
        answers = greedy(student, vocabulary, task, [row.prompt for row in rows])
        raw = np.array([confidences(answer)["product"] for answer in answers])
        right = verdicts(task, rows, answers)
        tasks[task] = {"rows": len(rows), "data": source, "knots": knots(raw, right)}
    return {"v": 1, "model_sha256": sha256, "tasks": tasks}


def write_calibration(table: dict, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table, indent=1) + "\n")
