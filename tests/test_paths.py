"""Paths that no file can have, at every entrance that takes a path: an error of ours, in one line, and nothing is written."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

import pytest

import lacewing
from lacewing import LacewingError
from lacewing.chat.commands.table import run_line
from lacewing.chat.services.opening import open_session
from lacewing.cli import main
from lacewing.errors import OptionError
from lacewing.options import LoadOptions
from lacewing.paths import cache_dir, folder_bytes, user_path

NAMES = {
    "nobody's home": "~nouser-of-this-name/x",
    "null character": "a\0b",
    "too long": "x" * 5000,
    "half a character": "a\ud800b",
    "links in a circle": "circle/x",
    "a closed folder": "closed/x",
}
ENTRANCES = {
    "api load": lambda name, chat: lacewing.load(name),
    "api load, a path": lambda name, chat: lacewing.load(Path(name)),
    "api load_tokenizer": lambda name, chat: lacewing.load_tokenizer(name),
    **{
        line: lambda name, chat, line=line: run_line(chat, line.replace("PATH", f'"{name}"'))
        for line in (
            *("/model PATH", "/compare PATH hello", "/template PATH", "/template ./PATH.jinja", "/template diff PATH.jinja"),
            *("/save PATH", "/save PATH.json", "/fullsave PATH.json", "/load PATH", "/load PATH.json"),
            *("/export PATH", "/export --force PATH", "/read PATH", "/read PATH:1-2"),
        )
    },
    "LACEWING_CACHE": lambda name, chat: _with_variable("LACEWING_CACHE", name, cache_dir),
    "LACEWING_SESSIONS": lambda name, chat: _with_variable("LACEWING_SESSIONS", name, lambda: run_line(chat, "/save one")),
}
COMMANDS = (
    *(("run", "PATH", "hello"), ("info", "PATH"), ("info", "PATH", "--json"), ("chat", "PATH"), ("bench", "PATH")),
    *(("tokenize", "PATH", "hello"), ("stats", "PATH", "--text", "TEXT"), ("stats", "MODEL", "--text", "PATH")),
    *(("stats", "MODEL", "--text", "TEXT", "--png", "PATH"), ("stats", "MODEL", "--text", "TEXT", "--trace", "PATH")),
)


def _with_variable(variable, name, call):
    if any(character in name for character in "\0\ud800"):  # no variable of the environment can hold them
        user_path(name, f"{variable}: ")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable, name)
        return call()


@pytest.fixture(scope="module")
def chat(tiny_path):
    session = open_session(str(tiny_path), LoadOptions("reference", context=128))
    session.messages += [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello"}]
    yield session
    session.close()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working directory. Root may enter every folder, so that the closed one says no by itself."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "text.txt").write_text("some text")
    for name in ("stat", "lstat"):
        plain = getattr(os, name)

        def refuse(path, *rest, plain=plain, **options):
            if isinstance(path, str | os.PathLike) and os.fspath(path) not in (".", "") and "closed" in str(path):
                raise PermissionError(13, "Permission denied", str(path))
            return plain(path, *rest, **options)

        monkeypatch.setattr(os, name, refuse)
    return tmp_path


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_api_and_chat(name, entrance, chat, folder):
    before = sorted(os.listdir(folder))
    with pytest.raises(LacewingError) as raised:
        ENTRANCES[entrance](name, chat)
    assert str(raised.value).isprintable()
    assert "codec" not in str(raised.value)
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize("name", [NAMES[each] for each in NAMES if each not in ("null character", "half a character")])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands(name, command, tiny_path, folder, monkeypatch, capsys):
    words = [{"PATH": name, "MODEL": str(tiny_path), "TEXT": "text.txt"}.get(word, word) for word in command]
    before = sorted(os.listdir(folder))
    monkeypatch.setattr(sys, "argv", ["lacewing", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    assert ended.value.code in (1, 2) and not told.out
    assert told.err.startswith("lacewing: ") and told.err.count("\n") == 1
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_mentions_and_completion(name, chat):
    """A message may hold anything; completion has nothing to offer."""
    from lacewing.chat.services.mentions import MentionError, expand
    from lacewing.chat.terminal.completion import _paths, _Word

    try:
        assert expand(f"see @{name}", Path()).text.startswith("see")
    except MentionError as error:
        assert "there is no such file" in str(error)
    assert list(_paths(_Word(name, ""))) == []


def test_a_name_that_begins_with_a_tilde(folder, monkeypatch):
    """A file of that name is taken; otherwise it is somebody's home folder."""
    monkeypatch.setenv("HOME", str(folder))
    assert user_path("~/new.gguf") == folder / "new.gguf"
    (folder / "~draft.gguf").touch()
    assert user_path("~draft.gguf") == Path("~draft.gguf")
    with pytest.raises(OptionError, match=r"^'~nouser-x/a' cannot be used as a path: its home folder is not known$"):
        user_path("~nouser-x/a")
    with pytest.raises(OptionError, match=r"^LACEWING_CACHE: '~nouser-x' cannot be used as a path"):
        _with_variable("LACEWING_CACHE", "~nouser-x", cache_dir)


@pytest.mark.parametrize("variable", [None, "LACEWING_CACHE"])
def test_nobody_has_a_home(variable, monkeypatch):
    """As in a container whose user is a bare number."""
    for name in ("HOME", "XDG_CACHE_HOME", "LACEWING_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    if variable:
        monkeypatch.setenv(variable, "~")
        with pytest.raises(OptionError, match="home folder is not known"):
            cache_dir()
    else:
        with pytest.raises(OptionError, match="this user has no home folder; set HOME"):
            cache_dir()


def test_no_module_expands_paths_by_itself():
    """`user_path` alone does, so that every entrance has its errors."""
    source = Path(lacewing.__file__).parent
    found = [
        file.relative_to(source).as_posix() for file in source.rglob("*.py") if "expanduser" in file.read_text(encoding="utf-8")
    ]
    assert found == ["paths.py"]


# Where files are opened at all, above the formats: all but `read_named` and what is behind it open files of our own making.
OPENED = {
    "hub": "what it has fetched itself",
    "chat/services": "sessions, files that edits change, after their own checks",
    "chat/terminal": "the history, the message in an editor",
    "cli/__init__.py": "os.devnull",
    "cli/config.py": "the configuration",
    "cli/prompt.py": "a file of the system about a process",
    "cli/stats.py": "what it writes",
    "cli/picture.py": "what it writes",
    "server/page/assets.py": "the files of the page, which come with Lacewing",
    "server/responses/database.py": "the store of responses, made private before SQLite opens it; regular files only",
    "text/template.py": "the templates that come with Lacewing",
}


def test_files_that_a_person_names_are_read_in_one_place():
    """A pipe, a device or a file without end is then refused everywhere; a new place that opens files has to be looked at."""
    package = Path(lacewing.__file__).parent
    found = set()
    for file in package.rglob("*.py"):
        name = file.relative_to(package).as_posix()
        if name.split("/")[0].removesuffix(".py") not in ("api", "assistant", "chat", "cli", "hub", "placement", "server", "text"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            if (isinstance(called, ast.Name) and called.id == "open") or (
                isinstance(called, ast.Attribute) and called.attr in ("read_text", "read_bytes", "fdopen")
            ):
                found.add(name)
            elif isinstance(called, ast.Attribute) and called.attr == "open" and isinstance(called.value, ast.Name):
                found.add(name) if called.value.id in ("os", "io", "path", "file") else None
    assert {name for name in found if not any(name == place or name.startswith(f"{place}/") for place in OPENED)} == set()


def test_the_size_of_a_folder_in_which_others_work(tmp_path, monkeypatch):
    tmp_path = tmp_path / "of ours"
    (tmp_path / "in").mkdir(parents=True)
    for name in ("a", "note", "in/b"):
        (tmp_path / name).write_bytes(b"four")
    (tmp_path / "link").symlink_to("a")
    assert (folder_bytes(tmp_path), folder_bytes(tmp_path, "note"), folder_bytes(tmp_path / "none")) == (12, 8, 0)
    found = list(os.walk(tmp_path))
    (tmp_path / "a").unlink()  # after it was listed
    monkeypatch.setattr("lacewing.paths.os.walk", lambda folder: found)
    assert folder_bytes(tmp_path) == 8
