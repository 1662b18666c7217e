"""Whole tiny models on WebGPU: against transformers' golden logits, the reference and the CPU backend; and the engine on top.

tests/models/test_architectures.py has every form of every architecture for the other backends; here each kind of op comes in one.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

import lacewing
from lacewing.backends.batch import Batch
from lacewing.backends.cpu import CpuBackend
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.backends.step import Step
from lacewing.backends.webgpu.device.raw import Recorder
from lacewing.backends.webgpu.lowering import linear
from lacewing.errors import Cancelled, OptionError
from tests import paged
from tests.backends.cpu.single_ops import nmse
from tests.backends.webgpu.single_ops import CODES, FLOATS, backend
from tests.checkpoints import CONTEXTS, prompt_of, tiny
from tests.models.golden import VALUES
from tests.models.running import greedy, open_step, run
from tests.paged import with_pages

GOLDEN = [("llama", "gguf"), ("llama-biases", "huggingface"), ("mistral", "huggingface"), ("qwen2", "gguf"),
          ("qwen3", "huggingface"), ("phi3-long", "huggingface"), ("gemma2", "gguf"), ("gemma3", "huggingface"),
          ("mixtral", "gguf"), ("qwen3moe", "huggingface"), ("olmoe", "gguf"), ("glm4moe", "huggingface"), ("gpt-oss", "gguf"),
          ("llama4", "huggingface"), ("deepseek2", "huggingface"), ("deepseek3", "gguf"),
          ("mistral4", "huggingface"), ("lfm2", "gguf"), ("lfm2", "huggingface"),
          ("qwen3next", "huggingface"), ("qwen35", "gguf"), ("qwen35-equal", "huggingface"), ("qwen35moe", "gguf"),
          ("deepseek32", "gguf"), ("glm-dsa", "huggingface"),
          ("gemma4", "gguf"), ("gemma4-edge", "huggingface"), ("gemma4-moe", "gguf"), ("gemma3n", "huggingface"),
          ("granitemoe-shared", "gguf"), ("olmo3", "huggingface"), ("cohere-plus", "gguf"), ("stablelm-12b", "huggingface"),
          ("phimoe-jitter", "huggingface"), ("phi", "gguf"), ("apertus", "huggingface"), ("qwen2moe", "gguf"),
          ("hunyuan-moe", "gguf"), ("ernie4_5-moe", "huggingface"), ("minimax-m2", "gguf"), ("lfm2moe", "gguf"),
          ("exaone4", "huggingface"), ("bailingmoe2", "gguf"),
          ("granitehybrid", "gguf"), ("granitehybrid-moe", "huggingface"), ("nemotron_h", "gguf"),
          ("nemotron_h-latent", "huggingface"), ("mamba2", "gguf"), ("falcon-h1", "huggingface"),
          ("step35", "gguf"), ("kimi-linear", "gguf")]  # fmt: skip
ALL = "subgroups,dot,half"  # what a GPU gets
QUANTISED = [("llama-wide", "Q4_K", FLOATS), ("gemma3-wide", "Q6_K", CODES), ("phi3", "Q4_0", "dot"), ("olmoe", "Q8_0", CODES),
             ("llama-wide", "Q4_K", ALL)]  # fmt: skip


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def divergence(expected: np.ndarray, found: np.ndarray) -> float:
    """Mean KL divergence of a row, in nats."""
    p, q = log_softmax(expected), log_softmax(found)
    return float((np.exp(p) * (p - q)).sum(-1).mean())


@pytest.mark.parametrize(("name", "format"), GOLDEN)
def test_logits_and_greedy_tokens_are_those_of_transformers(name: str, format: str, tmp_path: Path) -> None:
    path, ids = tiny(name, format, tmp_path), prompt_of(name)
    _, step = open_step(path, CONTEXTS.get(name), backend(), chunk=64)
    found = run(step, ids)
    np.testing.assert_allclose(found[VALUES["rows"]], VALUES[f"{name}.logits"], rtol=0, atol=1e-4)  # the promise is 1e-3
    continued = VALUES[f"{name}.greedy"].tolist()
    assert greedy(step, ids, len(continued)) == continued
    step.close()
    _, cpu = open_step(path, CONTEXTS.get(name), CpuBackend(1))
    assert divergence(run(cpu, ids), found) < 1e-6  # the promise is 1e-4
    cpu.close()
    assert backend().device.allocated == 0


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_both_formats_agree(name: str, tmp_path: Path) -> None:
    steps = [open_step(tiny(name, format, tmp_path), 64, backend(), chunk=32)[1] for format in ("gguf", "huggingface")]
    first, second = (run(step, prompt_of(name)) for step in steps)
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-5)  # rows of queries and keys come in another order
    for step in steps:
        step.close()


@pytest.mark.parametrize(("name", "quant", "variant"), QUANTISED)
def test_quantised_models(name: str, quant: str, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Activations lose a little to their bytes, as much as on the CPU backend, whose bytes are nearly the same."""
    path, ids, coded = tiny(name, "gguf", tmp_path, quant), prompt_of(name, 32), "dot" in variant
    (_, step), (_, reference) = open_step(path, 64, backend(variant), chunk=32), open_step(path, 64, ReferenceBackend(exact=False))
    found, expected = run(step, ids), run(reference, ids)
    assert nmse(found, expected) < (1e-3 if coded else 1e-6)
    one_by_one = np.concatenate([run(step, [token], at) for at, token in enumerate(ids)])
    assert nmse(one_by_one, expected) < (1e-3 if coded else 1e-6)
    if coded:
        _, cpu = open_step(path, 64, CpuBackend(1))
        monkeypatch.setattr(linear, "DOT_TOKENS", 8)  # so many tokens by GEMM, whose sums are in the CPU's order
        _, tiles = open_step(path, 64, backend(variant), chunk=32)
        assert divergence(run(cpu, ids), run(tiles, ids)) < 1e-4
        tiles.close()
        same_words(step, cpu, ids, 24)
        cpu.close()
    step.close()


def same_words(step: Step, other: Step, ids: list[int], count: int) -> None:
    """Equal greedy text up to ties: where it parts, the two logits are as near as the rounding to bytes moves them."""
    ours, others = greedy(step, ids, count), greedy(other, ids, count)
    parts = next((at for at, (a, b) in enumerate(zip(ours, others, strict=True)) if a != b), None)
    if parts is not None:
        row = run(other, [*ids, *others[:parts]])[-1]
        assert row[others[parts]] - row[ours[parts]] < 0.05 * row.std(), f"token {parts}"


@pytest.mark.parametrize(("dtype", "variant"), [("F16", CODES), ("BF16", CODES), ("F16", ALL)])
def test_half_precision(dtype: str, variant: str, tmp_path: Path) -> None:
    """Where products are of float16 numbers they are nearly as exact."""
    path, ids = tiny("qwen3", "huggingface", tmp_path, dtype), prompt_of("qwen3")
    _, step = open_step(path, 64, backend(variant), chunk=32)
    _, reference = open_step(path, 64, ReferenceBackend(exact=False))
    found, expected = run(step, ids), run(reference, ids)
    if variant == ALL:
        assert nmse(found, expected) < 1e-5 and divergence(expected, found) < 1e-5
    else:
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 if dtype == "F16" else 1e-4)
    step.close()


def test_neighbours_and_parts_change_nothing_that_matters(tmp_path: Path) -> None:
    """Two rows in one step, and prompts cut anywhere. Kernels for few and for many tokens add in another order."""
    path, ids, other = tiny("gemma2", "gguf", tmp_path), prompt_of("gemma2", 40), prompt_of("llama", 20)
    _, step = open_step(path, 64, backend(), rows=3, chunk=48)
    whole = run(step, ids)
    for sizes in ((13, 27), (1, 2, 37), (39, 1)):
        starts = np.cumsum((0, *sizes)).tolist()
        found = [run(step, ids[start : start + size], start, row=1) for start, size in zip(starts, sizes, strict=False)]
        np.testing.assert_allclose(np.concatenate(found), whole, rtol=0, atol=1e-4)
    run(step, ids[:20], row=2)
    mixed_ids = other + ids[20:]
    rows, positions = [0] * 20 + [2] * 20, np.r_[0:20, 20:40]
    mixed = paged.run(step, mixed_ids, rows, positions, np.arange(20, 40))
    np.testing.assert_allclose(mixed, whole[20:], rtol=0, atol=1e-4)
    step.close()


def test_prompts_are_submitted_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drivers end what keeps a slow GPU busy for long. A token is one submission, as is a short prompt."""
    _, step = open_step(tiny("llama", "gguf", tmp_path), None, backend(), chunk=64)
    ids = prompt_of("llama", 20)
    whole, submissions, submit = run(step, ids), [], Recorder.submit
    monkeypatch.setattr(Recorder, "submit", lambda recorder: submissions.append(recorder) or submit(recorder))
    monkeypatch.setattr("lacewing.backends.webgpu.step.step.AT_ONCE", 5)
    assert np.array_equal(run(step, ids), whole) and len(submissions) > 3
    for few in (ids[:1], ids[:16]):
        submissions.clear()
        run(step, few)
        assert len(submissions) == 1
    step.close()


def test_an_abort_between_submissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long prompt stops there; the step goes on, and what the run did not touch is as before. Without a run it does nothing."""
    _, step = open_step(tiny("llama-wide", "gguf", tmp_path), None, backend(), rows=2, chunk=64)
    ids, submissions, submit = prompt_of("llama", 40), [0], Recorder.submit
    step.abort()
    whole, other = run(step, ids), run(step, ids[:8], row=1)
    monkeypatch.setattr("lacewing.backends.webgpu.step.step.AT_ONCE", 5)
    all_of_them = [0]
    for stop in (0, 1, 3):
        submissions[0] = 0

        def counted(recorder: Recorder, stop: int = stop) -> int:
            submissions[0] += 1
            if submissions[0] == stop:
                step.abort()
            return submit(recorder)

        with monkeypatch.context() as patched:
            patched.setattr(Recorder, "submit", counted)
            if not stop:
                run(step, ids)
                all_of_them[0] = submissions[0]
                continue
            with pytest.raises(Cancelled, match="aborted"):
                run(step, ids)
            assert submissions[0] <= stop + 1 < all_of_them[0]
        assert np.array_equal(run(step, ids[8:9], 8, row=1), run(step, ids[8:9], 8, row=1))
        assert np.array_equal(run(step, ids), whole)
    assert np.array_equal(run(step, ids[:8], row=1), other)
    step.close()


def test_batches_of_every_kind_of_model(tmp_path: Path) -> None:
    """Windows, latent keys, an index, mixtures, hybrids: pieces of prompts and decoded tokens of several rows, as each alone."""
    for name in ("gemma3", "deepseek3", "gpt-oss", "lfm2", "qwen35moe", "glm-dsa"):
        (_, step), (_, reference) = (
            open_step(tiny(name, "gguf", tmp_path), 200, each, rows=4, chunk=64) for each in (backend(FLOATS), ReferenceBackend())
        )
        ids = [prompt_of(name, 40)[::turn] for turn in (1, -1)] + [prompt_of(name, 30), prompt_of(name, 40)]
        expected = [run(reference, each[:36], row=row) for row, each in enumerate(ids)]
        with_pages(step, shuffle=3)
        found: list[list[np.ndarray]] = [[] for _ in ids]
        done = [0] * 4
        for sizes in ((5, 20, 0, 1), (1, 0, 17, 1), (1, 1, 1, 1), (20, 3, 1, 16), (0, 1, 1, 1), (1, 1, 1, 1)):
            rows = [row for row, size in enumerate(sizes) for _ in range(size)]
            positions = [done[row] + at for row, size in enumerate(sizes) for at in range(size)]
            tokens = [ids[row][position] for row, position in zip(rows, positions, strict=True)]
            logits = paged.run(step, tokens, rows, positions, range(len(rows)))
            for row, size in enumerate(sizes):
                at = sum(sizes[:row])
                found[row].append(logits[at : at + size].copy())
                done[row] += size
        for row, (got, wanted) in enumerate(zip(found, expected, strict=True)):
            np.testing.assert_allclose(np.concatenate(got), wanted[: done[row]], rtol=0, atol=2e-3, err_msg=f"{name}, row {row}")
        step.close()


def test_a_part_of_a_prompt_is_done_when_its_run_returns(tmp_path: Path) -> None:
    """Also one that nothing is read of: else all of a long prompt would be under way before anybody can cancel it."""
    _, step = open_step(tiny("llama-wide", "gguf", tmp_path), None, backend(), chunk=64)
    ids = prompt_of("llama", 64)
    for count in (64, 8):
        step.run(Batch.of(ids[:count], 0, []))
        assert step.device.binding.idle(step.device.device)
    step.close()


def test_a_token_does_not_see_its_neighbours(tmp_path: Path) -> None:
    """In steps of the same size the bits of a sequence are the same, whatever else is in the other rows."""
    _, step = open_step(tiny("llama-wide", "gguf", tmp_path, "Q4_K"), 32, backend(), rows=2, chunk=16)
    first, second = prompt_of("llama", 4), prompt_of("qwen3", 4)
    rows, positions = np.repeat([0, 1], 4), np.tile(np.arange(4), 2)
    found = [paged.run(step, first + rest, rows, positions, range(8))[:4].copy() for rest in (second, first, second[::-1])]
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
    step.close()


@pytest.fixture
def model(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[lacewing.Model]:
    monkeypatch.setenv("LACEWING_WEBGPU_CHECKS", "1")
    with lacewing.load(tiny_path, backend="webgpu", context=256) as made:
        yield made


def test_the_engine_on_top(model: lacewing.Model, tiny_path: Path) -> None:
    """Prefixes are used again, there is nothing to read into RAM, a model opened anew answers alike, and long prompts are cut."""
    device = model.backend.device  # type: ignore[attr-defined]
    assert model.weights.residency == "lazy" and model.memory_bytes == 0 and "copied to" in model.plan.reasons[0]
    answer = model.generate("hello there", temperature=0, max_tokens=8)
    assert model.stats["reused_tokens"] == 0
    assert model.generate("hello there", temperature=0, max_tokens=8) == answer
    assert model.stats["reused_tokens"] > 0
    logits = model.logits(prompt_of("llama"))
    with pytest.raises(OptionError, match="eager is about weights in RAM"):
        model.set_residency("eager")
    with lacewing.load(tiny_path, backend="webgpu", adapter=0, context=256) as other:  # two models on one device
        assert other.backend.device is device  # type: ignore[attr-defined]
        held = device.allocated
        assert np.array_equal(other.logits(prompt_of("llama")), logits)
    assert device.allocated < held
    assert model.generate("hello there", temperature=0, max_tokens=8) == answer
    model.close()
    with pytest.raises(OptionError, match="closed"):
        model.generate("hello")
    assert device.allocated == 0
    with lacewing.load(tiny_path, backend="cpu", context=256) as cpu:
        assert divergence(cpu.logits(prompt_of("llama")), logits) < 1e-4


def test_cancelling_an_answer(model: lacewing.Model) -> None:
    told: list[tuple[str, int, int]] = []
    stream = model.stream(
        "hello " * 40, temperature=0, max_tokens=50, cancelled=lambda: len(told) > 0, progress=lambda *x: told.append(x)
    )
    assert "".join(stream) == "" and stream.finish_reason == "cancelled"
    assert model.generate("hello", temperature=0, max_tokens=4)


def test_fifty_swaps_leak_nothing(tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the device's memory nothing, of the process's nothing that grows."""
    monkeypatch.setenv("LACEWING_WEBGPU_CHECKS", "1")
    paths, process, sizes = (tiny_path, tiny("llama", "gguf", tmp_path, "Q8_0")), psutil.Process(), []
    for turn in range(50):
        with lacewing.load(paths[turn % 2], backend="webgpu", context=1024) as model:
            model.logits([1, 2, 3])
            device = model.backend.device  # type: ignore[attr-defined]
            assert device.allocated > 2**21
        assert device.allocated == 0 and device.buffers == []
        if turn % 10 == 9:
            gc.collect()
            sizes.append(process.memory_info().rss)
    assert sizes[-1] - sizes[1] < 2**23  # a model takes 3 MB at least: 30 of them would be ten times as much


def test_smollm2_from_the_command_line(smollm2_path: Path) -> None:
    """A real model, end to end, on the adapter of the tests: the greedy words are those of the CPU backend."""
    words = [sys.executable, "-m", "lacewing", "run", str(smollm2_path), "The capital of France is", "--raw", "--temperature", "0"]
    words += ["--max-tokens", "4", "--context", "128"]
    found = []
    for name in ("webgpu", "cpu"):
        left = {key: value for key, value in os.environ.items() if not key.startswith(("LACEWING_WEBGPU", "GALLIVM"))}
        done = subprocess.run([*words, "--backend", name], capture_output=True, text=True, timeout=300, env=left)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout)
    assert found[0] == found[1] and "Paris" in found[0]


REAL_TEXTS = (
    "The history of computing begins long before the machine",
    "Water boils at a lower temperature on top of a mountain, because",
    "def fibonacci(n):\n    if n < 2:\n        return n\n",
    "In the middle of the night the old captain climbed to the deck and looked at the stars",
    "Photosynthesis turns light, carbon dioxide and water into sugar and oxygen",
)


def test_a_real_model_is_as_exact_as_on_the_processor(smollm2_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With float32 activations the reference's logits; rounded to bytes, no further from them than the CPU backend's.

    Two roundings of a real model cannot agree: the CPU backend differs from itself by a divergence of 0.003 where one bit of the
    first norm is another, as different codes of one layer are different codes everywhere in the third. One short text may be twice
    as far, and the next one nearer: so several together.
    """
    monkeypatch.setenv("LACEWING_WEBGPU_CHECKS", "1")
    found = {}
    for name, variant in (("reference", ""), ("cpu", ""), ("webgpu", "none"), ("webgpu", ALL)):
        monkeypatch.setenv("LACEWING_WEBGPU", variant)
        texts = REAL_TEXTS[:1] if variant == "none" else REAL_TEXTS
        with lacewing.load(smollm2_path, backend=name, context=32) as made:
            found[name, variant] = np.concatenate([made.logits(made.tokenizer.encode_prompt(text)) for text in texts])
    exact = found["reference", ""]
    floats = found["webgpu", "none"]
    assert divergence(exact[: len(floats)], floats) < 1e-5
    assert nmse(found["webgpu", ALL], exact) < 1.5 * nmse(found["cpu", ""], exact) < 3e-3
