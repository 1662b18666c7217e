"""Greedy tokens are the same, and so are all logits, in the three residencies: whatever the policy, the threads and the slots."""

import hashlib

import numpy as np
import pytest

from lacewing.weights.experts.policy import Usage
from lacewing.weights.experts.trial import Trial
from tests.checkpoints import prompt_of, tiny
from tests.models.running import run
from tests.weights.experts.streaming import opened

FAMILIES = ("qwen3moe", "mixtral", "olmoe", "deepseek2", "deepseek3", "glm4moe", "gpt-oss", "llama4")
RANDOM = np.random.default_rng(0)
POLICIES = {
    "ours": Usage.scores,
    "least recently used": lambda usage, clock: usage.counts[:, 1].astype(np.float64),
    "most recently used": lambda usage, clock: -usage.counts[:, 1].astype(np.float64),
    "random": lambda usage, clock: RANDOM.random(len(usage.counts)),
}
# policy, threads, slots beyond those of one token (None: all), whether guesses are made, quant of the experts
CASES = (
    ("ours", 1, 0, False),
    ("ours", 2, 0, True),
    ("ours", 2, 2, True),
    ("ours", 2, None, True),
    ("least recently used", 2, 1, False),
    ("most recently used", 3, 0, True),
    ("random", 1, 2, True),
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


def check(name, format, path, count, cases, monkeypatch):
    expected = greedy(name, path, count)
    assert len(expected[0]) == count
    assert greedy(name, path, count, residency="eager", threads=1)[:2] == expected[:2]
    for policy, threads, more, look_ahead in cases:
        monkeypatch.setattr(Usage, "scores", POLICIES[policy])
        monkeypatch.setattr(Trial, "wanted", True)
        monkeypatch.setattr(Trial, "end", lambda trial, tokens: None)
        slots = (64 if more is None else 0, 4) if more is None else more + 3
        found = greedy(name, path, count, slots=slots, threads=threads, look_ahead=look_ahead)
        assert found[:2] == expected[:2], (policy, threads, more, look_ahead)
        assert found[2], "nothing was read"


@pytest.mark.parametrize("name", ["gpt-oss", "deepseek3"])
def test_streamed_tokens(name, tmp_path, monkeypatch):
    check(name, "gguf", tiny(name, "gguf", tmp_path), 24, CASES[2:3] + CASES[6:], monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["gguf", "huggingface"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_thousand_streamed_tokens(name, format, tmp_path, monkeypatch):
    check(name, format, tiny(name, format, tmp_path, max_position_embeddings=1100), 1000, CASES, monkeypatch)
