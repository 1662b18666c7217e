"""Several sequences of a side, and the flags of the comparison; llama.cpp itself is not needed here."""

import pytest
from benchmarks.sides import Side
from benchmarks.together import PeerRuns

from benchmarks import sequences


class FakePeer:
    """Notes what it is asked to run."""

    vocab_size = 50

    def __init__(self):
        self.runs, self.copies = [], []

    def forget(self):
        self.runs, self.copies = [], []

    def copy(self, source, to):
        self.copies.append((source, to))

    def run(self, ids, positions, rows, outputs=None):
        self.runs.append((len(ids), list(positions)[-1], sorted(set(rows)), outputs))


def test_the_peer_reads_each_short_prompt_and_one_long_one():
    peer = FakePeer()
    runs = PeerRuns(peer, 3, 64)
    assert peer.runs == [(64, 63, [row], 1) for row in range(3)] and peer.copies == []
    assert runs.go(2) == 6
    assert peer.runs[3:] == [(3, 64, [0, 1, 2], None), (3, 65, [0, 1, 2], None)]
    PeerRuns(peer, 3, 4096)
    assert [run[:3] for run in peer.runs] == [(2048, 2047, [0]), (2048, 4095, [0])]
    assert peer.copies == [(0, 1), (0, 2)]


def test_our_sequences_generate(tiny_path):
    with Side("lacewing", tiny_path, 1, 256, "lazy", "reference", 2) as side:
        assert side.ask("together", count=2, context=8, steps=3)["generate"] > 0
        assert side.ask("all_logits", tokens=8)["prompt"] > 0


def test_flags(tmp_path, capsys):
    (tmp_path / "libllama.so").touch()
    options = sequences.parse(["--peer", str(tmp_path), "--counts", "1,8", "--models", "smollm2"])
    assert options.counts == [1, 8] and options.models == ["smollm2"] and options.context == 64
    with pytest.raises(SystemExit):
        sequences.parse(["--peer", str(tmp_path / "no")])
    assert "libraries" in capsys.readouterr().err
    assert sequences._order([1, 2], 1, keep=False) == [(1, -1), (2, -1), (1, 0), (2, 0)]
    assert sequences._order([1, 2], 1, keep=True) == [(1, -1), (1, 0), (2, -1), (2, 0)]
