"""Greedy answers with the probability of each token, for evaluation and calibration."""

from collections import defaultdict
from dataclasses import dataclass

import torch

from model import Decoder
from vocabulary import END, Vocabulary

TOKENS_MAX = 64
GROUP_MAX = 256


@dataclass
class Answer:
    """What the model wrote, and for each token its log-probability and that of the runner-up."""

    text: str
    logs: list[float]
    runner_up_logs: list[float]


@torch.no_grad()
def greedy(model: Decoder, vocabulary: Vocabulary, task: str, prompts: list[str]) -> list[Answer]:
    """Answers in the order of `prompts`. Prompts of equal length go together, so no padding is needed."""
    groups: dict[int, list[int]] = defaultdict(list)
    encoded = [vocabulary.prompt(task, prompt) for prompt in prompts]
    for at, tokens in enumerate(encoded):
        groups[len(tokens)].append(at)
    answers: list[Answer | None] = [None] * len(prompts)
    for members in groups.values():
        for start in range(0, len(members), GROUP_MAX):
            part = members[start : start + GROUP_MAX]
            for at, answer in zip(part, greedy_group(model, vocabulary, [encoded[at] for at in part])):
                answers[at] = answer
    return answers


def greedy_group(model: Decoder, vocabulary: Vocabulary, prompts: list[list[int]]) -> list[Answer]:
    tokens = torch.tensor(prompts)
    written: list[list[int]] = [[] for _ in prompts]
    answers = [Answer("", [], []) for _ in prompts]
    open_rows = list(range(len(prompts)))
    for _ in range(TOKENS_MAX):
        logs = model.logits(model(tokens)[:, -1]).float().log_softmax(-1)
        best = logs.topk(2)
        for row, values, ids in zip(open_rows, best.values.tolist(), best.indices.tolist()):
            answers[row].logs.append(values[0])
            answers[row].runner_up_logs.append(values[1])
            written[row].append(ids[0])
        going = [at for at, row in enumerate(open_rows) if written[row][-1] != vocabulary.ids[END]]
        if not going:
            break
        tokens = torch.cat((tokens, best.indices[:, :1]), dim=1)[going]
        open_rows = [open_rows[at] for at in going]
    for answer, numbers in zip(answers, written):
        answer.text = vocabulary.decode(numbers).removesuffix(END)
    return answers
