"""Words of the command line: what may have been meant, both spellings, a model in the place of a command, what is shown."""

import os
import shutil
import subprocess
import sys

import pexpect
import pytest
import typer.main

from lacewing.cli.app import app
from lacewing.hub.cache import resolve
from lacewing.hub.names import parse
from lacewing.options import did_you_mean, known_spelling

COMMANDS = typer.main.get_command(app).commands


def test_version(lacewing):
    assert lacewing("-V") == lacewing("--version") and lacewing("-V")[1].startswith("lacewing 0.")
    assert lacewing("-h") == lacewing("--help") == lacewing()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("caht",), "there is no command or model 'caht'; did you mean chat?"),
        (("smolm2",), "there is no command or model 'smolm2'; did you mean smollm2?"),
        (("qqqq", "--temperature", "0"), "`lacewing --help` lists the commands"),
        (("src",), "there is no command or model 'src'"),  # a folder, but of no model
        (("run", "a", "b", "--tempratur", "1"), "there is no option --tempratur; did you mean --temperature?"),
        (("run", "a", "b", "--zzzz"), "there is no option --zzzz; lacewing run --help lists them"),
        (("--versoin",), "there is no option --versoin; did you mean --version?"),
        (("run", "a", "b", "--top-k"), "--top-k needs a value"),
        (("run", "a", "b", "--top-k", "many"), "--top-k is 'many'; it must be a whole number"),
        (("run", "a", "b", "--min-p=x"), "--min-p is 'x'; it must be a number"),
        (("run", "a", "b", "--color", "pink"), "color is 'pink'; it must be auto, always or never"),
        (("bench",), "missing argument 'MODEL'; `lacewing bench --help` shows the usage"),
        (("bench", "x", "-r", "0"), "repeats is 0; it must be at least 1"),
        (("tokenize", "a", "b", "c"), "`lacewing tokenize --help` shows the usage"),
        (("run", "a", "b", "--raw=yes"), "--raw takes no value"),
        (("completion", "tcsh"), "there are bash, zsh and fish"),
    ],
)
def test_what_may_have_been_meant(lacewing, monkeypatch, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    code, out, err = lacewing(*words)
    assert (code, out) == (2, "") and message in err and err.startswith("lacewing: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: resolve("smolm2"), "did you mean smollm2?"),
        (lambda: resolve("models/tony.gguf"), "did you mean models/tiny.gguf?"),
        (lambda: resolve("tinny.gguf"), "did you mean tiny.gguf?"),
        (lambda: parse("gema3-270m"), "did you mean gemma3-270m?"),
    ],
)
def test_names_of_models(monkeypatch, tmp_path, call, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny.gguf").touch()
    (tmp_path / "tiny.gguf").touch()
    with pytest.raises(Exception, match=r"is not a model|there is no file") as raised:
        call()
    assert message in str(raised.value)


def test_british_and_american(lacewing, tiny_path):
    assert lacewing("tokenise", tiny_path, "Hi") == lacewing("tokenize", tiny_path, "Hi")
    assert lacewing("tokenize", tiny_path, "Hi", "--colour", "never")[0] == 0
    pairs = [("summarise", "summarize"), ("colour", "color"), ("behaviour", "behavior"), ("centre", "center"), ("grey", "gray"),
             ("licence", "license"), ("cancelled", "canceled"), ("analyse", "analyze"), ("tokenisation", "tokenization"),
             ("catalogue", "catalog")]  # fmt: skip
    for british, american in pairs:
        for known, word in ((british, american), (american, british), (british, british)):
            assert known_spelling(word, ["other", known]) == known
    assert known_spelling("tokenise", ["token"]) is None
    assert did_you_mean("tempratur", ["temperature", "top_k"]) == "did you mean temperature?" and did_you_mean("x", ["long"]) == ""


def test_values_have_both_spellings_in_a_chat(tiny_path, start):
    out, err = start("chat", tiny_path, "--backend", "reference").communicate("/context --overflow summarize\n/quit\n", timeout=60)
    assert "summarise" in out + err and "summarize" not in out + err


def test_a_model_alone_is_a_chat(start, tiny_path, tmp_path):
    for word in (tiny_path, tiny_path.parent):
        process = start(word, "--backend", "reference", "--max-tokens", 2, cwd=tmp_path)
        out, _ = process.communicate("Hello\n", timeout=60)
        assert process.returncode == 0 and out.strip()
    process = start("nothing/here.gguf", cwd=tmp_path)
    assert "no file, directory or model 'nothing/here.gguf'" in process.communicate(timeout=60)[1]


def test_what_is_shown(start, tiny_path, tmp_path):
    words = ("run", tiny_path, "Hello", "--backend", "reference", "--max-tokens", 2, "--temperature", 0)

    def told(*more):
        return start(*words, *more).communicate("", timeout=60)

    answer, nothing = told()
    assert answer.strip() and nothing == ""
    assert told("--template", "gpt-oss")[1].startswith("lacewing: the vocabulary lacks")
    assert told("--template", "gpt-oss", "-q")[1] == ""
    same, told_more = told("--verbose")
    assert same == answer and all(text in told_more for text in (str(tiny_path), "loaded in", "eager: ", "tokens at", "finish: "))
    early = start("-v", *words).communicate("", timeout=60)
    assert early[0] == answer and "loaded in" in early[1]
    chat = ("chat", tiny_path, "--backend", "reference")
    assert "eager: " in start(*chat, "-v").communicate("", timeout=60)[1]
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    process = start("run", tmp_path / "bad.gguf", "x", "-q")
    assert process.communicate("", timeout=60)[1].startswith("lacewing: ") and process.returncode == 1


def test_verbose_tells_the_causes_of_an_error(lacewing, monkeypatch, tmp_path):
    monkeypatch.setenv("LACEWING_CACHE", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    url = "http://127.0.0.1:1/x.gguf"
    code, _, err = lacewing("pull", url, "-v")
    assert code == 1 and "lacewing: caused by " in err and "caused by" not in lacewing("pull", url)[1]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of POSIX")
def test_colours(tiny_path, tmp_path):
    """Of the chat on a terminal: escape sequences that set a colour."""
    found = {}
    for when in ("auto", "never"):
        environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "LACEWING_SESSIONS": str(tmp_path), "TERM": "xterm-256color"}
        command = ["-m", "lacewing", "chat", str(tiny_path), "--backend", "reference", "--colour", when]
        child = pexpect.spawn(sys.executable, command, encoding="utf-8", timeout=30, env=environment)
        child.expect("/help shows the commands")
        child.expect_exact("\x1b[?2004h")
        child.sendline("/help")
        child.expect("temperature")
        child.send("\x04")
        shown = child.before
        child.close()
        found[when] = any(f"\x1b[{style}" in shown for style in ("36", "0;36", "38;", "0;38", "0;32", "32"))
    assert found == {"auto": True, "never": False}


class TestCompletion:
    def asked(self, shell, line, **variables):
        words = {"bash": {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}, "fish": {"_TYPER_COMPLETE_ARGS": line}}
        environment = {**os.environ, "_LACEWING_COMPLETE": f"complete_{shell}", **words[shell], **variables}
        command = [sys.executable, "-m", "lacewing"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60).stdout.split()

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_the_script(self, lacewing, shell):
        code, out, err = lacewing("completion", shell)
        assert (code, err) == (0, "") and f"_LACEWING_COMPLETE=complete_{shell}" in out
        if shutil.which(shell):
            assert subprocess.run([shell, "-n"], input=out, text=True, capture_output=True).returncode == 0

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("lacewing b", {"bench", "backends"}),
            ("lacewing run smol", {"smollm2"}),
            ("lacewing chat gem", {"gemma3-270m"}),
            ("lacewing run -m smol", {"smollm2"}),
            ("lacewing run smollm2 --top-", {"--top-k", "--top-p"}),
        ],
    )
    def test_commands_options_and_models(self, line, expected, tmp_path):
        (tmp_path / "config.toml").write_text("nonsense")  # a shell is not told of it
        assert set(self.asked("bash", line, LACEWING_CONFIG=str(tmp_path / "config.toml"))) == expected

    @pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
    def test_in_bash(self, tmp_path):
        """The script works as it is loaded, with a command of that name on the path."""
        command = tmp_path / "lacewing"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lacewing "$@"\n')
        command.chmod(0o755)
        script = "source <(lacewing completion bash); COMP_WORDS=(lacewing in); COMP_CWORD=1; _lacewing_completion lacewing"
        script += '; echo "${COMPREPLY[@]}"'
        environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
        assert done.stdout.split() == ["info"]


def test_an_option_is_the_same_everywhere():
    """One spelling, kind, metavar and explanation for each name in all commands."""
    found = {}
    for command in COMMANDS.values():
        for each in command.params:
            if each.param_type_name == "option" and each.name != "help":
                facts = (tuple(each.opts), each.type_descriptor.annotation, each.metavar, each.multiple, each.help)
                assert found.setdefault(each.name, facts) == facts, f"{command.name} {each.name}"
    spelled = [option for facts in found.values() for option in facts[0]]
    assert len(spelled) == len(set(spelled))
