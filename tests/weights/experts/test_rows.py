"""An embedding that streaming leaves on the disk: its rows are read for each run, and give the bits that it gives in RAM."""

import os
import sys
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest

import lacewing
from lacewing.backends import init_backend
from lacewing.backends.batch import Batch
from lacewing.errors import Cancelled, ModelFormatError
from lacewing.formats.checkpoint import ByteRange
from lacewing.formats.read import identity
from lacewing.options import LoadOptions
from lacewing.placement import requirements as requirements_module
from lacewing.placement.info import CHUNK, ModelInfo
from lacewing.placement.place import place
from lacewing.placement.requirements import by_row
from lacewing.weights.experts import rows as rows_module
from lacewing.weights.experts.reading import ExpertReader
from lacewing.weights.experts.rows import AT_ONCE, RECENT, RowTable, row_table_bytes
from tests import sparse_files
from tests.checkpoints import tiny
from tests.models.running import run
from tests.weights.experts.packs import packed
from tests.weights.experts.streaming import opened

EMBEDDING = "token_embd.weight"
IDS = np.random.default_rng(0).integers(0, 256, 90).tolist()  # more than are read at a time, some of them twice
QUANTS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "TQ2_0")


@pytest.mark.parametrize("quant", QUANTS)  # of each kind of kernel; some are in tile order in RAM
def test_rows_from_the_disk_give_the_same_bits(quant, tmp_path):
    path = tiny("qwen3moe", "gguf", tmp_path, quant)
    (lazy, _), (whole, in_ram), (streamed, store) = opened(path), opened(path, 4), opened(path, 4, by_row=True)
    assert len(set(IDS)) > AT_ONCE
    for ids, at in ((IDS[:70], 0), (IDS[70:71], 70), (IDS[71:], 71)):
        expected = run(lazy, ids, at)
        np.testing.assert_array_equal(run(whole, ids, at), expected)
        np.testing.assert_array_equal(run(streamed, ids, at), expected)
    table, nbytes = store[EMBEDDING].row_table, store[EMBEDDING].nbytes
    assert table is not None and in_ram[EMBEDDING].row_table is None
    assert nbytes <= in_ram.anonymous_bytes - store.anonymous_bytes <= nbytes + 64  # it is not in RAM
    streamed.close()
    store.close()


def test_a_residency_is_changed_and_changed_back(tmp_path):
    """Also with a pack, which the experts come from and the rows do not."""
    path = tiny("qwen3moe", "gguf", tmp_path, "Q8_0")
    expected = run(opened(path)[0], IDS)
    step, store = opened(path, 4, by_row=True, packs=[packed(path)])
    for residency in ("streamed", "eager", "streamed", "lazy", "streamed"):
        store.set_residency(residency)
        step.rebind()
        assert (store[EMBEDDING].row_table is None) == (residency != "streamed")
        np.testing.assert_array_equal(run(step, IDS), expected)
    step.close()
    store.close()


def test_tokens_that_come_as_embeddings_need_no_row(tmp_path):
    path = tiny("qwen3moe", "gguf", tmp_path)
    (lazy, weights), (streamed, store) = opened(path), opened(path, 4, by_row=True)
    given = weights[EMBEDDING].dequantise()[[7, 9]]
    for tokens in ([5, -1, 6, -2], [-1, -2, -1, -2]):
        batch = replace(Batch.of([0] * 4, 0, [0, 1, 2, 3]), tokens=np.array(tokens, np.int32), embeddings=given)
        np.testing.assert_array_equal(streamed.run(batch), lazy.run(batch))
    for each in (streamed, lazy, store):
        each.close()


@pytest.mark.parametrize("format", ["gguf", "huggingface"])
@pytest.mark.parametrize(("name", "found"), [("llama-tied", set()), ("llama", {EMBEDDING})])
def test_a_tied_embedding_stays_in_ram(name, found, format, tmp_path, monkeypatch):
    """All of it is read for each token."""
    monkeypatch.setattr(requirements_module, "WORTH_BYTES", -(2**30))
    info = ModelInfo(tiny(name, format, tmp_path), LoadOptions(), warm=False)
    assert by_row(info, init_backend("cpu", 1), None) == found


def table_of(tmp_path, count=100, row_bytes=5000):
    """A table of random bytes behind others in a file, which is not on a page."""
    content = np.random.default_rng(1).integers(0, 256, (count, row_bytes), np.uint8)
    path = tmp_path / "table"
    path.write_bytes(b"x" * 777 + content.tobytes())
    reader = ExpertReader({path: identity(path)})
    return content, reader, RowTable(reader, ByteRange(path, 777, content.nbytes), count)


def test_a_run_that_was_given_up_writes_to_no_later_one(tmp_path, monkeypatch):
    """Reads that are under way go on; nobody else gets their memory before they end."""
    content, reader, table = table_of(tmp_path)
    submit, held = reader.submit, []

    def slowly(part, region):
        read = Future()
        held.append((read, part, region))
        return read

    def give_up():
        raise Cancelled("a test")

    def end_them():
        for read, part, region in held:
            submit(part, region).result()
            read.set_result(None)
        held.clear()
        monkeypatch.setattr(reader, "submit", submit)

    monkeypatch.setattr(reader, "submit", slowly)
    found = np.empty((3, content.shape[1]), np.uint8)
    with pytest.raises(Cancelled):
        table.read(np.array([1, 2, 3]), found, give_up)
    assert len(held) == 3
    table.read(np.array([99, 0, 99]), found, end_them)  # they end while it waits
    np.testing.assert_array_equal(found, content[[99, 0, 99]])
    assert not held
    reader.close()


def test_an_interrupt_before_a_read_is_noted(tmp_path, monkeypatch):
    """It goes on, and ends whenever it does: not in memory that others read to."""
    content, reader, table = table_of(tmp_path)
    submit, begun = reader.submit, []

    def interrupted(part, region):
        begun.append(region)
        raise KeyboardInterrupt

    def beside(part, region):
        read = submit(part, region)
        read.result()
        begun[0][:] = 255
        return read

    found = np.empty((1, content.shape[1]), np.uint8)
    monkeypatch.setattr(reader, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        table.read(np.array([1]), found, lambda: None)
    monkeypatch.setattr(reader, "submit", beside)
    table.read(np.array([2]), found, lambda: None)
    np.testing.assert_array_equal(found[0], content[2])
    reader.close()


def test_rows_of_late_are_not_read_again(tmp_path, monkeypatch):
    """Whatever the order; those that were used longest ago leave."""
    count = 2 * RECENT
    content, reader, table = table_of(tmp_path, count, 40)
    submit, rng, seen, last = reader.submit, np.random.default_rng(2), list[ByteRange](), dict[int, int]()
    monkeypatch.setattr(reader, "submit", lambda part, region: (seen.append(part), submit(part, region))[1])
    runs = [rng.integers(0, count, size) for size in (1, 3, 3, 400, 1, 700, 20, 2000, *[5] * 40)]
    for time, rows in enumerate([*runs, np.arange(count), np.arange(RECENT)]):
        recent = set(sorted(last, key=last.__getitem__)[-RECENT:]) if len(last) > RECENT else set(last)
        found, distinct = np.empty((len(rows), 40), np.uint8), sorted(set(rows.tolist()))
        seen.clear()
        table.read(rows, found, lambda: None)
        np.testing.assert_array_equal(found, content[rows])
        assert [(part.offset - 777) // 40 for part in seen] == [row for row in distinct if row not in recent]
        last |= {row: count * time + place for place, row in enumerate(distinct)}
    assert len(seen) == RECENT  # the run before has used all others since
    reader.close()


def test_an_interrupt_at_any_line_mixes_up_no_rows(tmp_path):
    """Ctrl-C comes wherever Python is; a row that is kept where another one is would be wrong without anybody noticing."""
    content, reader, table = table_of(tmp_path, 2 * RECENT, 40)
    left = 0  # lines until the interrupt

    def interrupt(frame, event, argument):
        nonlocal left
        if frame.f_code.co_filename != rows_module.__file__:
            return None
        left -= event == "line"
        if event == "line" and not left:
            raise KeyboardInterrupt
        return interrupt

    def read(rows):
        found = np.empty((len(rows), 40), np.uint8)
        table.read(rows, found, lambda: None)
        return found

    for line in range(1, 100):
        read(np.arange(RECENT))  # no place is free
        left = line
        sys.settrace(interrupt)
        try:
            read(np.array([RECENT + line, 3, RECENT + line + 1]))
            break
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        for rows in (np.arange(2 * RECENT - 9, 2 * RECENT), np.arange(RECENT)):
            np.testing.assert_array_equal(read(rows), content[rows])
    assert 40 < line < 99
    reader.close()


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setattr(requirements_module, "WORTH_BYTES", -(2**30))  # tiny ones as well
    path = tiny("qwen3moe", "gguf", tmp_path, "Q8_0")
    with lacewing.load(path, backend="cpu", residency="streamed", threads=2, context=64) as model:
        assert model.weights[EMBEDDING].row_table is not None
        yield model


def test_a_plan_counts_what_stays_in_ram_for_the_rows(tmp_path, monkeypatch):
    """No more is used beyond the plan than with the embedding in RAM."""
    path, left = tiny("qwen3moe", "gguf", tmp_path, "F32"), []
    for worth in (2**40, -(2**30)):
        monkeypatch.setattr(requirements_module, "WORTH_BYTES", worth)
        with lacewing.load(path, backend="cpu", residency="streamed", threads=1, context=64) as model:
            table = model.weights[EMBEDDING].row_table
            used = model.memory_bytes + (0 if table is None else sum(each.nbytes for each in (*table._regions, table._kept)))
            left.append(model.plan.needed_bytes - used)
    assert table is not None and 0 <= left[0] <= left[1]


def test_a_file_that_shrinks_or_fails_is_an_error_of_the_request(model, monkeypatch):
    """The process lives, and so does the model once the file is whole again."""
    expected, (part,) = model.logits([1, 2, 3]), model.weights[EMBEDDING].ranges  # whose rows are kept: others are asked for below
    read = os.preadv

    def fail(descriptor, buffers, offset):
        if part.offset // 4096 * 4096 <= offset < part.offset + part.nbytes and sum(map(len, buffers)) <= 8192:
            raise OSError(5, "Input/output error")
        return read(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(ModelFormatError, match="Input/output error") as failed:
        model.logits([4, 5, 6])
    assert failed.value.path == str(part.path)
    monkeypatch.setattr(os, "preadv", read)
    np.testing.assert_array_equal(model.logits([1, 2, 3]), expected)
    os.truncate(part.path, part.offset)
    monkeypatch.setattr(model.weights, "_check_files", lambda: None)
    monkeypatch.setattr(model.weights.experts.reader._files, "_files", {part.path: identity(part.path)})
    with pytest.raises(ModelFormatError, match="became shorter"):
        model.logits([7, 8, 9])


def test_a_large_embedding_makes_room_for_experts(tmp_path, monkeypatch):
    """That of Qwen3-30B-A3B is not in the trunk; one that is small stays there."""
    info = ModelInfo(sparse_files.write("qwen3-30b-a3b", "gguf", tmp_path, 2), LoadOptions(), warm=False)
    table, found = info.spec.tensors[EMBEDDING], []
    for worth in (requirements_module.WORTH_BYTES, table.nbytes):
        monkeypatch.setattr(requirements_module, "WORTH_BYTES", worth)
        found.append(place(info, LoadOptions(backend="cpu", residency="streamed", memory_bytes=900 * 2**20, context=64)).plan)
    rows = [{row.name: row.nbytes for row in plan.rows} for plan in found]
    saved = table.nbytes - row_table_bytes(table.nbytes // table.shape[0], CHUNK)
    assert rows[0]["embedding"] == saved == rows[1]["trunk"] - rows[0]["trunk"] > 2**24 and "embedding" not in rows[1]
    more, each = found[0].slots.layer - found[1].slots.layer, sum(layer.nbytes for layer in found[0].mixtures)
    assert saved // each <= more <= saved // each + 1
    assert max(plan.needed_bytes for plan in found) <= 900 * 2**20
