"""Greedy tokens are the same, and so are all logits, in the three residencies: whatever the policy, the threads and the slots."""

import hashlib

import numpy as np
import pytest

from lacewing.weights.experts.policy import Usage
from lacewing.weights.experts.trial import Trial
from tests.checkpoints import prompt_of, tiny
from tests.models.running import run
from tests.weights.experts.packs import packed
from tests.weights.experts.streaming import opened

FAMILIES = ("qwen3moe", "mixtral", "olmoe", "deepseek2", "deepseek3", "glm4moe", "gpt-oss", "llama4")
RANDOM = np.random.default_rng(0)
POLICIES = {
    "ours": Usage.scores,
    "least recently used": lambda usage, clock: usage.counts[:, 1].astype(np.float64),
    "most recently used": lambda usage, clock: -usage.counts[:, 1].astype(np.float64),
    "random": lambda usage, clock: RANDOM.random(len(usage.counts)),
}
# policy, threads, slots beyond those of one token (None: all), whether guesses are made, and whether experts come from a pack
CASES = (
    ("ours", 1, 0, False, False),
    ("ours", 2, 0, True, True),
    ("ours", 2, 2, True, False),
    ("ours", 2, None, True, False),
    ("least recently used", 2, 1, False, True),
    ("most recently used", 3, 0, True, False),
    ("random", 1, 2, True, True),
)


def greedy(name, path, count, **options):
    """Tokens behind a prompt, and a digest of all logits."""
    step, store = opened(path, **options)
    row = run(step, prompt_of(name), 0)[-1]
    digest, tokens, at = hashlib.sha256(row.tobytes()), [], len(prompt_of(name))
    for position in range(at, at + count):
        tokens.append(int(row.argmax()))
        row = run(step, tokens[-1:], position)[0]
        digest.update(row.tobytes())
    misses = None if store.experts is None else store.experts.statistics.misses
    step.close()
    store.close()
    return tokens, digest.hexdigest(), misses


def check(name, path, count, cases, monkeypatch):
    expected = greedy(name, path, count)
    assert len(expected[0]) == count
    assert greedy(name, path, count, residency="eager", threads=1)[:2] == expected[:2]
    target = packed(path)
    for policy, threads, more, look_ahead, from_pack in cases:
        monkeypatch.setattr(Usage, "scores", POLICIES[policy])
        monkeypatch.setattr(Trial, "wanted", True)
        monkeypatch.setattr(Trial, "end", lambda trial, tokens, guessed: None)
        slots = (64 if more is None else 0, 4) if more is None else more + 3
        packs = (target,) if from_pack else ()
        found = greedy(name, path, count, slots=slots, threads=threads, look_ahead=look_ahead, packs=packs, by_row=True)
        assert found[:2] == expected[:2], (policy, threads, more, look_ahead, from_pack)
        assert found[2], "nothing was read"


@pytest.mark.parametrize(("name", "quant"), [("gpt-oss", "F32"), ("deepseek3", "Q8_0")])  # the latter in tile order
def test_streamed_tokens(name, quant, tmp_path, monkeypatch):
    check(name, tiny(name, "gguf", tmp_path, quant), 24, CASES[2:3] + CASES[6:], monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "format", "quant"),
    [(name, format, "F32") for name in FAMILIES for format in ("gguf", "huggingface")] + [("qwen3moe", "gguf", "Q8_0")],
)
def test_a_thousand_streamed_tokens(name, format, quant, tmp_path, monkeypatch):
    check(name, tiny(name, format, tmp_path, quant, max_position_embeddings=1100), 1000, CASES, monkeypatch)
