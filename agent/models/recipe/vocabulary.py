"""The byte-level BPE vocabulary, built so that copying a name from prompt to answer is one-to-one.

In `turn on the kitchen lamp` the word follows a space, in `"name":"kitchen lamp"` it follows a quote. An ordinary
BPE cuts the two differently, and a small model then has to learn spelling before it can copy. Here all merges are
learned on words without their space, and only then come merges that glue a space to the front of a finished piece:
` zorblat` and `zorblat` are cut at the same places and differ in the first piece alone. Digits are never merged, so
a number is copied digit by digit.

Encoding follows llama.cpp exactly: user-defined pieces are cut out of the text first, longest first; what is left is
split by the GPT-2 expression and merged by rank.
"""

import json
from collections import Counter
from dataclasses import dataclass, field

import regex

from rows import Tables

END, SYS, USER, BOT = "<|end|>", "<|sys|>", "<|user|>", "<|bot|>"
CONTROL = (END, SYS, USER, BOT)
SPACE = "Ġ"
GPT2_SPLIT = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
MERGES_MAX = 1900
# A piece gets a twin with a space in front when at least this many weighted words begin with it.
TWIN_COUNT_MIN = 2
# Makes sure that a label that is a plain word ends up as one piece.
LABEL_WEIGHT = 100_000
# Values that come from a fixed list, so that key and value together are one piece.
CLOSED_KEYS = ("domain", "device_class", "media_class")
CLOSED_STATES = ("on", "off", "closed", "locked", "unlocked", "opening", "closing", "open")


def byte_characters() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    stand_in = {byte: chr(byte) for byte in plain}
    for byte in range(256):
        if byte not in stand_in:
            stand_in[byte] = chr(256 + len(stand_in) - len(plain))
    return stand_in


BYTE_CHARACTERS = byte_characters()


@dataclass
class Vocabulary:
    """Pieces in id order: control, bytes, merged, user-defined."""

    pieces: list[str]
    merges: list[tuple[str, str]]
    user_defined: list[str]
    ids: dict[str, int] = field(init=False)

    def __post_init__(self):
        self.ids = {piece: number for number, piece in enumerate(self.pieces)}
        self.ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self.longest_first = sorted(self.user_defined, key=len, reverse=True)
        self.word_cache: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Ids of a text in which control tokens are plain characters."""
        fragments: list[str | int] = [text]
        for piece in self.longest_first:
            if piece in text:
                fragments = [part for fragment in fragments for part in cut(fragment, piece, self.ids[piece])]
        return [number for part in fragments for number in ([part] if isinstance(part, int) else self.plain(part))]

    def plain(self, text: str) -> list[int]:
        return [number for word in GPT2_SPLIT.findall(text) for number in self.word(word)]

    def word(self, word: str) -> list[int]:
        known = self.word_cache.get(word)
        if known is None:
            symbols = [BYTE_CHARACTERS[byte] for byte in word.encode()]
            known = [self.ids[symbol] for symbol in merge_word(symbols, self.ranks)]
            self.word_cache[word] = known
        return known

    def prompt(self, task: str, utterance: str) -> list[int]:
        """What stands before the answer; the chat template in the GGUF writes the same."""
        ids = self.ids
        return [ids[SYS], *self.encode(task), ids[USER], *self.encode(utterance), ids[BOT]]

    def answer(self, text: str) -> list[int]:
        return [*self.encode(text), self.ids[END]]

    def decode(self, numbers: list[int]) -> str:
        byte_of = {character: byte for byte, character in BYTE_CHARACTERS.items()}
        raw = b""
        for number in numbers:
            piece = self.pieces[number]
            special = piece in CONTROL or piece in self.user_defined
            raw += piece.encode() if special else bytes(byte_of[character] for character in piece)
        return raw.decode(errors="replace")

    def to_json(self) -> str:
        return json.dumps({"pieces": self.pieces, "merges": self.merges, "user_defined": self.user_defined})

    @staticmethod
    def from_json(text: str) -> "Vocabulary":
        stored = json.loads(text)
        merges = [tuple(pair) for pair in stored["merges"]]
        return Vocabulary(stored["pieces"], merges, stored["user_defined"])


def cut(fragment: str | int, piece: str, number: int) -> list[str | int]:
    """Replaces each occurrence of `piece` in a text fragment by its id."""
    if isinstance(fragment, int):
        return [fragment]
    parts: list[str | int] = []
    for index, text in enumerate(fragment.split(piece)):
        parts += ([number] if index else []) + ([text] if text else [])
    return parts


def merge_word(symbols: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Applies the merge of lowest rank until none applies."""
    while len(symbols) > 1:
        pairs = [(ranks.get(pair, len(ranks)), at) for at, pair in enumerate(zip(symbols, symbols[1:]))]
        rank, at = min(pairs)
        if rank == len(ranks):
            break
        symbols = symbols[:at] + [symbols[at] + symbols[at + 1]] + symbols[at + 2 :]
    return symbols


def user_defined_pieces(tables: Tables) -> list[str]:
    """Labels that are not plain words, and the parts of an action that stand in no natural text."""
    pieces = {label for label in tables.labels() if not label.isalpha()}
    for row in tables.action["train"]:
        action = json.loads(row.answer)
        pieces.add(f'{{"intent":"{action["intent"]}"')
        for key, value in action.items():
            if key in CLOSED_KEYS or (key == "state" and value in CLOSED_STATES):
                pieces.add(f',"{key}":"{value}"')
            elif key != "intent":
                pieces.add(f',"{key}":' + ('"' if isinstance(value, str) else ""))
    return sorted(pieces) + ['"}']


def count_words(texts: list[str], labels: list[str]) -> Counter:
    """How often each word occurs, without the space in front of it; digits stay out, so they never merge."""
    words: Counter = Counter()
    for text in texts:
        for word in GPT2_SPLIT.findall(text):
            if word.strip() and not any(character.isdigit() for character in word):
                words[word.strip()] += 1
    for label in labels:
        if label.isalpha():
            words[label] += LABEL_WEIGHT
    return words


def learn_merges(words: Counter, merges_max: int) -> list[tuple[str, str]]:
    """Plain BPE: joins the most frequent neighbours, again and again."""
    split = {word: [BYTE_CHARACTERS[byte] for byte in word.encode()] for word in words}
    pairs: Counter = Counter()
    where: dict[tuple[str, str], set[str]] = {}
    for word, symbols in split.items():
        for pair in zip(symbols, symbols[1:]):
            pairs[pair] += words[word]
            where.setdefault(pair, set()).add(word)
    merges = []
    while len(merges) < merges_max:
        pair, count = max(pairs.items(), key=lambda entry: (entry[1], entry[0]))
        if count < 2:
            break
        merges.append(pair)
        for word in sorted(where[pair]):
            old = split[word]
            new = merge_word(old, {pair: 0})
            split[word] = new
            for gone in zip(old, old[1:]):
                pairs[gone] -= words[word]
            for come in zip(new, new[1:]):
                pairs[come] += words[word]
                where.setdefault(come, set()).add(word)
        del pairs[pair]
    return merges


def build_vocabulary(tables: Tables, more_texts: list[str]) -> Vocabulary:
    """Learns the vocabulary from the training lines of both tasks and the words that made-up names use."""
    intent = [row.prompt for split in ("train", "oos_train") for row in tables.intent[split]]
    action = [row.prompt for row in tables.action["train"][::4]]
    words = count_words(intent + action + more_texts, tables.labels())
    merges = learn_merges(words, MERGES_MAX)
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    first: Counter = Counter()
    for word, count in words.items():
        first[merge_word([BYTE_CHARACTERS[byte] for byte in word.encode()], ranks)[0]] += min(count, 10)
    digits = [str(digit) for digit in range(10)]
    twins = digits + [piece for piece, count in sorted(first.items()) if count >= TWIN_COUNT_MIN]
    merged = [left + right for left, right in merges]
    user_defined = user_defined_pieces(tables)
    pieces = [
        *CONTROL,
        *BYTE_CHARACTERS.values(),
        *dict.fromkeys(merged),
        *(SPACE + piece for piece in twins),
        *user_defined,
    ]
    vocabulary = Vocabulary(pieces, merges + [(SPACE, piece) for piece in twins], user_defined)
    for label in tables.labels():
        assert len(vocabulary.encode(label)) == 1, f"label {label} is more than one piece"
    return vocabulary
