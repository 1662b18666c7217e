"""Hugging Face folders: shards and their index, JSON beside them, and what must not be opened."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from lacewing.errors import ModelFormatError, OptionError, TemplateError
from lacewing.formats import open_checkpoint, open_texts
from lacewing.formats.files import read_named
from lacewing.formats.json_files import parse

from .gguf_bytes import valid

INDEX = "model.safetensors.index.json"


def folder(path: Path, places: dict[str, str] | None = None, **files: list[str]) -> Path:
    """A sharded model: `files` say which tensors each shard holds; `places` overrides the index."""
    path.mkdir(exist_ok=True)
    files = files or {"one": ["a", "b"], "two": ["c"]}
    for name, tensors in files.items():
        save_file({tensor: np.full((2, 3), ord(tensor[0]), np.float32) for tensor in tensors}, path / f"{name}.safetensors")
    index = {tensor: f"{name}.safetensors" for name, tensors in files.items() for tensor in tensors}
    (path / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": index if places is None else places}))
    (path / "config.json").write_text('{"model_type": "llama"}')
    return path


def test_sharded_folder(tmp_path: Path) -> None:
    model = folder(tmp_path / "m")
    (model / "chat_template.jinja").write_text("{{ messages }}")
    (model / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    (model / "consolidated.safetensors").write_bytes(b"not looked at")
    checkpoint = open_checkpoint(model)
    assert sorted(checkpoint.tensors) == ["a", "b", "c"] and [path.name for path in checkpoint.files] == [
        "one.safetensors",
        "two.safetensors",
    ]
    assert set(checkpoint.metadata) == {"chat_template.jinja", "config.json", "tokenizer_config.json"}
    assert len(checkpoint.metadata) == 3 and "config.json" in checkpoint.metadata and INDEX not in checkpoint.metadata
    assert checkpoint.metadata["chat_template.jinja"] == "{{ messages }}" and checkpoint.metadata.get("nothing.json") is None
    assert checkpoint.metadata["tokenizer_config.json"]["bos_token"] == "<s>"


def test_folder_with_one_file(tmp_path: Path) -> None:
    for name in ("weights.safetensors", "model.safetensors"):  # one of any name; then the usual name wins
        save_file({"a": np.zeros(1, np.float32)}, tmp_path / name)
        assert open_checkpoint(tmp_path).files == (tmp_path / name,)
    (tmp_path / "model.safetensors").unlink()
    save_file({"b": np.zeros(1, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelFormatError, match=r"no model\.safetensors\.index\.json"):
        open_checkpoint(tmp_path)


def refused(path: Path, match: str) -> None:
    with pytest.raises(ModelFormatError, match=match):
        open_checkpoint(path)


@pytest.mark.parametrize("name", ["../one.safetensors", "/etc/passwd", "sub/one.safetensors", "one.safetensors\0", "..", "", ".",
                                  "C:\\one.safetensors", "a\\b.safetensors", "pytorch_model.bin", 7, None, ["x"]])  # fmt: skip
def test_index_names_only_plain_files(tmp_path: Path, name: Any) -> None:
    refused(folder(tmp_path / "m", {"a": name, "b": "one.safetensors", "c": "two.safetensors"}), "is not the name of a")


GOOD = {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}


@pytest.mark.parametrize(
    "places",
    [
        GOOD | {"d": "two.safetensors"},  # an entry without a tensor: the model says whether it is missed
        {name: GOOD[name] for name in "ac"},  # a tensor without an entry
        GOOD | {"b": "two.safetensors"},  # in another file
    ],
)
def test_an_index_says_which_files_hold_tensors_and_no_more(tmp_path: Path, places: dict[str, str]) -> None:
    """As transformers takes it."""
    model = folder(tmp_path / "m", places)
    save_file({"z": np.zeros(1, np.float32)}, model / "unlisted.safetensors")
    checkpoint = open_checkpoint(model)
    assert {name: part.ranges[0].path.name for name, part in checkpoint.tensors.items()} == GOOD
    assert [path.name for path in checkpoint.files] == ["one.safetensors", "two.safetensors"]


def test_one_whole_file_beside_an_index_is_the_model(tmp_path: Path) -> None:
    """As in transformers: a merged file and an index that was left behind."""
    model = folder(tmp_path / "m", {"a": "gone.safetensors"})
    save_file({"x": np.zeros(1, np.float32)}, model / "model.safetensors")
    assert list(open_checkpoint(model).tensors) == ["x"]


def test_hidden_files_are_not_seen(tmp_path: Path) -> None:
    """macOS leaves a `._NAME` beside each file on disks of other systems, and in archives."""
    (tmp_path / "gguf").mkdir()
    for name in ("a.gguf", "._a.gguf", ".DS_Store"):
        (tmp_path / "gguf" / name).write_bytes(valid().data if name == "a.gguf" else b"\0\5\x16\7" + bytes(4092))
    assert open_checkpoint(tmp_path / "gguf").path.name == "a.gguf" and open_texts(tmp_path / "gguf").path.name == "a.gguf"
    model = tmp_path / "hf"
    model.mkdir()
    save_file({"a": np.zeros(1, np.float32)}, model / "weights.safetensors")
    for name in ("._weights.safetensors", "._config.json", "._model.gguf", "._chat_template.jinja", "._pytorch_model.bin"):
        (model / name).write_bytes(b"\0\5\x16\7" + bytes(4092))
    assert list(open_checkpoint(model).tensors) == ["a"] and not open_checkpoint(model).metadata
    (model / "tokenizer.json").write_text("{}")
    assert open_texts(model).format == "safetensors"
    (model / "weights.safetensors").unlink()
    refused(model, "has neither")


def test_index_and_shards_must_agree(tmp_path: Path) -> None:
    refused(folder(tmp_path / "4", GOOD | {"d": "three.safetensors"}), "which is missing")
    refused(folder(tmp_path / "5", one=["a", "b"], two=["a", "c"]), r"is in one\.safetensors, too")  # in both shards
    for number, text in enumerate(("[]", "{}", '{"weight_map": {}}', "{", '{"weight_map": [1]}', "\xff")):
        broken = folder(tmp_path / f"6{number}")
        (broken / INDEX).write_bytes(text.encode("latin-1"))
        refused(broken, "weight_map|JSON")


def test_links_must_stay_inside(tmp_path: Path) -> None:
    outside = folder(tmp_path / "outside")
    model = folder(tmp_path / "m")
    (model / "two.safetensors").unlink()
    (model / "two.safetensors").symlink_to(outside / "two.safetensors")
    refused(model, "leaves its folder")
    inside = folder(tmp_path / "inside")
    (inside / "two.safetensors").rename(inside / "kept")
    (inside / "two.safetensors").symlink_to("kept")
    assert "c" in open_checkpoint(inside).tensors
    (inside / "config.json").unlink()
    (inside / "config.json").symlink_to(outside / "config.json")
    with pytest.raises(ModelFormatError, match="leaves its folder"):
        open_checkpoint(inside).metadata["config.json"]


def test_hugging_face_cache_links_are_fine(tmp_path: Path) -> None:
    (tmp_path / "models--a--b").mkdir()
    blobs = folder(tmp_path / "models--a--b" / "x").rename(tmp_path / "models--a--b" / "blobs")
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(f"../../blobs/{blob.name}")
    checkpoint = open_checkpoint(snapshot)
    assert len(checkpoint.tensors) == 3 and checkpoint.metadata["config.json"]["model_type"] == "llama"


def test_a_file_that_a_person_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.txt").write_bytes(b"12345")
    assert read_named("~/a.txt", 5) == b"12345" and read_named(tmp_path / "a.txt", 3, whole=False) == b"123"
    (tmp_path / "file.jinja").write_text("x")
    os.mkfifo(tmp_path / "pipe.jinja")
    for name, problem in (
        (tmp_path / "a.txt", "a.txt has 5 bytes; at most 4 are read"),
        (tmp_path / "pipe.jinja", "is not a regular file"),
        ("/dev/zero", "is not a regular file"),
        (tmp_path, "is not a regular file"),
        (tmp_path / "none.txt", "there is no file .*none.txt$"),
        ("~nobody-of-this-name/x", "cannot be used as a path"),
        ("a\0b", "a.x00b. cannot be used as a path"),
        ("/proc/self/mem", "cannot be read"),
    ):
        for kind in (OptionError, TemplateError):
            with pytest.raises(kind, match=problem):
                read_named(name, 4, kind)


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    facts = os.stat(tmp_path / "file")
    monkeypatch.setattr(os, "stat", lambda *_, **__: facts)
    with pytest.raises(OptionError, match="not a regular file"):
        read_named(tmp_path / "pipe", 4)


def test_only_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    refused(tmp_path / "pipe.gguf", "not a regular file")
    refused(Path("/dev/zero"), "not a regular file")
    refused(tmp_path / "missing.gguf", "cannot be opened: No such file")
    refused(tmp_path / "nul\0.gguf", "cannot be opened|path is not valid")
    refused(tmp_path / ("n" * 300), "cannot be opened")
    (tmp_path / "loop").symlink_to("loop")
    refused(tmp_path / "loop", "cannot be opened")
    model = folder(tmp_path / "m")
    (model / "two.safetensors").unlink()
    (model / "two.safetensors").mkdir()
    refused(model, "not a regular file")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "has neither")
    (tmp_path / "nothing.gguf").touch()
    refused(tmp_path / "nothing.gguf", "is empty")


def foreign_files(path: Path) -> dict[str, Path]:
    """Files of other formats under names of ours and of theirs."""
    import pickle

    path.mkdir()
    with zipfile.ZipFile(path / "zip", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
    contents = {"zip": (path / "zip").read_bytes(), "7z": b"7z\xbc\xaf\x27\x1c" + bytes(64), "old": b"lmgg" + bytes(64),
                "pickle": pickle.dumps({"a": [1.0] * 20}, protocol=2), "lfs": b"version https://git-lfs.github.com/spec/v1\n",
                "page": b"<!DOCTYPE html><html></html>",
                "gzip": b"\x1f\x8b\x08\0" + bytes(64), "noise": bytes(range(1, 100))}  # fmt: skip
    made = {}
    for what, data in contents.items():
        for suffix in (".bin", ".pt", ".pth", ".ckpt", ".safetensors", ".gguf", ""):
            made[what + suffix] = path / (what + suffix)
            made[what + suffix].write_bytes(data)
    return made


def test_pickles_and_other_formats_are_refused(tmp_path: Path) -> None:
    for name, path in foreign_files(tmp_path / "f").items():
        with pytest.raises(ModelFormatError) as caught:
            open_checkpoint(path)
        if path.suffix in (".bin", ".pt", ".pth", ".ckpt"):
            assert "can run code" in str(caught.value) and "safetensors or GGUF" in str(caught.value)
        elif "pickle" in name or name[:3] == "zip":
            assert "run code" in str(caught.value)
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    refused(tmp_path / "hf", "can run code")


def test_length_bytes_that_look_like_a_magic(tmp_path: Path) -> None:
    for length in (0x80, 0x0280, 0x8B1F):  # as of pickles, as of gzip
        path = tmp_path / "m.safetensors"
        for header in (b"{}", b" {}", b" " * 20 + b"{}"):
            path.write_bytes(length.to_bytes(8, "little") + header.ljust(length))
            assert open_checkpoint(path).tensors == {}


def test_loading_runs_nothing(tmp_path: Path) -> None:
    """An audit hook sees every unpickling, process, socket and compilation."""
    foreign_files(tmp_path / "f")
    folder(tmp_path / "hf")
    (tmp_path / "good.gguf").write_bytes(valid().data)
    script = f"""
        import sys
        from pathlib import Path
        from lacewing.errors import LacewingError
        from lacewing.formats import open_checkpoint
        seen = []
        banned = ("pickle", "exec", "compile", "subprocess", "os.exec", "os.posix_spawn", "os.system", "socket", "import")
        sys.addaudithook(lambda event, _: seen.append(event) if event.startswith(banned) else None)
        opened = 0
        for path in [*Path({str(tmp_path)!r}, "f").iterdir(), Path({str(tmp_path)!r}, "hf"), Path({str(tmp_path)!r}, "good.gguf")]:
            try:
                opened += bool(open_checkpoint(path).tensors)
            except LacewingError:
                pass
        print(opened, seen)
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert result.stdout == "2 []\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"{", "JSON"),
        (b"[" * 70 + b"]" * 70, "nested more than 64 deep"),
        (b"[" * 10**5, "nested too deeply"),
        (b'{"a": "\\ud800"}', "JSON"),
        (b"\xff", "UTF-8"),
        (b'{"a": [' + b"[]," * 2**20 + b"[]]}", "more than 1048576 values"),
        (b'{"a": [' + b"1," * 2**20 + b'",[,"]}', "more than 1048576 values"),
        (b"[" + b"{}," * (10 * 2**20) + b"0]", "more than 1048576 values"),
    ],
)
def test_json_beside_the_weights_is_read_with_care(tmp_path: Path, text: bytes, problem: str) -> None:
    model = folder(tmp_path / "m")
    (model / "generation_config.json").write_bytes(text)
    (model / "chat_template.jinja").write_bytes(b"\xff")
    checkpoint = open_checkpoint(model)
    with pytest.raises(ModelFormatError, match=rf"generation_config\.json.*{problem}"):
        checkpoint.metadata["generation_config.json"]
    with pytest.raises(ModelFormatError, match=r"chat_template\.jinja"):
        checkpoint.metadata["chat_template.jinja"]


def test_a_large_json_file(tmp_path: Path) -> None:
    model = folder(tmp_path / "m")
    with open(model / "config.json", "wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(ModelFormatError, match="at most"):
        open_checkpoint(model).metadata["config.json"]
    text = 'a, [b], {c} \\ "' * 400_000  # values are counted, not what strings hold
    (model / "config.json").write_text(json.dumps({"chat_template": text}))
    assert open_checkpoint(model).metadata["config.json"] == {"chat_template": text}


def test_json_is_read_as_transformers_reads_it(tmp_path: Path) -> None:
    model = folder(tmp_path / "m")
    (model / "config.json").write_text('{"a": 1, "time_step_limit": [0.0, Infinity], "b": NaN, "c": 1e999, "a": 2}')
    found = open_checkpoint(model).metadata["config.json"]
    assert found["a"] == 2 and found["time_step_limit"] == [0.0, math.inf] and math.isnan(found["b"]) and found["c"] == math.inf


def test_only_json_that_says_something_of_the_model_is_read(tmp_path: Path) -> None:
    """Beside a model lie a trainer's state and its data."""
    model = folder(tmp_path / "m")
    (model / "trainer_state.json").write_text('{"loss": NaN')
    with open(model / "train.json", "wb") as file:
        file.truncate(71 * 2**20)
    more = model / "additional_chat_templates"
    more.mkdir()
    for name in ("tool_use.jinja", "._tool_use.jinja", "notes.txt"):
        (more / name).write_text("{{ tools }}")
    metadata = open_checkpoint(model).metadata
    assert dict(metadata) == {"config.json": {"model_type": "llama"}, "additional_chat_templates/tool_use.jinja": "{{ tools }}"}
    (more / "tool_use.jinja").unlink()
    (more / "tool_use.jinja").symlink_to(folder(tmp_path / "other") / "config.json")
    with pytest.raises(ModelFormatError, match="leaves its folder"):
        open_checkpoint(model).metadata["additional_chat_templates/tool_use.jinja"]


def test_equal_keys_are_found_in_linear_time(tmp_path: Path) -> None:
    keys = ",".join(f'"{number}":0' for number in range(200_000))
    started = time.process_time()
    with pytest.raises(ModelFormatError, match="'7' occurs twice"):
        parse(tmp_path, f'{{{keys},"7":1}}'.encode())
    assert time.process_time() - started < 5  # seconds; comparing each with each takes hours


@pytest.mark.parametrize(
    "names", [["consolidated.safetensors"], ["consolidated-00001-of-00002.safetensors", "consolidated-00002-of-00002.safetensors"]]
)
def test_the_form_that_mistral_publishes_beside_hugging_faces(tmp_path: Path, names: list[str]) -> None:
    for name in (*names, "params.json", "tekken.json", "consolidated.safetensors.index.json"):
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(ModelFormatError, match=r"in Mistral's own form .* fetch a GGUF file, or the model-"):
        open_checkpoint(tmp_path)
