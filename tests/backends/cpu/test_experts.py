"""Streamed experts of a step: where its kernels look for them."""

import numpy as np

from tests.checkpoint_files import write_gguf_tensors
from tests.checkpoints import prompt_of
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
