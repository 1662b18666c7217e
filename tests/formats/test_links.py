"""Links of checkpoints: what a person named may be anywhere; what comes along with it stays inside, unless links are followed."""

import os
from pathlib import Path

import pytest

import lacewing
from lacewing import load_tokenizer
from lacewing.errors import LacewingError, ModelFormatError
from lacewing.formats import open_checkpoint, open_texts
from lacewing.options import LoadOptions
from lacewing.placement.info import ModelInfo
from tests.checkpoints import tiny
from tests.formats.test_gguf import split


@pytest.fixture
def disk(tmp_path):
    """Another disk, with a Hugging Face directory and GGUF files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    return folder


def linked(folder: Path, target: Path) -> Path:
    """A folder with a link to each file of another."""
    folder.mkdir(parents=True)
    for file in target.iterdir():
        (folder / file.name).symlink_to(file)
    return folder


def opens(path: Path, **options: bool) -> None:
    """All of it: weights, config, tokenizer."""
    info = ModelInfo(path, LoadOptions(context=64, **options))
    assert info.spec.tensors and info.tokenizer.result().vocab_size


def refused(path: Path, message: str = "leaves its folder.*`follow_links`") -> None:
    with pytest.raises(LacewingError, match=message):
        opens(path)


def cached(tmp_path: Path, name: str, model: Path, revision: str = "0123", sub: str = "") -> Path:
    """The model in a Hugging Face cache; its snapshot."""
    home = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
    blobs, snapshot = home / "blobs", home / "snapshots" / revision / sub
    blobs.mkdir(parents=True, exist_ok=True)
    snapshot.mkdir(parents=True)
    for file in model.iterdir() if model.is_dir() else [model]:
        (blobs / f"{revision}{file.name}").write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(os.path.relpath(blobs / f"{revision}{file.name}", snapshot))
    return snapshot


@pytest.mark.parametrize("sub", ["", "sub", "sub/deeper"])
def test_a_sub_folder_of_the_hubs_cache(tmp_path, disk, sub):
    snapshot = cached(tmp_path, "o/r", tiny("llama", "huggingface", disk), sub=sub)
    opens(snapshot)
    opens(snapshot / "model.safetensors")
    assert load_tokenizer(snapshot).vocab_size
    (snapshot / "tokenizer.json").unlink()
    (snapshot / "tokenizer.json").symlink_to(next(disk.iterdir()) / "tokenizer.json")
    refused(snapshot)
    opens(snapshot, follow_links=True)


def test_a_directory_of_links_needs_the_flag(tmp_path, disk):
    folder = linked(tmp_path / "m", tiny("llama", "huggingface", disk))
    refused(folder)
    opens(folder, follow_links=True)
    with pytest.raises(ModelFormatError, match="leaves its folder"):
        load_tokenizer(folder)
    assert load_tokenizer(folder, follow_links=True).vocab_size
    assert open_texts(folder, follow_links=True).metadata["config.json"]
    with pytest.raises(ModelFormatError, match="leaves its folder"):
        lacewing.load(folder, backend="reference", context=64)
    with lacewing.load(folder, backend="reference", context=64, follow_links=True) as model:
        assert len(model.logits([1, 2])) == 2


def test_a_link_that_a_person_names_is_followed(tmp_path, disk):
    model = tiny("llama", "huggingface", disk)
    (tmp_path / "m").symlink_to(model)
    opens(tmp_path / "m")
    opens(linked(tmp_path / "all", model) / "model.safetensors")
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "my.safetensors").symlink_to(model / "model.safetensors")  # its config is over there
    opens(alone / "my.safetensors")
    gguf = tiny("llama", "gguf", disk)
    (alone / "my.gguf").symlink_to(gguf)
    opens(alone / "my.gguf")


def test_what_a_person_did_not_name_stays_inside(tmp_path, disk):
    model, other = tiny("llama", "huggingface", disk), tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_bytes((model / "config.json").read_bytes())
    folder = tmp_path / "m"
    linked(folder, model)
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(other / "config.json")
    refused(folder / "model.safetensors")  # neither beside the link nor beside the file
    opens(folder / "model.safetensors", follow_links=True)


def test_links_to_split_files(tmp_path, disk):
    parts = split(disk)
    first = tmp_path / "first"
    first.mkdir()
    (first / parts[0].name).symlink_to(parts[0])
    assert open_checkpoint(first / parts[0].name).files == tuple(parts)  # the others are over there
    (first / "my.gguf").symlink_to(parts[1])
    assert open_checkpoint(first / "my.gguf").files == tuple(parts)
    folder = linked(tmp_path / "all", disk)
    assert len(open_checkpoint(folder / parts[0].name).tensors) == 2
    third = tmp_path / "third"
    third.mkdir()
    parts[2].rename(third / parts[2].name)
    (folder / parts[2].name).unlink()
    (folder / parts[2].name).symlink_to(third / parts[2].name)
    with pytest.raises(ModelFormatError, match="leaves its folder"):
        open_checkpoint(folder / parts[0].name)
    assert len(open_checkpoint(folder / parts[0].name, follow_links=True).tensors) == 2


def test_the_folder_of_a_cached_model(tmp_path, disk):
    old = cached(tmp_path, "o/r", tiny("llama", "huggingface", disk), "ffff")
    new = cached(tmp_path, "o/r", tiny("qwen2", "huggingface", disk), "0000")
    home = old.parent.parent
    os.utime(old, (1, 1))
    assert open_checkpoint(home).path == new and load_tokenizer(home).vocab_size
    opens(home)
    os.utime(new, (0, 0))
    assert open_checkpoint(home).path == old
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("0000")
    assert open_checkpoint(home).path == new  # what `main` is
    (home / "refs" / "main").write_bytes(b"../../../etc\xff")
    assert open_checkpoint(home).path == old
    empty = home / "snapshots" / "eeee"
    empty.mkdir()
    (empty / "config.json").write_text("{}")  # just looked at, never fetched
    assert open_checkpoint(home).path == old
    moved = home.rename(tmp_path / "models--o--r")
    assert open_checkpoint(moved).path.name == "ffff"


def test_a_cached_model_without_snapshots(tmp_path):
    (tmp_path / "models--o--r" / "snapshots").mkdir(parents=True)
    with pytest.raises(ModelFormatError, match="has neither"):
        open_checkpoint(tmp_path / "models--o--r")


def test_a_folder_that_happens_to_have_snapshots(tmp_path):
    model = tiny("llama", "huggingface", tmp_path)
    (model / "snapshots" / "x").mkdir(parents=True)
    assert open_checkpoint(model).path == model


@pytest.mark.parametrize("name", ["mmproj-model-f16.gguf", "a.mmproj-Q8_0.gguf", "MMPROJ.gguf"])
def test_a_model_with_its_vision_part(tmp_path, name):
    model = tiny("llama", "gguf", tmp_path)
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(model.read_bytes())
    (folder / name).write_bytes(b"GGUF, of the vision part")
    assert open_checkpoint(folder).files == (folder / "model.gguf",)
    opens(folder)
    (folder / "model.gguf").unlink()
    with pytest.raises(ModelFormatError, match=name):
        open_checkpoint(folder)  # alone, it is what is opened


def test_several_models_of_a_folder_are_listed(tmp_path):
    for number in range(1, 4):
        (tmp_path / f"big-{number:05}-of-00003.gguf").write_bytes(b"")
    for name in ("b.gguf", "a.gguf", "mmproj.gguf", "._a.gguf"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ModelFormatError, match=r"holds 3 GGUF models; name one of a\.gguf, b\.gguf, big-00001-of-00003\.gguf$"):
        open_checkpoint(tmp_path)
    for number in range(30):
        (tmp_path / f"z{number}.gguf").write_bytes(b"")
    with pytest.raises(ModelFormatError, match=r"holds 33 GGUF models; .* and 13 more$"):
        open_checkpoint(tmp_path)


def test_folders_within_are_named(tmp_path):
    for name in ("Q4_K_M", "Q8_0", "images"):
        (tmp_path / name).mkdir()
    (tmp_path / "Q4_K_M" / "m.gguf").write_bytes(b"")
    (tmp_path / "Q8_0" / "m.gguf").write_bytes(b"")
    with pytest.raises(ModelFormatError, match=r"a \.gguf file; name one of its folders: Q4_K_M, Q8_0$"):
        open_checkpoint(tmp_path)
