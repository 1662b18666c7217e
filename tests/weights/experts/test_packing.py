"""Writing packs and comparing them: what an interrupt, a full disk and damage leave."""

import errno
import os
import shutil

import pytest

from lacewing.errors import Cancelled, ModelFormatError, OptionError
from lacewing.weights.experts import pack as pack_module
from lacewing.weights.experts import packing
from lacewing.weights.experts.packing import verify_pack, write_pack
from tests.checkpoints import tiny
from tests.weights.experts.packs import damaged, packed, planned


@pytest.fixture
def path(tmp_path):
    return tiny("qwen3moe", "gguf", tmp_path, "Q4_0")


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


def test_what_has_no_experts(tiny_path):
    with pytest.raises(OptionError, match="is no mixture of experts; there is nothing to pack"):
        planned(tiny_path)
