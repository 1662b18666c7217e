"""Packs: the same bits with fewer reads, and nothing of another model or of a damaged file."""

import json
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import lacewing
from lacewing.errors import ModelFormatError, OptionError
from lacewing.options import LoadOptions
from lacewing.placement.info import ModelInfo
from lacewing.placement.packing import find_pack_of, target_of
from lacewing.weights.experts import descriptors
from lacewing.weights.experts import pack as pack_module
from lacewing.weights.experts.pack import find_pack, is_pack, link_pack, open_pack, pack_places
from lacewing.weights.experts.packing import verify_pack, write_pack
from tests.checkpoints import tiny
from tests.weights.experts.packs import damaged, least_memory, packed, planned

IDS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 3, 200, 11, 12, 5, 7, 8]


@pytest.fixture
def path(tmp_path):
    return tiny("qwen3moe", "gguf", tmp_path, "Q4_0")


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
