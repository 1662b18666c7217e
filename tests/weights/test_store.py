"""The weight store: lazy and eager give the same bytes, changes are whole or not at all, memory goes back."""

from __future__ import annotations

import gc
import itertools
import mmap
import os
import time
from pathlib import Path

import numpy as np
import pytest

from lacewing.errors import LacewingError, ModelFormatError, OptionError, OutOfMemoryError, WeightError
from lacewing.formats import read
from lacewing.formats.checkpoint import ByteRange, TensorInfo
from lacewing.formats.read import identity
from lacewing.quants import by_name
from lacewing.weights import WeightStore, eager, memory, store
from tests.weights.stores import cancelled_at_every_look, contents

F32, Q8_0 = by_name("F32"), by_name("Q8_0")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "data"
    file.write_bytes(np.random.default_rng(0).integers(0, 256, 100_000, np.uint8).tobytes())
    return file


def tensors(path: Path) -> dict[str, TensorInfo]:
    """A matrix, a tied name for it, a norm, experts in two places, and an empty tensor."""
    matrix = (ByteRange(path, 512, 34 * 2 * 100),)
    experts = (ByteRange(path, 20_003, 4 * 6), ByteRange(path, 9_000, 4 * 6))
    return {
        "token_embd.weight": TensorInfo("token_embd.weight", (100, 64), Q8_0, matrix),
        "output.weight": TensorInfo("output.weight", (100, 64), Q8_0, matrix),
        "norm.weight": TensorInfo("norm.weight", (7,), F32, (ByteRange(path, 99_972, 28),)),
        "experts.weight": TensorInfo("experts.weight", (2, 2, 3), F32, experts),
        "empty.weight": TensorInfo("empty.weight", (0, 32), Q8_0, (ByteRange(path, 0, 0),)),
    }


def test_lazy_and_eager_are_equal(path: Path) -> None:
    weights = WeightStore(tensors(path))
    content = path.read_bytes()
    expected = {name: [content[p.offset : p.offset + p.nbytes] for p in t.ranges] for name, t in tensors(path).items()}
    assert weights.residency == "lazy" and weights.anonymous_bytes == 0 and len(weights) == 5
    assert weights.nbytes == 6800 + 28 + 48  # the tied one once
    for residency in ("eager", "lazy", "lazy", "eager", "eager"):
        assert contents(weights) == expected
        weights.set_residency(residency)
        assert weights.residency == residency and weights.anonymous_bytes == (weights.nbytes if residency == "eager" else 0)
    assert contents(weights) == expected
    assert repr(weights["norm.weight"]) == "Weight(norm.weight, 7, F32)"
    assert (weights["experts.weight"].dequantise().shape, weights["empty.weight"].dequantise().shape) == ((2, 2, 3), (0, 32))


def test_data_of_one_place_and_of_several(path: Path) -> None:
    weights = WeightStore(tensors(path))
    lazy = weights["norm.weight"].data
    assert lazy.dtype == np.uint8 and lazy.shape == (28,) and not lazy.flags.writeable
    with pytest.raises(WeightError, match="2 places"):
        _ = weights["experts.weight"].data
    parts = [part.copy() for part in weights["experts.weight"].parts]
    weights.set_residency("eager")
    assert (weights["experts.weight"].data == np.concatenate(parts)).all()
    for weight in weights.values():
        assert not weight.data.flags.writeable and (weight.nbytes == 0 or weight.data.ctypes.data % eager.CACHE_LINE == 0)
    assert weights["output.weight"].data is weights["token_embd.weight"].data


def test_lazy_addresses_stay(path: Path) -> None:
    weights = WeightStore(tensors(path))
    address = weights["norm.weight"].data.ctypes.data
    gc.collect()
    assert weights["norm.weight"].data.ctypes.data == address


def test_arrays_keep_their_memory(path: Path) -> None:
    weights = WeightStore(tensors(path))
    lazy = weights["norm.weight"].data
    weights.set_residency("eager")
    eager = weights["norm.weight"].data
    weights.set_residency("lazy")
    weights.close()
    del weights
    gc.collect()
    assert (lazy == eager).all() and lazy.tobytes() == path.read_bytes()[99_972:]


def test_progress_counts_bytes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "CHUNK", 1000)
    weights = WeightStore(tensors(path))
    seen: list[tuple[str, int, int]] = []
    weights.set_residency("eager", lambda *step: seen.append(step))
    assert [total for _, _, total in seen] == [weights.nbytes] * len(seen) and seen[-1][1] == weights.nbytes
    assert all(before[1] < after[1] for before, after in itertools.pairwise(seen)) and len(seen) >= 9


def test_cancelling_at_every_look_leaves_it_lazy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "CHUNK", 1000)
    weights = WeightStore(tensors(path))
    before = contents(weights)
    assert cancelled_at_every_look(weights) == 10
    assert weights.residency == "eager" and contents(weights) == before


def test_failing_allocation_and_file_leave_it_lazy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = WeightStore(tensors(path))
    before = contents(weights)

    def refuse(nbytes: int, purpose: str, nodes: tuple[int, ...]) -> np.ndarray:
        raise OutOfMemoryError(purpose)

    with monkeypatch.context() as patch:
        patch.setattr(eager, "allocate", refuse)
        with pytest.raises(OutOfMemoryError):
            weights.set_residency("eager")
    assert weights.residency == "lazy" and contents(weights) == before
    os.truncate(path, 99_980)
    with pytest.raises(ModelFormatError, match="changed or was replaced"):
        weights.set_residency("eager")
    assert weights.residency == "lazy" and weights.anonymous_bytes == 0


@pytest.mark.parametrize("change", ["overwritten", "set back", "replaced", "removed", "cut"])
def test_files_that_change_are_noticed(path: Path, change: str) -> None:
    weights = WeightStore(tensors(path))
    first = weights["norm.weight"].data.copy()
    weights.check_files()
    data, facts = path.read_bytes(), path.stat()
    if change == "overwritten":
        path.write_bytes(data[::-1])
        os.utime(path, ns=(1, 1))
    elif change == "set back":
        time.sleep(0.01)  # longer than a tick of the file system's clock
        path.write_bytes(data[::-1])
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    elif change == "replaced":
        (path.parent / "new").write_bytes(data[::-1])
        (path.parent / "new").replace(path)
        assert (weights["norm.weight"].data == first).all()  # a mapping holds the old file
    elif change == "removed":
        path.unlink()
    else:
        os.truncate(path, 100)
    for attempt in (weights.check_files, lambda: weights.set_residency("eager"), lambda: weights["token_embd.weight"].data):
        with pytest.raises(ModelFormatError, match=r"changed or was replaced|can no longer be read|became shorter"):
            attempt()
    assert weights.residency == "lazy"


def test_a_store_of_a_checkpoint_takes_its_files_only(path: Path) -> None:
    """Also one that is made after the file was replaced, as when a model comes back to its device."""
    files = {path: identity(path)}
    assert WeightStore(tensors(path), files)["norm.weight"].nbytes
    (path.parent / "new").write_bytes(path.read_bytes())
    (path.parent / "new").replace(path)
    later = WeightStore(tensors(path), files)
    for attempt in (later.check_files, lambda: later["norm.weight"].data, lambda: later.set_residency("eager")):
        with pytest.raises(ModelFormatError, match="changed or was replaced"):
            attempt()


def test_a_glance_at_the_files_is_rare(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a second and not for every token; a request looks at once, and what it finds is told again."""
    weights, looks, now = WeightStore(tensors(path)), [], [100.0]
    monkeypatch.setattr(store, "identity", lambda path: looks.append(path) or identity(path))
    monkeypatch.setattr(store.time, "monotonic", lambda: now[0])
    for _ in range(50):
        weights.glance()
    assert len(looks) == 1
    weights.check_files()
    weights.glance()
    assert len(looks) == 2
    now[0] += store.GLANCE_SECONDS
    os.truncate(path, 100)
    with pytest.raises(ModelFormatError, match="changed or was replaced"):
        weights.glance()
    with pytest.raises(ModelFormatError, match="changed or was replaced"):
        weights.check_files()
    monkeypatch.undo()


def test_eager_weights_are_not_looked_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = WeightStore(tensors(path))
    weights.set_residency("eager")
    path.unlink()
    monkeypatch.setattr(store, "GLANCE_SECONDS", 0.0)
    weights.glance()


def test_eager_weights_need_no_files(path: Path) -> None:
    weights = WeightStore(tensors(path))
    weights.set_residency("eager")
    before = contents(weights)
    path.unlink()
    weights.check_files()
    assert contents(weights) == before
    with pytest.raises(ModelFormatError, match="can no longer be read"):
        weights.set_residency("lazy")
    assert weights.residency == "eager" and contents(weights) == before


def test_only_some_are_ever_eager(path: Path) -> None:
    """Where a device has copies of the others; tied names share."""
    weights, told = WeightStore(tensors(path)), []
    before = contents(weights)
    weights.keep({"output.weight", "norm.weight"})
    weights.set_residency("eager", lambda what, done, total: told.append((done, total)))
    assert weights.anonymous_bytes == 34 * 2 * 100 + 28 and told[-1] == (34 * 2 * 100 + 28,) * 2
    assert np.shares_memory(weights["token_embd.weight"].data, weights["output.weight"].data)
    assert weights["experts.weight"]._owned is None and contents(weights) == before
    with pytest.raises(OptionError, match="lazy first"):
        weights.keep(None)
    weights.set_residency("lazy")
    weights.keep(None)
    weights.set_residency("eager")
    assert weights["experts.weight"]._owned is not None and contents(weights) == before


def test_wrong_residency_and_closed_store(path: Path) -> None:
    weights = WeightStore(tensors(path))
    with pytest.raises(OptionError, match="auto"):
        weights.set_residency("auto")
    weights.close()
    with pytest.raises(WeightError, match="closed"):
        _ = weights["norm.weight"].data
    with pytest.raises(LacewingError, match="closed"):
        weights.set_residency("eager")


def test_allocation() -> None:
    block = memory.allocate(5 * 2**20, "a test")
    assert block.ctypes.data % 4096 == 0 and not block.any() and block.shape == (5 * 2**20,)
    block[:] = 1
    assert memory.allocate(0, "nothing").shape == (0,)
    with pytest.raises(OutOfMemoryError, match=r"gives no .* for weight a"):
        memory.allocate(2**60, "weight a")


def test_allocation_on_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    class Area(mmap.mmap):
        def madvise(self, *_: int) -> None:
            raise OSError("no huge pages")

    monkeypatch.setattr(memory.mmap, "mmap", Area)
    assert memory.allocate(memory.HUGE_FROM, "a kernel without huge pages").size == memory.HUGE_FROM
    monkeypatch.delattr(memory.mmap, "MAP_ANONYMOUS")
    assert memory.allocate(4096, "Windows").size == 4096


def resident_kib() -> tuple[int, int]:
    """Anonymous and file pages of this process, in KiB."""
    lines = dict(line.split()[:2] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Rss"))
    return int(lines["RssAnon:"]), int(lines["RssFile:"])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_memory_comes_and_goes(tmp_path: Path) -> None:
    size = 64 * 2**20
    path = tmp_path / "big"
    path.write_bytes(os.urandom(2**20) * 64)
    weights = WeightStore({"w": TensorInfo("w", (size // 4,), F32, (ByteRange(path, 0, size),))})
    start = resident_kib()
    total = int(weights["w"].data.sum(dtype=np.uint64))
    lazy = resident_kib()
    weights.set_residency("eager")
    eager = resident_kib()
    assert total == int(weights["w"].data.sum(dtype=np.uint64))
    weights.set_residency("lazy")
    gc.collect()
    end = resident_kib()
    mib = 1024
    assert lazy[1] - start[1] > 60 * mib and lazy[0] - start[0] < 8 * mib  # file pages, not ours
    assert eager[0] - start[0] > 60 * mib and eager[1] - start[1] < 8 * mib  # ours, and the mapping let go
    assert end[0] - start[0] < 8 * mib and end[1] - start[1] < 8 * mib
