"""Answers without a model: tokens drawn at random among those that a grammar allows."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lacewing.assistant.grammar.compiled import Compiled
from lacewing.engine.sampling import Sampler
from lacewing.options import Sampling
from lacewing.text.tokenizer import Tokenizer
from tests.text import vocabularies
from tests.text.test_huggingface import byte_level, opened, sentencepiece

PADDING = 3  # logits that no token has


class Kind(NamedTuple):
    """`size`: of the model's logits."""

    tokenizer: Tokenizer
    size: int


def kinds() -> dict[str, Kind]:
    """Byte-level, SentencePiece with and without a space in front of a text, Gemma 4's; the first two from directories too."""
    described = {
        "bytes": vocabularies.byte_level(),
        "spm": vocabularies.sentencepiece(),
        "spm without prefix": vocabularies.sentencepiece(add_space_prefix=False),
        "gemma4": {**vocabularies.sentencepiece(merges=["h e", "l l", "he ll", "hell o"]), "tokenizer.ggml.model": "gemma4"},
    }
    made = {name: vocabularies.tokenizer(metadata) for name, metadata in described.items()}
    with tempfile.TemporaryDirectory() as folder:
        cores = {
            "bytes of a directory": byte_level(),
            "spm of a directory": sentencepiece(None),
            "metaspace": sentencepiece("first"),
        }
        for name, core in cores.items():
            made[name] = opened(
                core, Path(folder), config__json={"eos_token_id": core.token_to_id("</s>")} if "</s>" in core.get_vocab() else {}
            )
    return {name: Kind(each, each.vocab_size + PADDING) for name, each in made.items()}


def walk(compiled: Compiled, kind: Kind, seed: int, most: int = 400, start: bool = True) -> tuple[list[int], bool]:
    """The tokens, and whether the answer has ended. What closes becomes the likelier the longer it is."""
    random, size = np.random.default_rng(seed), kind.size
    stop_ids = kind.tokenizer.stop_ids
    constraint = compiled.follow(stop_ids, start)
    added = kind.tokenizer.text_bytes()
    closing = np.zeros(size, np.float32)
    for token, data in enumerate(added):
        closing[token] = data.strip()[:1] in (b'"', b"}", b"]", b",", b":", b")") or token in stop_ids
    sampler, ids = Sampler(Sampling(temperature=1, top_k=0, top_p=1, min_p=0, seed=seed), size), [0]
    while len(ids) <= most and not constraint.stopped():
        row = random.normal(size=size).astype(np.float32) * 2 + closing * np.float32(len(ids) / 12)
        token = sampler.pick(row, ids, constraint.mask()).id
        if token in stop_ids:
            return ids[1:], True
        assert constraint.accept(token)
        ids.append(token)
    return ids[1:], constraint.stopped()


def follows(compiled: Compiled, kind: Kind, ids: list[int], start: bool = True) -> bool:
    """Whether the grammar allows these tokens, and an end behind them; by masks and by what is accepted."""
    constraint = compiled.follow(kind.tokenizer.stop_ids, start)
    for token in ids:
        mask = constraint.mask()
        allowed = bool(mask[token // 32] >> np.uint32(token % 32) & 1)
        assert constraint.accept(token) == allowed
        if not allowed:
            return False
    mask = constraint.mask()
    ends = [bool(mask[token // 32] >> np.uint32(token % 32) & 1) for token in sorted(kind.tokenizer.stop_ids)]
    return all(ends)
