"""Characters to train on: a file given by the user, or a text made here with structure worth learning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from assay.group.errors import ClusterError

_NOUNS = (
    "solver",
    "verifier",
    "segment",
    "checkpoint",
    "proof",
    "court",
    "claim",
    "ledger",
    "network",
    "member",
    "layer",
)
_VERBS = ("replays", "opens", "signs", "trains", "moves", "draws", "holds", "checks", "posts", "joins", "leaves")
_ENDINGS = ("at once", "before noon", "for the group", "without delay", "over the slow link", "in good order")


@dataclass(frozen=True)
class CharacterData:
    """`inputs` and `targets`: (samples, context) int64, targets one character later. `vocabulary`: distinct ones."""

    inputs: torch.Tensor
    targets: torch.Tensor
    vocabulary: int


def made_text(length: int, seed: int = 0) -> str:
    """Sentences from a small grammar: predictable letters inside words, less so between them."""
    random = np.random.default_rng(seed)
    sentences: list[str] = []
    size = 0
    while size < length:
        subject, verb, thing, ending = (
            words[int(random.integers(len(words)))] for words in (_NOUNS, _VERBS, _NOUNS, _ENDINGS)
        )
        number = int(random.integers(2, 100))
        sentence = f"The {subject} {verb} {number} {thing}s {ending}.\n"
        sentences.append(sentence)
        size += len(sentence)
    return "".join(sentences)[:length]


def character_data(samples: int, context: int, path: Path | None = None, seed: int = 0) -> CharacterData:
    """Cut a text into samples: neighbouring windows of `context` characters, from a file's beginning or made text."""
    needed = samples * context + 1
    if path is None:
        text = made_text(needed, seed)
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ClusterError(f"cannot read the text {path}: {error.strerror}; leave it out for a made one") from error
        if len(text) < needed:
            raise ClusterError(
                f"{path} has {len(text)} characters, {samples} samples of {context} need {needed}; give a longer text"
            )
    text = text[:needed]
    alphabet = {character: i for i, character in enumerate(sorted(set(text)))}
    codes = torch.tensor([alphabet[character] for character in text])
    return CharacterData(codes[:-1].reshape(samples, context), codes[1:].reshape(samples, context), len(alphabet))
