"""The state of a sequence as bytes: what is put back goes on as before, on another step, after another history, and from files of
version 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lacewing
from lacewing.engine.saved import VERSION_1, VERSION_2, state_size
from lacewing.errors import OptionError
from tests.checkpoints import prompt_of, tiny
from tests.tolerance import assert_equal_up_to_rounding

KINDS = ("llama", "gemma3", "gpt-oss", "deepseek3", "lfm2", "qwen35", "granitehybrid", "glm-dsa", "falcon-h1")
VERSION_1_FILE = Path(__file__).parents[1] / "data" / "state-version-1.npz"  # written before states had pages, F16, on the CPU


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [3, 128, 131])
def test_a_state_moves_to_another_step(kind, length, tmp_path):
    path, ids = tiny(kind, "gguf", tmp_path), np.random.default_rng(length).integers(0, 300, length).tolist()
    options = {"backend": "reference", "context": 300}
    with lacewing.load(path, **options) as one, lacewing.load(path, **options) as other:
        one.engine.extend(ids)
        other.engine.extend([5] * 140)  # so that its pages are not empty
        held, data = one.read_state()
        assert held == ids and data.startswith(VERSION_2) and len(data) == state_size(one.step.groups, length, VERSION_2)
        other.write_state(held, data)
        assert other.engine.cached == ids and other.engine.held([*ids, 1]) == length
        assert_equal_up_to_rounding(other.engine.extend([7]).copy(), one.engine.extend([7]))
        assert other.read_state()[1] == one.read_state()[1]


def test_what_stands_behind_the_last_position_is_not_written(tmp_path):
    with lacewing.load(tiny("llama", "gguf", tmp_path), backend="reference", context=300) as model:
        ids = prompt_of("llama", 40)
        model.engine.extend(ids)
        before = model.read_state()[1]
        model.engine.extend([11] * 50)  # its own: in the page behind what follows
        model.engine.scheduler.last = ids
        assert model.read_state() == (ids, before)


@pytest.mark.parametrize("token", [-1, 100_000, 1.5, None])
def test_ids_outside_the_vocabulary_are_refused(token, tmp_path):
    with lacewing.load(tiny("llama", "gguf", tmp_path), backend="reference", context=300) as model:
        model.engine.extend(ids := prompt_of("llama")[:9])
        data = model.read_state()[1]
        with pytest.raises(OptionError, match="outside this model's vocabulary of 320"):
            model.write_state([*ids[:8], token], data)
        assert model.engine.cached == ids


@pytest.mark.parametrize("kind", ["gpt-oss", "deepseek3"])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_files_of_version_1(kind, backend, tmp_path):
    with np.load(VERSION_1_FILE) as file:
        ids, data, row = (file[f"{kind}.{name}"] for name in ("ids", "data", "row"))
    with lacewing.load(tiny(kind, "gguf", tmp_path, "F16"), backend=backend, context=256, threads=1) as model:
        assert len(data) == state_size(model.step.groups, len(ids), VERSION_1)
        model.write_state(ids.tolist(), data.tobytes())
        assert model.engine.held(ids.tolist()) == len(ids)
        runs = []
        run = model.step._run
        model.step._run = lambda batch: (runs.append(len(batch.tokens)), run(batch))[1]
        np.testing.assert_allclose(model.engine.extend([7]), row, atol=2e-3)
        assert runs == [1]


def test_version_1_has_no_units(tmp_path):
    with lacewing.load(tiny("lfm2", "gguf", tmp_path), backend="reference", context=256) as model:
        assert state_size(model.step.groups, 9, VERSION_1) == -1
        with pytest.raises(OptionError, match="another model"):
            model.write_state([1, 2], VERSION_1 + bytes(100))
