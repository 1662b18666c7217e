"""SEARCH/REPLACE blocks: out of an answer, onto a text, onto files."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lacewing.chat.services import patches
from lacewing.chat.services.edits import Edit, EditError, diff, parse_edits, replace_once
from lacewing.chat.services.patches import apply_changes, locate, plan_changes

BLOCK = "<<<<<<< SEARCH\none\n=======\ntwo\n>>>>>>> REPLACE"


def edit(search, replace, path="a.py"):
    return Edit(path, tuple(search.split("\n")) if search else (), tuple(replace.split("\n")) if replace else ())


@pytest.mark.parametrize(
    "above",
    ["src/a.py\n", "src/a.py\n```python\n", "```python\nsrc/a.py\n", "**src/a.py**\n", "### `src/a.py`:\n```\n",
     "File: src/a.py\n\n", "Now I change `src/a.py` so:\n\n```diff\n", "src/a.py:\n"],
)  # fmt: skip
def test_the_path_stands_above(above):
    assert parse_edits(f"Sure.\n\n{above}{BLOCK}\n```\nDone.") == ([Edit("src/a.py", ("one",), ("two",))], [])


def test_several_blocks_share_a_path():
    edits, problems = parse_edits(f"a.py\n{BLOCK}\n{BLOCK}\n\nand b.py\n\nb.py\n{BLOCK}\r\n")
    assert [one.path for one in edits] == ["a.py", "a.py", "b.py"] and not problems


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (BLOCK, "names no file"),
        ("a.py\n<<<<<<< SEARCH\none\n=======\ntwo", "has no end"),
        (f"a.py\n<<<<<<< SEARCH\none\n{BLOCK}", "has no end"),
        ("a.py\n<<<<<<< SEARCH\none\n>>>>>>> REPLACE", "0 dividers"),
        ("a.py\n<<<<<<< SEARCH\n=======\none\n=======\n>>>>>>> REPLACE", "2 dividers"),
    ],
)
def test_damaged_blocks_are_told(answer, problem):
    assert problem in parse_edits(answer)[1][0]


@given(st.text(alphabet="<=>SEARCHPL \n`a.", max_size=200))
def test_any_answer_can_be_read(answer):
    parse_edits(answer)


@pytest.mark.parametrize(
    ("text", "search", "replace", "after"),
    [
        ("a\nb\nc\n", "b", "x\ny", "a\nx\ny\nc\n"),
        ("a\nb\nc", "c", "d", "a\nb\nd"),
        ("a\nb\nc\n", "b", "", "a\nc\n"),
        ("a \nb\t\n", "a\nb", "c", "c\n"),
        ("if x:\n    a\n    b\n", "a\nb", "c\n  d", "if x:\n    c\n      d\n"),
        ("a\nb\n", "  a\n  b", "  c\n    d", "c\n  d\n"),
        ("x\n  x\n", "  x", "y", "x\ny\n"),
        ("", "", "new", "new\n"),
    ],
)
def test_where_it_fits(text, search, replace, after):
    assert replace_once(text, edit(search, replace)) == after


@pytest.mark.parametrize(
    ("text", "search", "problem"),
    [
        ("a\nb\na\n", "a", r"2 places \(lines 1, 3\)"),
        ("  a\nb\n    a\n", "a", "2 places"),
        ("alpha beta\n", "alpha bata", "the nearest line is 1: 'alpha beta'"),
        ("a\n", "b\nc\nd\ne", "not in the file"),
        ("a\n    b\n", "a\nb", "not in the file"),
        ("a\n", "", "SEARCH is empty"),
    ],
)
def test_where_it_does_not(text, search, problem):
    with pytest.raises(EditError, match=problem):
        replace_once(text, edit(search, "x"))


def test_diff():
    lines = [(line.kind, line.text) for line in diff("a.py", "a\nb\n", "a\nc\n")]
    assert lines == [
        ("head", "--- a.py"),
        ("head", "+++ a.py"),
        ("head", "@@ -1,2 +1,2 @@"),
        ("same", " a"),
        ("remove", "-b"),
        ("add", "+c"),
    ]
    assert diff("a.py", None, "a\n")[0].text == "--- /dev/null"


def test_files_are_written_whole(tmp_path):
    (tmp_path / "a.py").write_bytes(b"\xef\xbb\xbfone\r\nrest\r\n")
    (tmp_path / "a.py").chmod(0o751)
    changes = plan_changes([edit("one", "two"), edit("two", "three"), edit("", "new", "deep/er/b.py")], tmp_path)
    assert not (tmp_path / "deep").exists()
    apply_changes(changes)
    assert (tmp_path / "a.py").read_bytes() == b"\xef\xbb\xbfthree\r\nrest\r\n"
    assert (tmp_path / "deep/er/b.py").read_text() == "new\n"
    assert os.name != "posix" or (tmp_path / "a.py").stat().st_mode & 0o777 == 0o751
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.py", "deep"]


@pytest.mark.parametrize("path", ["../a", "/etc/passwd", "a/../../b", ".git/hooks/x", "sub/.GIT/config", "a\nb", "", ".", "folder"])
def test_paths_stay_inside(tmp_path, path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(EditError):
        locate(tmp_path, path)


def test_links_do_not_lead_out(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret").write_text("one\n")
    (tmp_path / "inside/link").symlink_to(tmp_path / "secret")
    (tmp_path / "inside/up").symlink_to(tmp_path)
    for path in ("link", "up/secret", "up/new"):
        with pytest.raises(EditError, match="outside"):
            plan_changes([edit("one", "two", path)], tmp_path / "inside")
    (tmp_path / "inside/real").write_text("one\n")
    (tmp_path / "inside/good").symlink_to("real")
    apply_changes(plan_changes([edit("one", "two", "good")], tmp_path / "inside"))
    assert (tmp_path / "inside/good").is_symlink() and (tmp_path / "inside/real").read_text() == "two\n"


def test_a_link_made_after_planning_is_seen(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "victim").write_text("one\n")
    (tmp_path / "root/a.py").write_text("one\n")
    changes = plan_changes([edit("one", "two")], tmp_path / "root")
    (tmp_path / "root/a.py").unlink()
    (tmp_path / "root/a.py").symlink_to(tmp_path / "victim")
    with pytest.raises(EditError, match="outside"):
        apply_changes(changes)
    assert (tmp_path / "victim").read_text() == "one\n"


def test_a_file_changed_meanwhile_is_left_alone(tmp_path):
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("one\n")
    changes = plan_changes([edit("one", "two"), edit("one", "two", "b.py")], tmp_path)
    (tmp_path / "b.py").write_text("one and more\n")
    with pytest.raises(EditError, match=r"b\.py has changed"):
        apply_changes(changes)
    assert (tmp_path / "a.py").read_text() == "one\n"


def test_a_failure_takes_all_back(tmp_path, monkeypatch):
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("one\n")
    changes = plan_changes([edit("", "x", "new.py"), edit("one", "two"), edit("one", "two", "b.py")], tmp_path)
    real, calls = os.replace, []

    def failing(source, target):
        calls.append(target)
        if len(calls) == 3:
            raise OSError("disk full")
        real(source, target)

    monkeypatch.setattr(patches.os, "replace", failing)
    with pytest.raises(EditError, match="nothing was changed: disk full"):
        apply_changes(changes)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.py": "one\n", "b.py": "one\n"}


@pytest.mark.parametrize("content", [b"a\0b", b"\xff\xfe\xff"])
def test_binary_files_are_not_edited(tmp_path, content):
    (tmp_path / "a.py").write_bytes(content)
    with pytest.raises(EditError, match="not a text file"):
        plan_changes([edit("one", "two")], tmp_path)


def test_a_missing_file_needs_an_empty_search(tmp_path):
    with pytest.raises(EditError, match="no such file"):
        plan_changes([edit("one", "two")], tmp_path)


def test_a_file_that_grows_or_becomes_a_pipe_after_it_was_looked_at(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("one\n")
    monkeypatch.setattr(patches, "MAX_FILE_BYTES", 3)
    with pytest.raises(EditError, match="a has 4 bytes; at most 3 are read"):
        plan_changes([Edit("a", ("one",), ("two",))], tmp_path)
    (tmp_path / "a").unlink()
    os.mkfifo(tmp_path / "a")
    monkeypatch.setattr(patches, "locate", lambda root, name: root / name)
    with pytest.raises(EditError, match="is not a regular file"):
        patches._read(tmp_path, "a")
