"""A mixture whose experts are on a GPU, in RAM and on the disk: when that is planned, and what a model does that is."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest

import lacewing
from lacewing.backends import init_backend
from lacewing.cli import main
from lacewing.errors import ModelFormatError, OptionError, OutOfMemoryError
from lacewing.offload import rebalance
from lacewing.offload.plan import OffloadLevel, OffloadPlanner
from lacewing.options import GPU, LoadOptions
from lacewing.placement.info import ModelInfo
from lacewing.placement.place import place
from lacewing.placement.requirements import target_on
from tests.checkpoints import tiny
from tests.placement.test_place import IDS, _floats, load, room_for  # noqa: F401  # one is a fixture
from tests.weights.experts.packs import packed

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny("qwen3moe", "gguf", tmp_path_factory.mktemp("streamed"))


@pytest.fixture(scope="module")
def wanted(path):
    with lacewing.load(path, backend="reference", context=64) as model:
        return model.logits(IDS)


@pytest.fixture
def options(path):
    """For three of eight experts of both layers on the GPU."""
    return {"gpu_memory": room_for(path, 2, 3)}


def info_of(path, **options):
    return ModelInfo(path, LoadOptions(GPU, context=64, threads=1, **options), warm=False)


def test_experts_of_all_layers_go_to_the_gpu(path):
    """As many of each as fit, where half of some layers' would go without streaming."""
    info = info_of(path)
    planner = OffloadPlanner(info.spec.program, target_on(info, init_backend(GPU)))
    assert planner.levels(spread=True)[1:8] == [OffloadLevel(shared=2, resident=resident) for resident in range(7, 0, -1)]
    room = planner.load(OffloadLevel(shared=2, resident=5)).nbytes
    found = place(info_of(path, gpu_memory_bytes=room, residency="streamed"))
    assert found.offload is not None and found.offload.level.shared == 2 and found.offload.level.resident >= 5
    assert found.plan.residency == "streamed" and found.summary == "GPU and CPU, streamed"
    assert found.plan.slots.layer == 8 - found.offload.level.resident  # more would never be used
    told = " ".join(found.plan.reasons)
    assert f"{found.offload.level.resident} are on the GPU, {found.plan.slots.layer} in RAM and 0 on the disk alone" in told
    rows = {row.name: row for row in found.plan.rows}
    assert rows["streamed"].nbytes == 0 and rows["slots"].nbytes == found.plan.slots.nbytes


def test_a_model_that_fits_neither_is_streamed(tmp_path):
    """As by itself, and the number of slots is what RAM has room for."""
    path = tiny("llama4", "gguf", tmp_path)
    info = info_of(path)
    target = target_on(info, init_backend(GPU))
    room = OffloadPlanner(info.spec.program, target).load(OffloadLevel(shared=4, resident=1)).nbytes
    eager = place(info_of(path, gpu_memory_bytes=room, residency="eager")).plan.needed_bytes
    assert place(info_of(path, gpu_memory_bytes=room, memory_bytes=eager)).plan.residency != "streamed"
    found = place(info_of(path, gpu_memory_bytes=room, memory_bytes=eager - 1))
    assert found.plan.residency == "streamed" and found.offload.level == OffloadLevel(shared=4, resident=1)
    assert found.plan.slots.layer == 2 and found.plan.needed_bytes < eager
    told = " ".join(found.plan.reasons)
    assert "on the CPU: streamed: everything would take" in told and "1 are on the GPU, 2 in RAM and 1 on the disk alone" in told
    assert {row.name: row.nbytes for row in found.plan.rows}["streamed"] > 0
    with pytest.raises(OutOfMemoryError, match="streaming needs"):
        place(info_of(path, gpu_memory_bytes=room, residency="streamed", memory_bytes=4096))
    with lacewing.load(path, backend="reference", context=64) as model:
        expected = model.logits(IDS)
    with load(path, gpu_memory=room, memory=eager - 1) as model:
        np.testing.assert_allclose(model.logits(IDS), expected, rtol=0, atol=1e-4)
        assert model.weights.residency == "streamed" and model.memory_bytes <= eager - 1


def test_what_fits_the_gpu_is_not_streamed(path):
    found = place(info_of(path, residency="streamed"))
    assert found.offload is None and found.summary == "GPU" and "nothing is streamed" in found.plan.reasons[-1]
    dense = tiny("llama", "gguf", path.parent)
    with pytest.raises(OptionError, match="only mixtures of experts are streamed"):
        place(info_of(dense, residency="streamed", gpu_layers=1))


@pytest.mark.parametrize("layers", [0, 1])
def test_layers_that_a_person_asks_for(path, wanted, layers):
    """Their experts are on the CPU alone, and are streamed there."""
    with load(path, gpu_layers=layers, residency="streamed") as model:
        assert len(model.weights.experts.layers) == 2 - layers and model.plan.residency == "streamed"
        np.testing.assert_allclose(model.logits(IDS), wanted, rtol=0, atol=1e-4)
        assert model.step.cache_statistics is None and model.weights.experts.statistics.misses


def test_residencies_change_while_it_runs(path, options, wanted):
    """With the same bits, as long as the same experts are on the GPU; and back from being closed."""
    with load(path, residency="lazy", **options) as model:
        expected = model.logits(IDS)
        np.testing.assert_allclose(expected, wanted, rtol=0, atol=1e-4)
        for residency in ("streamed", "eager", "streamed", "lazy"):
            model.set_residency(residency)
            assert model.weights.residency == model.plan.residency == residency
            assert np.array_equal(model.logits(IDS), expected)
            assert model.memory_bytes <= model.plan.needed_bytes
        model.set_residency("streamed")
        model.close()
        model.return_to_device()
        assert model.weights.residency == "streamed" and model.weights.experts is not None
        np.testing.assert_allclose(model.logits(IDS), wanted, rtol=0, atol=1e-4)


def test_experts_move_while_an_answer_is_made(path, options, wanted, monkeypatch):
    monkeypatch.setattr(rebalance, "EVERY", 2)
    with load(path, residency="streamed", **options) as model:
        model.generate("Hello world", max_tokens=24, temperature=0, ignore_eos=True)
        use = model.weights.experts.statistics
        assert use.uploaded and use.elsewhere and use.hits and use.misses
        np.testing.assert_allclose(model.logits(IDS), wanted, rtol=0, atol=1e-4)
        before = use.uploaded
        model.generate("Hello world", max_tokens=24, temperature=0, ignore_eos=True)
        assert use.uploaded - before < 24  # of 96 choices: they have settled


def test_the_next_session_begins_with_what_was_used_most(path, options):
    with load(path, residency="streamed", **options) as model:
        model.generate("Hello world", max_tokens=30, temperature=0, ignore_eos=True)
        layers = model.weights.experts.layers
        for layer in layers:
            layer.usage.look(int(layer.clock[0]))
        best = [set(np.argsort(-layer.usage.history, kind="stable")[:3].tolist()) for layer in layers]
    with load(path, residency="streamed", **options) as model:
        tier = model.step._rebalancer.manager.tier
        assert [set(np.flatnonzero(layer.resident).tolist()) for layer in tier.layers] == best
        assert best != [{0, 1, 2}] * 2
        assert model.weights.experts.warm_start.wait(10)
        assert not any((layer.in_ram & layer.elsewhere).any() for layer in model.weights.experts.layers)
    with load(path, residency="streamed", cold_start=True, **options) as model:
        assert all(np.flatnonzero(layer.resident).tolist() == [0, 1, 2] for layer in model.step._rebalancer.manager.tier.layers)


def test_a_pack_is_used(tmp_path, monkeypatch):
    """Whose rows are in the kernels' order, and go to the GPU in the file's."""
    monkeypatch.setattr(rebalance, "EVERY", 2)
    monkeypatch.setenv("LACEWING_WEBGPU", "dot,subgroups")
    path = tiny("qwen3moe", "gguf", tmp_path, "Q8_0")
    room, found = room_for(path, 2, 3), []
    for pack in (False, True):
        if pack:
            packed(path)
        with load(path, residency="streamed", gpu_memory=room, cold_start=True) as model:
            assert (model.weights.experts.pack is not None) == pack and not model.weights.notices
            rows = [*model.logits(IDS), *(model.engine.extend([token]).copy() for token in (5, 9, 5, 9, 5, 9, 5, 9, 5, 9))]
            assert model.weights.experts.statistics.uploaded
            found.append(np.stack(rows))
    assert np.array_equal(*found)


def test_a_disk_that_fails_fails_that_request_alone(path, options, monkeypatch):
    with load(path, residency="streamed", cold_start=True, **options) as model:
        with monkeypatch.context() as patch:

            def failing(descriptor, regions, offset):
                raise OSError(5, "Input/output error")

            patch.setattr("lacewing.weights.experts.reading.os.preadv", failing)
            with pytest.raises(ModelFormatError, match="Input/output error"):
                model.generate("Hello world", max_tokens=4, temperature=0)
        assert len(model.generate("Hello world", max_tokens=4, temperature=0, ignore_eos=True)) and os.preadv is not None
        use = model.weights.experts.statistics
        assert use.reads


def test_commands_tell_where_experts_were(path, options, monkeypatch, capsys):
    def call(*words: object):
        monkeypatch.setattr(sys, "argv", ["lacewing", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    how = ("--backend", "webgpu", "--context", 64, "--gpu-memory", options["gpu_memory"], "--residency", "streamed")
    code, out, _ = call("info", path, *how)
    assert code == 0 and "3 are on the GPU, 5 in RAM and 0 on the disk alone" in out
    facts = json.loads(call("info", path, *how, "--json")[1])
    assert facts["plan"]["residency"] == "streamed" and facts["streaming"]["hits"]["even"] == 1.0
    code, out, _ = call("bench", path, *how, "--prompt", 8, "--generate", 16, "--repeats", 1, "--json")
    told = json.loads(out)["streamed"]
    assert code == 0 and told["gpu_hits"] and told["hits"] and told["misses"] and told["slots"] == 5
    assert told["uploads"] >= 0 and 0 < told["hit_rate"] <= 1
    out = call("bench", path, *how, "--prompt", 8, "--generate", 4, "--repeats", 1)[1]
    assert "5 slots a layer, 3 on the GPU (" in out
