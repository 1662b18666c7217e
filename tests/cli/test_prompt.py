"""What `run` and `chat` are given: words, files and standard input, in processes of their own where streams matter."""

import io
import json
import os
import shlex
import socket
import subprocess
import sys
import time

import pexpect
import pytest

from lacewing.cli.prompt import MAX_STDIN_BYTES, Request
from lacewing.errors import OptionError
from lacewing.text.template import ChatTemplate

REFERENCE = ("--backend", "reference", "--context", "512", "--max-tokens", "1", "--temperature", "0")
RUN = [sys.executable, "-m", "lacewing"]


@pytest.fixture
def asked(monkeypatch):
    """The texts that the model reads, template and all."""
    seen, encode = [], ChatTemplate.encode

    def spy(self, messages, *given, **named):
        seen.append((self.name, [(each["role"], each["content"]) for each in messages]))
        return encode(self, messages, *given, **named)

    monkeypatch.setattr(ChatTemplate, "encode", spy)
    return seen


def piped(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("The text.\n", ["summarise"], "The text.\n\nsummarise"),
        ("The text.\r\nMore.\r\n", ["summarise", "it"], "The text.\r\nMore.\n\nsummarise it"),
        ("Why is the sky blue?\n", [], "Why is the sky blue?"),
        ("  indented\n\n", ["x"], "  indented\n\n\nx"),
        ("\ufeffMarked.", ["x"], "Marked.\n\nx"),
        ("", ["alone"], "alone"),
        (" \n\n", ["alone"], "alone"),
    ],
)
def test_standard_input_is_in_front_of_the_prompt(lacewing, asked, monkeypatch, tiny_path, text, words, expected):
    piped(monkeypatch, text)
    code, _, err = lacewing("run", tiny_path, *words, *REFERENCE)
    assert (code, err) == (0, "") and asked[-1][1] == [("user", expected)]


def test_files_are_those_of_a_chat(lacewing, asked, monkeypatch, tiny_path, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    (tmp_path / "b.md").write_text("```\ncode\n```\n")
    piped(monkeypatch, "piped")
    assert lacewing("run", tiny_path, "-f", "a.txt:2-3", "--file", "b.md", "compare", *REFERENCE)[0] == 0
    expected = "piped\n\n``` a.txt:2-3\ntwo\nthree\n```\n\n```` b.md\n```\ncode\n```\n````\n\ncompare"
    assert asked[-1][1] == [("user", expected)]
    piped(monkeypatch, "hello /quit\n")
    assert lacewing("chat", tiny_path, "-f", "a.txt", *REFERENCE)[0] == 0
    assert asked[-1][1][0] == ("user", "``` a.txt\none\ntwo\nthree\n```\n\nhello /quit")
    piped(monkeypatch, "piped")
    assert lacewing("run", tiny_path, "-f", "-", "-f", "a.txt:1", *REFERENCE)[0] == 0
    assert asked[-1][1] == [("user", "piped\n\n``` a.txt:1\none\n```")]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("run", "TINY", "x", "-f", "nothing.txt"), 1, "there is no file"),
        (("run", "TINY", "x", "-f", "."), 1, "not a regular file"),
        (("chat", "TINY", "-f", "-"), 2, "--file -"),
        (("run", "TINY", "x", "--template", "nonsense"), 1, "no chat template named 'nonsense'"),
        (("run", "TINY", "x", "--template", "no/such.jinja"), 1, "no/such.jinja"),
        (("run", "TINY", "x", "--raw", "--system", "y"), 2, "--raw"),
        (("run", "TINY", "x", "--stop", ""), 2, "stop"),
        (("run", "TINY"), 2, "there is no prompt"),
        (("run",), 2, "there is no prompt"),
        (("chat", "TINY", "--load", "never saved"), 1, "never saved"),
        (("chat", "TINY", "--template", "nonsense"), 1, "no chat template named 'nonsense'"),
        (("chat", "TINY", "-m", "TINY"), 2, "unexpected argument"),
    ],
)
def test_what_cannot_be_is_one_line(lacewing, monkeypatch, tmp_path, tiny_path, words, code, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LACEWING_SESSIONS", str(tmp_path))
    piped(monkeypatch, "")
    result = lacewing(*(str(tiny_path) if word == "TINY" else word for word in words), "--backend", "reference")
    assert result[0] == code and result[1] == "" and message in result[2] and result[2].count("\n") == 1


def test_system_and_template(lacewing, asked, monkeypatch, tiny_path, tmp_path):
    piped(monkeypatch, "")
    assert lacewing("run", tiny_path, "Hi", "--system", "Be brief.", *REFERENCE)[0] == 0
    assert asked[-1][1] == [("system", "Be brief."), ("user", "Hi")]
    assert lacewing("run", tiny_path, "Hi", "--template", "llama2", *REFERENCE)[0] == 0
    assert asked[-1] == ("llama2", [("user", "Hi")])
    own = tmp_path / "own.jinja"
    own.write_text("{% for m in messages %}<{{ m['content'] }}>{% endfor %}")
    assert lacewing("run", tiny_path, "Hi", "--template", own, *REFERENCE)[0] == 0
    assert asked[-1] == (str(own), [("user", "Hi")])
    code, _, err = lacewing("run", tiny_path, "Hi", "--template", "gpt-oss", *REFERENCE)
    assert code == 0 and "the vocabulary lacks" in err
    for words in (("--system", "Be brief.", "--template", own), ("--template", own, "--system", "Be brief.")):
        piped(monkeypatch, "Hi\n")
        assert lacewing("chat", tiny_path, *words, *REFERENCE)[0] == 0
        assert asked[-1] == (str(own), [("system", "Be brief."), ("user", "Hi")])


def test_thoughts_are_no_part_of_the_answer(lacewing, monkeypatch, tiny_path, tmp_path):
    piped(monkeypatch, "")
    thinking = tmp_path / "thinking.jinja"
    thinking.write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}<think>")
    words = ("run", tiny_path, "Hi", "--template", thinking, *REFERENCE, "--max-tokens", "12")
    code, out, err = lacewing(*words, "--json")
    facts = json.loads(out)
    assert code == 0 and facts["text"] == "" and facts["reasoning"].strip()
    code, out, err = lacewing(*words)
    assert code == 0 and out == "" and facts["reasoning"].strip() in err
    assert lacewing(*words, "--quiet")[1:] == ("", "")
    facts = json.loads(lacewing(*words, "--reasoning-budget", "3", "--max-tokens", "40", "--json")[1])
    assert facts["text"] and len(facts["reasoning"]) < 20
    assert "reasoning" not in json.loads(lacewing(*words, "--reasoning-effort", "none", "--json")[1])
    code, _, err = lacewing(*words, "--reasoning-effort", "hard")
    assert code == 2 and "--reasoning-effort" in err and "minimal" in err
    code, _, err = lacewing("run", tiny_path, "Hi", "--raw", "--reasoning-budget", "3", *REFERENCE)
    assert code == 2 and "--raw" in err
    thinking.write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    assert "reasoning" not in json.loads(lacewing(*words, "--json")[1])


def test_answers_by_a_schema_a_grammar_and_a_regex(lacewing, tiny_path, tmp_path):
    schema, gbnf = tmp_path / "schema.json", tmp_path / "grammar.gbnf"
    schema.write_text('{"enum": [12, 34]}')
    gbnf.write_text('root ::= "a" | "b"\n')
    words = ("run", tiny_path, "Hi", *REFERENCE, "--max-tokens", "12", "--quiet")
    for raw in ((), ("--raw",)):
        assert lacewing(*words, *raw, "--json-schema", schema)[1].strip() in ("12", "34")
        assert lacewing(*words, *raw, "--json-schema", '{"enum": [56]}')[1].strip() == "56"
        assert lacewing(*words, *raw, "--grammar", gbnf)[1].strip() in ("a", "b")
        assert lacewing(*words, *raw, "--grammar", 'start: "x"')[1].strip() == "x"
        assert lacewing(*words, *raw, "--regex", "y{3}")[1].strip() == "yyy"
    for flags, message in (
        (("--regex", "("), "unclosed group"),
        (("--grammar", gbnf, "--regex", "a"), "--grammar and --regex exclude each other"),
        (("--grammar", tmp_path / "none"), "there is no file"),
        (("--json-schema", gbnf), "no JSON"),
        (("--json-schema", "false"), "there is no file"),
        (("--grammar", "~nouser/x"), "cannot be used as a path"),
    ):
        code, out, err = lacewing(*words, *flags)
        assert code == 2 and out == "" and message in err, err
    gbnf.write_bytes(b"\xff")
    assert "byte 0 is not UTF-8" in lacewing(*words, "--grammar", gbnf)[2]
    gbnf.write_bytes(b"a" * 70000)
    assert "at most 65536 are read" in lacewing(*words, "--grammar", gbnf)[2]


def test_stop_ends_an_answer(lacewing, monkeypatch, tiny_path):
    words = (
        "run",
        tiny_path,
        "Hello",
        "--backend",
        "reference",
        "--context",
        256,
        "--max-tokens",
        12,
        "--temperature",
        0,
        "--json",
    )
    piped(monkeypatch, "")
    text = json.loads(lacewing(*words)[1])["text"]
    stop = text[3:6]
    found = json.loads(lacewing(*words, "--stop", "never there", "--stop", stop)[1])
    assert found["text"] == text[: text.index(stop)] and found["finish_reason"] == "stop"


def test_a_chat_begins_where_a_session_ended(lacewing, asked, monkeypatch, tiny_path, tmp_path):
    monkeypatch.setenv("LACEWING_SESSIONS", str(tmp_path))
    piped(monkeypatch, "First\n/temperature 0.5\n/system Old.\n/save trip\n")
    assert lacewing("chat", tiny_path, *REFERENCE)[0] == 0
    saved = json.loads((tmp_path / "trip.json").read_text())
    piped(monkeypatch, "Second\n/settings\n/save\n")
    code, out, err = lacewing("chat", tiny_path, "--load", "trip", "--backend", "reference", "--seed", 3, "--max-tokens", 1)
    assert code == 0 and "loaded 2 messages" in err
    assert [text for role, text in asked[-1][1] if role == "user"] == ["First", "Second"] and asked[-1][1][0] == ("system", "Old.")
    after = json.loads((tmp_path / "trip.json").read_text())
    assert after["messages"][:2] == saved["messages"] and len(after["messages"]) == 4
    told = " ".join((out + err).split())
    assert "temperature 0.5" in told and "seed 3" in told  # what was saved, and what the command line sets
    piped(monkeypatch, "x\n")
    assert lacewing("chat", tiny_path, "--load", tmp_path / "trip.json", "--system", "New.", *REFERENCE)[0] == 0
    assert asked[-1][1][0] == ("system", "New.")


def test_the_last_conversation_is_resumed(lacewing, asked, monkeypatch, tiny_path, tmp_path):
    monkeypatch.setenv("LACEWING_SESSIONS", str(tmp_path))
    piped(monkeypatch, "First\n/save trip\n")
    assert lacewing("chat", tiny_path, *REFERENCE)[0] == 0
    for words in (("--resume",), (tiny_path, "--resume"), ("--resume", "-m", tiny_path)):
        piped(monkeypatch, "Second\n")
        code, _, err = lacewing("chat", *words, *REFERENCE)
        assert code == 0 and "loaded 2 messages" in err
        assert [text for role, text in asked[-1][1] if role == "user"] == ["First", "Second"]
        for left in tmp_path.glob("*-*.json"):
            left.unlink()
    piped(monkeypatch, "")
    assert lacewing("chat", "--resume", "--load", "trip")[0] == 2
    (tmp_path / "trip.json").unlink()
    code, _, err = lacewing("chat", "--resume")
    assert code == 1 and "no conversation is kept" in err


@pytest.mark.parametrize(
    ("words", "model", "prompt"),
    [
        ([], "default", ""),
        (["smollm2"], "smollm2", ""),
        (["smollm2", "Hi"], "smollm2", "Hi"),
        (["smollm2", "why", "is", "it"], "smollm2", "why is it"),
        (["Why is the sky blue?"], "default", "Why is the sky blue?"),
        (["either/or, that is the question"], "default", "either/or, that is the question"),
        (["hf:owner/repo"], "hf:owner/repo", ""),
        (["https://host/x.gguf", "Hi"], "https://host/x.gguf", "Hi"),
        (["my model.gguf"], "my model.gguf", ""),
        (["path/to/model"], "path/to/model", ""),
        (["TINY"], "TINY", ""),
    ],
)
def test_which_word_is_the_model(tiny_path, words, model, prompt):
    words, model = ([str(tiny_path) if word == "TINY" else word for word in each] for each in (words, [model]))
    found = Request.of(words, None, "default", [], None, None)
    assert (found.model, found.prompt) == (model[0], prompt)
    assert Request.of(words, "named", "default", [], None, None).prompt == " ".join(words)


@pytest.mark.parametrize(("word", "message"), [("Hello", "lacewing run -m default 'Hello'"), ("smolm2", "did you mean smollm2?")])
def test_one_word_that_is_no_model_is_not_sent(word, message):
    with pytest.raises(OptionError, match="there is no model") as raised:
        Request.of([word], None, "default", [], None, None)
    assert message in str(raised.value)


def command_of(path):
    return [*RUN, "run", str(path), "Hello", *REFERENCE, "--json"]


def tokens(path, **options):
    """Of the prompt, and how many seconds the command took."""
    began = time.monotonic()
    done = subprocess.run(command_of(path), capture_output=True, text=True, timeout=60, **options)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)["prompt_tokens"], time.monotonic() - began


@pytest.fixture(scope="module")
def alone(tiny_path):
    """Tokens of the prompt without anything on standard input."""
    return tokens(tiny_path, stdin=subprocess.DEVNULL)[0]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and sockets of POSIX")
class TestStreams:
    """Whatever is connected to standard input, a command with a prompt ends soon and is right."""

    def test_silent_ones_are_left(self, tiny_path, alone):
        read, write = os.pipe()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for silent in (read, theirs.fileno()):
                count, seconds = tokens(tiny_path, stdin=silent)
                assert count == alone and seconds < 30
        os.close(read)
        os.close(write)

    def test_a_parent_that_writes_is_read(self, tiny_path, alone):
        assert tokens(tiny_path, input="Some words.")[0] > alone
        assert tokens(tiny_path, input="")[0] == alone

    @pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
    def test_a_slow_producer_is_waited_for(self, tiny_path, alone):
        words = shlex.join(command_of(tiny_path))
        done = subprocess.run(
            f"(sleep 3; echo Some words.) | {words}",
            shell=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0 and json.loads(done.stdout)["prompt_tokens"] > alone
        assert done.stderr in ("", "lacewing: waiting for the text on standard input\n")  # less if Python starts slowly

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"\x89PNG\0\0" * 10, "not UTF-8 text"),
            ("Grüße, Größe, Öl".encode("latin-1") * 5, "not UTF-8 text"),
            (b"x" * (MAX_STDIN_BYTES + 1), "more than 4 MiB"),
        ],
    )
    def test_what_is_no_text_is_refused_before_the_model_is_loaded(self, data, message):
        done = subprocess.run([*RUN, "run", "no/such/model", "Hi"], input=data, capture_output=True, timeout=60)
        assert done.returncode == 2 and message in done.stderr.decode() and done.stderr.count(b"\n") == 1

    def test_a_stray_byte_is_no_reason_to_refuse(self, tiny_path):
        command = [*RUN, "run", str(tiny_path), *REFERENCE]
        done = subprocess.run(command, input=b"caf\xe9 and \xef\xbb\xbf tea", capture_output=True, timeout=60)
        assert done.returncode == 0 and b"1 place that" in done.stderr
        done = subprocess.run(command, input="Grüße".encode("utf-16"), capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")

    def test_ctrl_c_while_it_waits_is_quiet(self, tiny_path):
        words = shlex.join([*RUN, "run", str(tiny_path)])
        child = pexpect.spawn("sh", ["-c", f"sleep 30 | {words}"], encoding="utf-8", timeout=20)
        child.expect("waiting for the text on standard input")
        child.sendintr()
        child.expect(pexpect.EOF)
        assert "Traceback" not in child.before
        child.close()

    def test_run_without_a_prompt_on_a_terminal_is_a_chat(self, tiny_path, tmp_path):
        for words in (("run", tiny_path), ("chat", tiny_path), (tiny_path,)):
            environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "LACEWING_SESSIONS": str(tmp_path)}
            command = [*map(str, words), "--backend", "reference", "--context", "64"]
            child = pexpect.spawn(RUN[0], [*RUN[1:], *command], encoding="utf-8", timeout=30, env=environment)
            child.expect("/help shows the commands")
            child.expect_exact("\x1b[?2004h")  # it reads lines now
            child.sendeof()
            child.expect(pexpect.EOF)
            child.close()
            assert child.exitstatus == 0
