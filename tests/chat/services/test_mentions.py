"""@file in a message."""

import pytest

from lacewing.chat.services import mentions
from lacewing.chat.services.mentions import MentionError, attach, expand
from lacewing.errors import LacewingError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"line {n}\n" for n in range(1, 21)))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/two words.md").write_text("````\nfenced\n````\n")
    (tmp_path / "empty").write_text("")
    (tmp_path / "binary").write_bytes(b"\0\1\2")
    (tmp_path / "latin").write_bytes("é".encode("latin-1") * 100)
    return tmp_path


@pytest.mark.parametrize("message", ["see @a.txt", "see (@a.txt).", "@a.txt?", "see @a.txt and @a.txt"])
def test_the_whole_file(folder, message):
    done = expand(message, folder)
    assert done.text.startswith(message + "\n\n``` a.txt\nline 1\n") and done.text.endswith("line 20\n```")
    assert done.text.count("line 7\n") == 1 and done.notes == ("a.txt: 20 lines",)


@pytest.mark.parametrize(
    ("name", "lines"), [("a.txt:3-5", [3, 4, 5]), ("a.txt:3", [3]), ("a.txt:19-99", [19, 20]), ("a.txt:3-5,", [3, 4, 5])]
)
def test_some_lines(folder, name, lines):
    body = expand(f"see @{name}", folder).text.split("\n", 3)[3]
    assert body == "".join(f"line {n}\n" for n in lines) + "```"


def test_a_fence_that_the_text_cannot_end(folder):
    text = expand('@"sub/two words.md" is what?', folder).text
    assert text.endswith("\n````` sub/two words.md\n````\nfenced\n````\n`````")


def test_a_file_by_its_name_alone(folder):
    (folder / 'quoted "name".txt').write_text("here")
    assert attach('quoted "name".txt', folder).text == '``` quoted "name".txt\nhere\n```'
    assert attach("a.txt:3-4", folder).text == "``` a.txt:3-4\nline 3\nline 4\n```"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("missing", r"there is no file .*missing$"),
        ("missing:1-2", r"there is no file .*missing:1-2$"),
        ("sub", "sub is not a regular file"),
        ("~nobody-here/a", "its home folder is not known"),
        ("a.txt:30", "the file has 20 lines"),
        ("binary", "not a text file"),
    ],
)
def test_a_name_of_no_text(folder, name, problem):
    with pytest.raises(LacewingError, match=problem):
        attach(name, folder)


@pytest.mark.parametrize("message", ["me@a.txt", "mail me@example.org", "@alice hello", "@", "@ a.txt", "@@a.txt", "a/@a.txt"])
def test_no_mention(folder, message):
    assert expand(message, folder).text == message and not expand(message, folder).notes


def test_something_like_a_file_is_noted(folder):
    assert expand("what is @b.txt", folder) == mentions.Expanded("what is @b.txt", ("@b.txt is not a file here, sent as text",))


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("@sub/no.txt", "no such file"),
        ("@b.txt:1-2", "no such file"),
        ('@"no"', "no such file"),
        ("@a.txt:30-40", "^a.txt:30-40: the file has 20 lines; write :1-20 or less"),
        ("@a.txt:21", "^a.txt:21: the file has 20 lines"),
        ("@a.txt:5-3", "^a.txt:5-3: the lines go backwards; write :3-5"),
        ("@a.txt:0-3", "^a.txt:0-3: lines are counted from 1; write :1-3"),
        ("@empty:1-2", "^empty:1-2: the file is empty"),
        ("@binary", "not a text file"),
        ("@latin", "not UTF-8"),
    ],
)
def test_refused(folder, message, problem):
    with pytest.raises(MentionError, match=problem):
        expand(message, folder)


def test_sizes(folder, monkeypatch):
    monkeypatch.setattr(mentions, "MAX_FILE_BYTES", 64)
    with pytest.raises(MentionError, match="mention some of its lines"):
        expand("@a.txt", folder)
    assert "line 5" in expand("@a.txt:1-5", folder).text
    monkeypatch.setattr(mentions, "MAX_MESSAGE_BYTES", 60)
    with pytest.raises(MentionError, match="together"):
        expand("@a.txt:1-5 @a.txt:6-9", folder)


def test_a_name_with_spaces_that_is_not_in_quotes(folder):
    (folder / "my notes.txt").write_text("x")
    (folder / "two words").mkdir()
    (folder / "two words" / "b c.md").write_text("x")
    for message, name in (("see @my notes.txt.", "my notes.txt"), ("see @two words/b c.md now", "two words/b c.md")):
        expanded = expand(message, folder)
        assert expanded.text == message and f'put a name with spaces in quotes: @"{name}"' in expanded.notes[0]
