"""The Llama decoder, in the layout that llama.cpp runs: RMSNorm, rotary positions on neighbouring pairs, SwiGLU,
one table for input and output."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Shape:
    """Every dimension is a multiple of 32, so that Q8_0 and Q4_0 blocks fill whole rows."""

    name: str
    width: int
    layers: int
    heads: int
    feed_forward: int
    positions_max: int = 512
    rope_base: float = 10000.0
    norm_epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        return self.width // self.heads


EDGE = Shape("tide-edge", width=256, layers=4, heads=8, feed_forward=672)
CLOUD = Shape("tide-cloud", width=512, layers=3, heads=8, feed_forward=1280)


def rotary_table(shape: Shape, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    frequencies = shape.rope_base ** (-torch.arange(0, shape.head_width, 2).float() / shape.head_width)
    angles = torch.outer(torch.arange(length).float(), frequencies)
    return angles.cos(), angles.sin()


def rotate(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turns each pair (2i, 2i+1); llama.cpp calls this the normal rotary type, so no rows are permuted on export."""
    even, odd = heads.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Causal attention, written out: on sequences of some 25 tokens this is several times faster than the fused kernel."""
    length, width = query.shape[-2:]
    with torch.autocast(query.device.type, enabled=False):
        scores = (query.float() * width**-0.5) @ key.float().transpose(-1, -2)
        future = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
        return scores.masked_fill(future, float("-inf")).softmax(-1) @ value.float()


class Block(nn.Module):
    """Attention, then the gated feed-forward layer; each adds to the stream."""

    def __init__(self, shape: Shape, dropout: float):
        super().__init__()
        self.heads, self.dropout = shape.heads, dropout
        self.attention_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.query_key_value = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.attention_out = nn.Linear(shape.width, shape.width, bias=False)
        self.feed_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.gate_up = nn.Linear(shape.width, 2 * shape.feed_forward, bias=False)
        self.down = nn.Linear(shape.feed_forward, shape.width, bias=False)

    def forward(self, stream: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        batch, length, width = stream.shape
        mixed = self.query_key_value(self.attention_norm(stream))
        query, key, value = (
            mixed.view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        )
        attended = attend(rotate(query, cos, sin), rotate(key, cos, sin), value)
        attended = self.attention_out(attended.transpose(1, 2).reshape(batch, length, width))
        stream = stream + attended
        gate, up = self.gate_up(self.feed_norm(stream)).chunk(2, dim=-1)
        return stream + F.dropout(self.down(F.silu(gate) * up), self.dropout, self.training)


class Decoder(nn.Module):
    """Token ids in, hidden states out; `logits` turns chosen hidden states into scores over the vocabulary."""

    def __init__(self, shape: Shape, pieces: int, dropout: float = 0.1):
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(pieces, shape.width)
        self.blocks = nn.ModuleList(Block(shape, dropout) for _ in range(shape.layers))
        self.final_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        cos, sin = rotary_table(shape, shape.positions_max)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.start_weights()

    def start_weights(self) -> None:
        nn.init.normal_(self.embedding.weight, std=0.02)
        for block in self.blocks:
            for layer in (block.query_key_value, block.gate_up):
                nn.init.normal_(layer.weight, std=self.shape.width**-0.5)
            for layer in (block.attention_out, block.down):
                nn.init.normal_(layer.weight, std=(layer.in_features * 2 * self.shape.layers) ** -0.5)

    @torch.no_grad()
    def align_twins(self, pairs: list[tuple[int, int]]) -> None:
        """Starts ` word` and `word` from nearly the same vector, which is where copying between them ends up anyway."""
        table = self.embedding.weight
        shift = torch.randn(table.shape[1]) * 0.01
        for plain, spaced in pairs:
            table[spaced] = table[plain] + shift + torch.randn_like(shift) * 0.005

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        length = tokens.shape[1]
        stream = self.embedding(tokens)
        for block in self.blocks:
            stream = block(stream, self.cos[:length], self.sin[:length])
        return self.final_norm(stream)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return F.linear(hidden, self.embedding.weight)
