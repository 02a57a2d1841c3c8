"""Measures the finished models on the test lines: `evaluate.py --data DIR --out DIR`.

Each variant is measured with the very weights its file holds, dequantised. The figures of the running system come
from `rigs models`, which asks the same questions of the same files through the engine.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from answers import greedy
from export import KINDS, rounded
from model import CLOUD, EDGE, Decoder
from rows import Row, load_tables
from scoring import COVERAGES, area_under_risk, confidences, out_of_scope_recall, risk_at_coverage, verdicts
from vocabulary import Vocabulary


def load_student(shape, out: Path, vocabulary: Vocabulary) -> tuple[Decoder, float]:
    stored = torch.load(out / f"{shape.name}.pt")
    student = Decoder(shape, len(vocabulary.pieces), 0.0)
    student.load_state_dict(stored["student"])
    return student.eval(), stored["minutes"]


@torch.no_grad()
def mean_log_likelihood(student: Decoder, vocabulary: Vocabulary, task: str, rows: list[Row]) -> float:
    """Mean log-probability of the wanted answer, per answer token."""
    total, tokens = 0.0, 0
    for row in rows:
        prompt, answer = vocabulary.prompt(task, row.prompt), vocabulary.answer(row.answer)
        hidden = student(torch.tensor([prompt + answer[:-1]]))[0, len(prompt) - 1 :]
        logs = student.logits(hidden).log_softmax(-1)
        total += logs.gather(1, torch.tensor(answer).unsqueeze(1)).sum().item()
        tokens += len(answer)
    return total / tokens


def measure(
    student: Decoder, vocabulary: Vocabulary, tables, intent: str = "test", action: list[Row] | None = None
) -> dict:
    """All figures of one variant."""
    figures: dict = {}
    for task, rows in (("intent", tables.intent[intent]), ("action", action or tables.action["test"])):
        answers = greedy(student, vocabulary, task, [row.prompt for row in rows])
        right = verdicts(task, rows, answers)
        signals = {
            name: np.array([confidences(answer)[name] for answer in answers]) for name in confidences(answers[0])
        }
        figures[task] = {
            "rows": len(rows),
            "accuracy": float(right.mean()),
            "log_likelihood": mean_log_likelihood(student, vocabulary, task, rows[:: 1 if task == "action" else 4]),
            "risk": {name: risk_at_coverage(signal, right) for name, signal in signals.items()},
            "risk_area": {name: area_under_risk(signal, right) for name, signal in signals.items()},
        }
    outside = tables.intent[intent.replace("test", "oos_test").replace("validation", "oos_validation")]
    figures["oos_recall"] = out_of_scope_recall(greedy(student, vocabulary, "intent", [row.prompt for row in outside]))
    return figures


def show(name: str, kind: str, size: int, figures: dict) -> None:
    intent, action = figures["intent"], figures["action"]
    print(
        f"{name} {kind}: {size} bytes, intent {intent['accuracy']:.2%}, out-of-scope recall {figures['oos_recall']:.2%}, "
        f"action {action['accuracy']:.2%}, log-likelihood {intent['log_likelihood']:.4f} / {action['log_likelihood']:.4f}",
        flush=True,
    )


def show_risks(figures: dict) -> None:
    print("  share answered: " + " ".join(f"{share:.0%}" for share in COVERAGES))
    for task in ("intent", "action"):
        for signal, risks in figures[task]["risk"].items():
            row = " ".join(f"{risk:.2%}" for risk in risks)
            print(f"  {task}, wrong by {signal}: {row} (mean {figures[task]['risk_area'][signal]:.2%})")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--out", type=Path, default=Path("out"))
    arguments.add_argument("--only", choices=[EDGE.name, CLOUD.name])
    chosen = arguments.parse_args()
    tables = load_tables(chosen.data)
    vocabulary = Vocabulary.from_json((chosen.out / "vocabulary.json").read_text())
    kept = chosen.out / "figures.json"
    report = json.loads(kept.read_text()) if kept.exists() else {}
    for shape in (EDGE, CLOUD):
        if chosen.only not in (None, shape.name) or not (chosen.out / f"{shape.name}.pt").exists():
            continue
        student, minutes = load_student(shape, chosen.out, vocabulary)
        parameters = sum(weight.numel() for weight in student.parameters())
        print(f"{shape.name}: {parameters} parameters, trained {minutes:.0f} min")
        report[shape.name] = {"minutes": minutes, "parameters": parameters}
        for kind in KINDS:
            figures = measure(rounded(student, kind), vocabulary, tables)
            report[shape.name][kind] = figures
            show(shape.name, kind, (chosen.out / f"{shape.name}-{kind}.gguf").stat().st_size, figures)
            if kind == "q8_0":
                show_risks(figures)
    kept.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
