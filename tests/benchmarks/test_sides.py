"""A side runs in its own process and answers; llama.cpp itself is not needed here."""

from pathlib import Path

import numpy as np
import pytest
from benchmarks.peer import Peer, PeerError
from benchmarks.sides import Side


def test_lacewing_answers(tiny_path, tmp_path):
    with Side("lacewing", tiny_path, 1, 64, "lazy", "reference") as side:
        speed = side.ask("speed", prompt=8, generate=2)
        assert speed["prompt"] > 0 and speed["generate"] > 0
        side.ask("logits", ids=[1, 2, 3], to=str(tmp_path / "rows.npy"))
        rows = np.load(tmp_path / "rows.npy")
        assert rows.shape[0] == 3 and rows.dtype == np.float32
        side.ask("logits", ids=[1, 2, 3], to=str(tmp_path / "each.npy"), at_once=False)
        np.testing.assert_allclose(np.load(tmp_path / "each.npy"), rows, rtol=1e-4, atol=1e-5)
        memory = side.ask("memory")
        assert memory["residency"] == "lazy" and memory["kv_bytes"] >= 0 and memory["bytes_per_token"] > 0


def test_a_side_that_dies_is_noticed(tmp_path, capfd):
    with (
        Side("lacewing", tmp_path / "no.gguf", 1, 64, "lazy", "reference") as side,
        pytest.raises(RuntimeError, match="ended with 1"),
    ):
        side.ask("facts")
    assert "there is no file" in capfd.readouterr().err


def test_a_folder_without_libraries(tmp_path):
    with pytest.raises(PeerError, match="holds no libggml-base"):
        Peer(tmp_path, Path("model.gguf"), 1, 8)
