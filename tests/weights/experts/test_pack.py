"""Packs: the same bits with fewer reads, nothing of another model, and what an interrupt, a full disk and damage leave."""

import errno
import json
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import lacewing
from lacewing.errors import Cancelled, ModelFormatError, OptionError
from lacewing.options import LoadOptions
from lacewing.placement.info import ModelInfo
from lacewing.placement.packing import find_pack_of, plan_of, target_of
from lacewing.weights.experts import descriptors, packing
from lacewing.weights.experts import pack as pack_module
from lacewing.weights.experts.pack import find_pack, is_pack, link_pack, open_pack, pack_places
from lacewing.weights.experts.packing import verify_pack, write_pack
from tests.checkpoints import tiny
from tests.weights.experts.packs import least_memory, packed

IDS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 3, 200, 11, 12, 5, 7, 8]


@pytest.fixture
def path(tmp_path):
    return tiny("qwen3moe", "gguf", tmp_path, "Q4_0")


def planned(path):
    info = ModelInfo(path, LoadOptions(), warm=False)
    return plan_of(info), info.checkpoint.identities


def logits(path, residency="streamed"):
    """Of a prompt and some tokens, and the experts' cache; with as few slots as there can be."""
    memory = least_memory(path, context=64) if residency == "streamed" else None
    with lacewing.load(path, backend="cpu", residency=residency, threads=2, context=64, memory=memory) as model:
        found = [model.logits(IDS[:end]) for end in (9, 10, 11, 13, 14, 16)]
        cache = model.weights.experts
        return np.concatenate(found), cache, model.notices


@pytest.mark.parametrize(
    ("name", "format", "quant"),
    [
        ("qwen3moe", "gguf", "Q8_0"),  # in tile order
        ("llama4", "huggingface", "BF16"),  # one weight holds the rows of two outputs, stored (inputs, outputs)
        ("deepseek3", "huggingface", "F32"),  # a range for each expert
        ("gpt-oss", "gguf", "Q4_1"),
    ],
)
def test_the_same_bits_with_one_read_an_expert(name, format, quant, tmp_path):
    path = tiny(name, format, tmp_path, quant)
    expected, plain, _ = logits(path)
    target = packed(path)
    found, cache, notices = logits(path)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found, logits(path, "eager")[0])
    assert cache.pack.path == target and not notices
    assert cache.statistics.misses == cache.statistics.reads == plain.statistics.misses
    assert cache.slots.layer < cache.layers[0].experts and cache.statistics.misses > sum(each.experts for each in cache.layers)
    assert format == "huggingface" or plain.statistics.reads == 3 * plain.statistics.misses
    assert (quant[0] == "Q") == all(layer.tiled for layer in cache.pack.layers)
    assert verify_pack(*planned(path), target) > 0


def test_experts_in_many_files(tmp_path, monkeypatch):
    """Of which one may be open at a time; matrices of an expert are in different ones."""
    path = tiny("qwen3moe", "huggingface", tmp_path)
    expected = logits(path, "lazy")[0]
    tensors = load_file(path / "model.safetensors")
    parts = [{name: tensors[name] for name in list(tensors)[number::7]} for number in range(7)]
    for number, part in enumerate(parts):
        save_file(part, path / f"model-{number + 1:05}-of-00007.safetensors")
    where = {name: f"model-{number + 1:05}-of-00007.safetensors" for number, part in enumerate(parts) for name in part}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (path / "model.safetensors").unlink()
    monkeypatch.setattr(descriptors, "most_open", lambda: 1)
    found, plain, _ = logits(path)
    np.testing.assert_array_equal(found, expected)
    assert plain.statistics.reads == 3 * plain.statistics.misses
    packed(path)
    found, cache, _ = logits(path)
    np.testing.assert_array_equal(found, expected)
    assert cache.pack is not None and cache.statistics.reads == cache.statistics.misses
    os.utime(path / where["model.layers.1.mlp.experts.3.up_proj.weight"], (1, 1))
    assert logits(path)[1].pack is None


def test_a_pack_of_another_state_of_the_model(path, tmp_path):
    """It is named and not used."""
    target = packed(path)
    expected = logits(path)[0]
    facts = os.stat(path)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    found, cache, (notice,) = logits(path)
    np.testing.assert_array_equal(found, expected)
    assert cache.pack is None and str(target) in notice and "before it changed" in notice and "lacewing pack" in notice
    with pytest.raises(ModelFormatError, match="before it changed"):
        verify_pack(*planned(path), target)
    packed(path)  # anew, over the old one
    assert logits(path)[1].pack.path == target
    content = bytearray(path.read_bytes())
    content[-5] ^= 1  # other weights of the same geometry, size and time
    path.write_bytes(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    assert logits(path)[1].pack is None
    other = tiny("qwen3moe", "gguf", tmp_path, "Q4_1")
    shutil.copy(target, pack_places(other)[0])
    assert logits(other)[1].pack is None


def test_a_model_that_was_moved_with_its_pack(path, tmp_path):
    target = packed(path)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    shutil.copy2(path, folder)
    shutil.copy2(target, folder)
    assert logits(folder / path.name)[1].pack.path == folder / target.name


def damaged(target, change):
    target.write_bytes(change(target.read_bytes()))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda content: content[:-4096], " bytes instead of "),
        (lambda content: content + bytes(4096), " bytes instead of "),
        (lambda content: content[:-8192] + bytes(8192), "not copied to its end"),
        (lambda content: b"LACEPACK" + b"\xff" * 8 + content[16:], "no pack of experts"),
        (lambda content: b"LACEPACK" + (5).to_bytes(8, "little") + b"[[[[[", "no pack of experts"),
        (lambda content: b"", "no pack of experts"),
        (lambda content: content.replace(b'"version":1', b'"version":9'), "another version of Lacewing"),
        (lambda content: content.replace(b'"orders":[[', b'"orders":[{', 1), "no pack of experts"),
        (lambda content: content.replace(b'"sizes":[', b'"sizes":[1', 1), "no pack of experts"),
    ],
)
def test_what_is_no_whole_pack(path, change, problem):
    target, plan = packed(path), planned(path)[0]
    damaged(target, change)
    with pytest.raises(ModelFormatError, match=problem):
        open_pack(target, plan)
    found = find_pack([target], lambda: plan)
    assert found.pack is None and problem in found.problem and str(target) in found.problem


def test_kernels_of_another_cpu(path, monkeypatch):
    target = packed(path)
    tiles = planned(path)[0].layers[0].tiles[0]
    monkeypatch.setattr(pack_module, "_tiles", lambda *_: tiles.__class__(2 * tiles.rows, tiles.row_bytes, tiles.group_bytes))
    with pytest.raises(ModelFormatError, match="kernels of another CPU"):
        open_pack(target, planned(path)[0])


def test_large_damage_is_found_when_a_pack_is_opened(path):
    """Such a pack is named, not used, and written anew."""
    target, (plan, _) = packed(path), planned(path)
    whole, expected = target.read_bytes(), logits(path)[0]
    for layer in plan.layers:
        end = layer.at + layer.experts * layer.slot_bytes
        damaged(target, lambda _, at=layer.at, end=end: whole[:at] + bytes(byte ^ 1 for byte in whole[at:end]) + whole[end:])
        assert not is_pack(target, plan)
    found, cache, (notice,) = logits(path)
    np.testing.assert_array_equal(found, expected)
    assert (
        cache.pack is None and f"{target}, byte " in notice and "is damaged" in notice and "`lacewing pack` rewrites it" in notice
    )
    assert packed(path) == target and target.read_bytes() == whole


def test_damage_is_found_by_comparing(path, monkeypatch):
    """Where opening does not look: at the first expert and the last, here."""
    monkeypatch.setattr(pack_module, "CHECKED", 2)
    target = packed(path)
    plan, files = planned(path)
    at = plan.layers[0].at + 3 * plan.layers[0].slot_bytes
    damaged(target, lambda content: content[: at + 10] + bytes([content[at + 10] ^ 1]) + content[at + 11 :])
    with pytest.raises(ModelFormatError, match=rf"byte {at}: is damaged here"):
        verify_pack(plan, files, target)


def test_an_interrupted_pack_goes_on(path, tmp_path, monkeypatch):
    """What the disk has for certain is not written again."""
    plan, files = planned(path)
    whole = packed(path).read_bytes()
    target = tmp_path / "again.experts"
    each = plan.layers[0].slot_bytes
    monkeypatch.setattr(packing, "SYNC_BYTES", 2 * each)
    seen = []
    with pytest.raises(Cancelled, match="kept for the next try"):
        write_pack(plan, files, target, lambda _, done, total: seen.append(done), lambda: len(seen) >= 5)
    assert not target.exists() and len(seen) == 5
    made = write_pack(plan, files, target)
    assert (made.nbytes, made.kept) == ((plan.experts - 4) * each, 4 * each)
    assert target.read_bytes() == whole and not target.with_name(target.name + packing.PARTIAL).exists()


def test_what_was_begun_for_another_state_of_the_model_is_not_kept(path, tmp_path, monkeypatch):
    plan, files = planned(path)
    target, seen = tmp_path / "again.experts", []
    monkeypatch.setattr(packing, "SYNC_BYTES", 1)
    with pytest.raises(Cancelled):
        write_pack(plan, files, target, lambda *done: seen.append(done), lambda: len(seen) >= 3)
    os.utime(path, (1, 1))
    plan, files = planned(path)
    made = write_pack(plan, files, target)
    assert made.kept == 0 and made.nbytes == plan.expert_bytes
    assert verify_pack(plan, files, target)


def test_a_model_that_changes_while_it_is_packed(path, tmp_path):
    plan, files = planned(path)

    def change(what, done, total):
        if done == total:
            os.utime(path, (1, 1))

    with pytest.raises(ModelFormatError, match="changed or was replaced while it was packed"):
        write_pack(plan, files, tmp_path / "never.experts", change)
    assert not (tmp_path / "never.experts").exists()


def test_a_disk_without_room(path, tmp_path, monkeypatch):
    plan, files = planned(path)
    target, usage = tmp_path / "full.experts", shutil.disk_usage(tmp_path)
    partial = target.with_name(target.name + packing.PARTIAL)
    with monkeypatch.context() as patch:
        patch.setattr(packing.shutil, "disk_usage", lambda _: usage._replace(free=1000))
        with pytest.raises(OptionError, match=r"has 1000 B free; make room, or choose another place with `--output`"):
            write_pack(plan, files, target)
    assert not partial.exists()
    real, count = os.pwrite, [0]

    def pwrite(descriptor, data, offset):
        count[0] += len(data) > 64
        if count[0] > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        with pytest.raises(OptionError, match="No space left on device; make room and pack again"):
            write_pack(plan, files, target)
    with partial.open("rb") as file:
        os.fsync(file.fileno())  # a file system may count blocks only then
    there = partial.stat().st_blocks * 512  # experts without a digest, which are written over
    with monkeypatch.context() as patch:
        patch.setattr(packing.shutil, "disk_usage", lambda _: usage._replace(free=plan.expert_bytes - there - 1))
        with pytest.raises(OptionError, match=r"make room, or choose another place"):
            write_pack(plan, files, target)
        assert there > 0 and partial.stat().st_blocks * 512 == there
        patch.setattr(packing.shutil, "disk_usage", lambda _: usage._replace(free=plan.expert_bytes - there))
        assert write_pack(plan, files, target).kept == 0
    assert write_pack(plan, files, target).path == target and verify_pack(plan, files, target)


def test_two_processes_do_not_write_one_pack(path, tmp_path):
    plan, files = planned(path)
    target = tmp_path / "one.experts"
    descriptor = packing._open(target.with_name(target.name + packing.PARTIAL))
    with pytest.raises(OptionError, match="written by another process"):
        write_pack(plan, files, target)
    os.close(descriptor)
    write_pack(plan, files, target)
    (tmp_path / "folder").mkdir(mode=0o500)
    with pytest.raises(OptionError, match="cannot be written"):
        write_pack(plan, files, tmp_path / "one.experts" / "two.experts")


def test_only_packs_are_overwritten(path, tmp_path):
    plan, files = planned(path)
    target = tmp_path / "notes.txt"
    for name in ("notes.txt", "notes.txt.partial"):
        other = tmp_path / name
        other.write_text("not to be lost")
        with pytest.raises(OptionError, match=f"{name} is there and is no pack of experts"):
            write_pack(plan, files, target)
        assert other.read_text() == "not to be lost"
        other.write_text("")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OptionError, match="not a regular file"):
        write_pack(plan, files, tmp_path / "pipe")
    write_pack(plan, files, target)
    assert write_pack(plan, files, target).path == target


def test_a_file_system_without_locks(path, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(packing.fcntl, "flock", refuse)
    with pytest.raises(OptionError, match="cannot be locked on its file system: No locks available; choose another place"):
        write_pack(*planned(path), tmp_path / "one.experts")


def test_where_packs_are(path, tmp_path, monkeypatch):
    """Beside the model; in the cache, if the model's folder cannot be written to; elsewhere, with a link in the cache."""
    monkeypatch.setattr(pack_module, "cache_dir", lambda: tmp_path / "cache")
    info = ModelInfo(path, LoadOptions(), warm=False)
    beside, cached = pack_places(path)
    assert beside == path.with_name(path.name + ".experts") and cached.parent == tmp_path / "cache" / "packs"
    assert target_of(info, None) == beside
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        assert target_of(info, None) == cached
    assert target_of(info, str(tmp_path)) == beside
    for new in (f"{tmp_path}/new/", f"{tmp_path}/new/one.experts", f"{path}/"):
        with pytest.raises(OptionError, match=r"there is no folder .*(new|gguf); make it first, or choose another place"):
            target_of(info, new)
    assert target_of(info, f"{tmp_path}/") == beside and not (tmp_path / "new").exists()
    with pytest.raises(OptionError, match="is the model itself"):
        target_of(info, str(path))
    plan, files = planned(path)
    elsewhere = tmp_path / "disk" / "fast.experts"
    write_pack(plan, files, elsewhere)
    assert find_pack((beside, cached), lambda: plan).pack is None
    link_pack(elsewhere, (beside, cached))
    link_pack(elsewhere, (beside, cached))
    assert find_pack_of(info, plan).pack.path == cached and logits(path)[1].pack.path == cached
    elsewhere.unlink()
    assert "can no longer be read" in find_pack_of(info, plan).problem
    folder = tiny("qwen3moe", "huggingface", tmp_path)
    assert pack_places(folder)[0] == folder / "model.experts"


def test_what_has_no_experts(tiny_path):
    with pytest.raises(OptionError, match="is no mixture of experts; there is nothing to pack"):
        planned(tiny_path)
