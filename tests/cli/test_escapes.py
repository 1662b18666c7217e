"""Checkpoints made of escape sequences: whatever a command prints of them, no control character but the line end comes out."""

from __future__ import annotations

import copy
import io
import json
import re
import shutil
import sys

import gguf
import pytest

from lacewing.chat.commands.table import Reply
from lacewing.chat.services import files
from lacewing.chat.terminal.replies import plain_lines
from lacewing.cli import main
from lacewing.console.output import Table, clean
from tests.checkpoints import tiny

EVIL = "\x1b]0;owned\x07\x9b2J\u202e\u2066\u200e\u200f\u061c\u2028\U000e0041\x7f\r\n\tevil"
FLAGS = ("--backend", "reference", "--context", "64")


@pytest.fixture
def printed(monkeypatch, capsys, tmp_path_factory):
    """What a command writes, to both streams; asserts that nothing of it would control a terminal."""
    monkeypatch.setenv("LACEWING_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("LACEWING_SESSIONS", str(tmp_path_factory.mktemp("sessions")))

    def call(*words, typed=""):
        monkeypatch.setattr(sys, "argv", ["lacewing", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code in (0, None, 1, 2)
        told = capsys.readouterr()
        for text in told:
            assert clean(text) == text and "\r" not in text, f"{words}: {text!a}"
            assert not any(line.startswith(("evil", "\tevil")) for line in text.split("\n")), f"{words}: {text!a}"
        return told.out + told.err

    return call


def everything(printed, path):
    """Every command that reads a checkpoint, in every form of its output; how much of it all was told."""
    told = printed("info", path) + printed("info", path, "--json")
    told += printed("run", path, "Hello", *FLAGS, "--max-tokens", 1, "--json") + printed("tokenize", path, "Hello")
    return told


def strings(value, place=()):
    """Where texts stand in JSON: (place, whether it is the name of a field); of long lists and dicts the first few."""
    if isinstance(value, str):
        yield place, False
    elif isinstance(value, dict):
        for key in list(value)[:40]:
            yield (*place, key), True
            yield from strings(value[key], (*place, key))
    elif isinstance(value, list):
        for index, item in enumerate(value[:3]):
            yield from strings(item, (*place, index))


def changed(value, place, name):
    """The same with EVIL there."""
    value = copy.deepcopy(value)
    holder = value
    for step in place[:-1]:
        holder = holder[step]
    if name:
        holder[EVIL] = holder.pop(place[-1])
    else:
        holder[place[-1]] = EVIL
    return value


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_every_text_of_json(file, printed, tmp_path):
    model = tiny("llama", "huggingface", tmp_path)
    path = model / file
    whole = json.loads(path.read_text(encoding="utf-8"))
    extra = {"version": "1.0", "truncation": {"direction": "Right", "strategy": "a", "max_length": 5, "stride": 0}}
    extra |= {"padding": {"strategy": "BatchLongest", "direction": "Left", "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}}
    whole |= extra if file == "tokenizer.json" else {}
    places = [*strings(whole)]
    assert len(places) > 5
    for place, name in places:
        path.write_text(json.dumps(changed(whole, place, name)), encoding="utf-8")
        assert printed("info", model)
        if len(place) < 3:
            assert printed("info", model, "--json") and printed("tokenize", model, "Hello")


def test_every_text_of_a_gguf(printed, tmp_path, monkeypatch):
    """Names and values of the metadata, and names of tensors."""
    target, seen = None, []
    add_key, add_tensor = gguf.GGUFWriter.add_key_value, gguf.GGUFWriter.add_tensor

    def key_value(self, key, value, *rest, **options):
        seen.append(("key", key))
        if isinstance(value, str):
            seen.append(("value", key))
        value = EVIL if target == ("value", key) else value
        return add_key(self, EVIL if target == ("key", key) else key, value, *rest, **options)

    def tensor(self, name, *rest, **options):
        seen.append(("tensor", name))
        return add_tensor(self, EVIL if target == ("tensor", name) else name, *rest, **options)

    monkeypatch.setattr(gguf.GGUFWriter, "add_key_value", key_value)
    monkeypatch.setattr(gguf.GGUFWriter, "add_tensor", tensor)
    tiny("llama", "gguf", tmp_path)
    wanted = [*dict.fromkeys(seen)]
    assert len(wanted) > 40
    for target in wanted:
        path = tiny("llama", "gguf", tmp_path)
        assert printed("info", path)
        if target[0] != "tensor":
            assert printed("info", path, "--json")


@pytest.mark.parametrize("format", ["gguf", "huggingface"])
def test_names_of_files_and_folders(format, printed, tmp_path):
    source = tiny("llama", format, tmp_path)
    folder = tmp_path / EVIL.replace("/", "")
    folder.mkdir()
    path = folder / f"{EVIL}{source.suffix}"
    (shutil.copytree if source.is_dir() else shutil.copyfile)(source, path)
    assert "evil" in everything(printed, path)
    commands = ("/model", "/memory", "/settings", "/template", "/stats", "/sessions", "/save {0}/a.json", "/load {0}/a.json",
                "/read {1}", "/load {0}/none.json", "/template {0}/none.jinja", "/model {0}/none.gguf", "/export {0}/x.md",
                "/compare {0}/none.gguf Hello", "/{0}", "/save {0}", "Hello @{0}/none.txt:1-2")  # fmt: skip
    one_line = EVIL.replace("\r\n", "").replace("\u2028", "")  # what is typed ends at the end of its line
    typed = "\n".join(line.format(one_line, one_line) for line in ("Hello", *commands))
    assert "evil" in printed("chat", path, *FLAGS, "--max-tokens", 0, typed=typed)
    for words in (("info", f"{path}none"), ("run", f"{path}none", "x"), ("rm", f"hf:{EVIL}/a"), ("pull", EVIL)):
        assert printed(*words)
    damaged = folder / f"damaged{EVIL}.gguf"
    damaged.write_bytes(b"GGUF" + EVIL.encode("utf-8", "surrogatepass") * 9)
    assert printed("info", damaged)
    text = folder / f"text{EVIL}.txt"
    text.write_text("some text")
    assert printed("stats", path, "--text", text, "--png", f"{folder}/no{EVIL}/x.png")


def test_a_template_and_a_session_of_escapes(printed, tmp_path):
    path = tiny("llama", "gguf", tmp_path)
    template = tmp_path / "own.jinja"
    template.write_text("{{ raise_exception('" + EVIL.replace("\r\n", "\\n") + "') }}", encoding="utf-8")
    told = printed("chat", path, *FLAGS, "--max-tokens", 0, typed=f"Hello {EVIL}\n/template {template}\n/save one\n/sessions\n")
    assert told
    saved = files.folder() / "one.json"
    whole = saved.read_text(encoding="utf-8")
    for text in dict.fromkeys(re.findall(r'"((?:[^"\\\\]|\\\\.)+)"', whole)):
        saved.write_text(whole.replace(f'"{text}"', json.dumps(EVIL)), encoding="utf-8")
        table = "\n".join(plain_lines(Reply(data=Table(("name",) * 5, tuple(files.listing())))))
        assert "one" in table and clean(table) == table, text
    assert printed("chat", path, *FLAGS, "--max-tokens", 0, typed="/sessions\n/load one\n")


def test_wrong_use_tells_words_as_they_are_safe(printed, tiny_path):
    for words in ((EVIL,), ("info", tiny_path, EVIL), ("info", f"--{EVIL}"), ("run", tiny_path, "x", "--max-tokens", EVIL)):
        assert printed(*words)
