"""Streamed experts of a step: where its kernels look for them, and what they do of a run."""

import ctypes

import numpy as np
import pytest

from lacewing.backends.cpu.arguments import GATED
from lacewing.backends.cpu.experts import ExpertWalk
from tests.checkpoint_files import write_gguf_tensors
from tests.checkpoints import prompt_of, tiny
from tests.models.running import run
from tests.models.test_old_files import of_ollama, parts_of
from tests.weights.experts.streaming import opened


def test_kernels_are_told_of_a_warm_start_after_every_change_of_residency(tmp_path, monkeypatch):
    """Experts that came to the slots of a second cache are in the tables of their own that some kernels have, too."""
    _, keys, tensors = parts_of("gpt-oss")
    path = write_gguf_tensors(tmp_path / "blob", "gptoss", keys, of_ollama(tensors), "F32")  # gate and up in one stack
    ids = prompt_of("gpt-oss")[:6]
    step, store = opened(path, (4, 4), history=tmp_path / "history")
    lowering, expected, told = step._lowering, [], []
    assert lowering.expert_tables
    begin = step._experts.begin_run

    def check():
        begin()
        for name, tables in lowering.expert_tables.items():
            slots = lowering.weights[name].slots
            for skipped, table in tables:
                np.testing.assert_array_equal(table, np.where(slots.addresses[name], slots.addresses[name] + skipped, 0))
                told.append(np.count_nonzero(table))

    for _ in range(10):  # worth keeping
        expected = run(step, ids, 0)
    for _ in range(2):
        store.set_residency("lazy")
        step.rebind()
        np.testing.assert_array_equal(run(step, ids, 0), expected)
        store.set_residency("streamed")
        step.rebind()
        store.experts.begin_warm_start()
        assert store.experts.warm_start.wait(10) and store.experts.statistics.warmed
        with monkeypatch.context() as patch:
            patch.setattr(step._experts, "begin_run", check)
            np.testing.assert_array_equal(run(step, ids, 0), expected)
        assert all(told)
    step.close()
    store.close()


@pytest.mark.parametrize(("name", "quant"), [("qwen3moe", "Q8_0"), ("gpt-oss", "F32")])
def test_activations_of_experts_that_a_run_is_not_about_are_left_out(name, quant, tmp_path, monkeypatch):
    """A prompt passes through the shared slots in many runs, each of which would do all of them again."""
    path, ids = tiny(name, "gguf", tmp_path, quant), prompt_of(name)
    step, store = opened(path)
    expected = run(step, ids, 0)
    step.close()
    store.close()
    step, store = opened(path, (3, 2))
    activations = [op for op in step.ops if op.layout is GATED and op.arguments["groups"]]
    assert len(activations) == len(step._experts._chains)
    part = activations[0].arguments
    parts, words = part["parts"], part["width"] // part["parts"]
    seen, walk = [], step._experts

    def rows(op):
        """float32 (tokens, parts, columns): what an activation writes."""
        stride = op.arguments["out_stride"]
        memory = (ctypes.c_float * (len(ids) * stride // 4)).from_address(op.arguments["out"])
        return np.frombuffer(memory, np.float32).reshape(len(ids), -1)[:, : parts * words].reshape(-1, parts, words)

    def put(chain, pairs, some):
        ExpertWalk._put(walk, chain, pairs, some)
        done = np.concatenate([pairs.of[expert] for expert in some.tolist()])
        seen.append((done, np.setdiff1d(np.arange(parts * len(ids)), done)))

    def run_ops(first, end):
        inside = [op for op in step.ops[first:end] if op in activations] if seen else []
        for op in inside:
            rows(op)[:] = 7
        run_all(first, end)
        for op in inside:
            done, others = seen.pop()
            assert len(others) and (rows(op)[others // parts, others % parts] == 7).all()
            assert (rows(op)[done // parts, done % parts] != 7).any(axis=-1).all()
            count.append(len(done))

    count, run_all = [], step._run_ops
    monkeypatch.setattr(walk, "_put", put)
    monkeypatch.setattr(step, "_run_ops", run_ops)
    np.testing.assert_array_equal(run(step, ids, 0), expected)
    assert sum(count) == len(walk._chains) * parts * len(ids)
    step.close()
    store.close()
