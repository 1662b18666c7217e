"""The chat in a real terminal, and the same in a pipe."""

import contextlib
import json
import subprocess
import sys

import pexpect
import pytest

if not hasattr(pexpect, "spawn"):
    pytest.skip("needs a pseudo-terminal", allow_module_level=True)

from lacewing.chat.services import document, files
from lacewing.chat.services.opening import open_session
from lacewing.options import LoadOptions, Sampling
from lacewing.text.template import NAMES
from tests.chat.terminal.terminal import ALT_ENTER, CTRL_C, CTRL_D, DEAF, PATIENCE, SLOW_DISK, Chat
from tests.checkpoints import tiny

GREEDY = ("--temperature", "0", "--max-tokens", "8", "--context", "2048")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two architectures."""
    folder = tmp_path_factory.mktemp("models")
    return tiny("llama-wide", "gguf", folder, "Q4_0"), tiny("gemma3-wide", "gguf", folder, "Q4_0")


def messages(path):
    return [(each["role"], each["content"]) for each in json.loads(path.read_text())["messages"]]


def script(models, saved):
    """A conversation over other models, templates and residencies, and back."""
    lines = ["Hello there", f"/model {models[1]}", "And you?", "/model -", "/lazy on", "Lazy now", "/lazy off"]
    for name in NAMES:
        lines += [f"/template {name} --force", f"As {name}", "/template auto"]
    return [*lines, "The end", f"/save {saved}"]


def test_a_conversation_in_a_terminal_and_in_a_pipe(models, tmp_path):
    """Over models, templates and residencies every message stays, and a pipe gives the same conversation."""
    words = (str(models[0]), "--backend", "cpu", *GREEDY)
    with Chat(tmp_path, *words) as chat:
        assert "/help shows the commands" in chat.ready()
        for line in script(models, tmp_path / "terminal.json"):
            shown = chat.turn(line)
            assert "lacewing:" not in shown, shown
        chat.send("/quit")
        assert chat.leave() == 0
    said = [line for line in script(models, "") if not line.startswith("/")]
    asked = [text for role, text in messages(tmp_path / "terminal.json") if role == "user"]
    assert asked == said
    done = pipe(words, "\n".join(script(models, tmp_path / "pipe.json")), tmp_path)
    assert done.returncode == 0, done.stderr
    assert messages(tmp_path / "pipe.json") == messages(tmp_path / "terminal.json")
    answers = [text for role, text in messages(tmp_path / "pipe.json") if role == "assistant"]
    assert all(answer.rstrip("\n") in done.stdout for answer in answers)
    assert "\x1b[" not in done.stdout


def pipe(words, text, folder):
    command = [sys.executable, "-m", "lacewing", "chat", *words]
    options = {"encoding": "utf-8", "errors": "surrogateescape", "timeout": 2 * PATIENCE}
    return subprocess.run(command, input=text, cwd=folder, capture_output=True, **options)


def test_a_pipe_tells_failures(models, tmp_path):
    text = '/nonsense\n/model no/such.gguf\n"""\none\n\ntwo\udcff\n"""\n/save s.json\n/quit\nnever\n'
    done = pipe((models[0], "--backend", "reference", *GREEDY), text, tmp_path)
    assert done.returncode == 1
    assert "no command /nonsense" in done.stderr and "no/such.gguf" in done.stderr
    assert [text for role, text in messages(tmp_path / "s.json") if role == "user"] == ["one\n\ntwo\N{REPLACEMENT CHARACTER}"]
    assert pipe(("no/such.gguf",), "", tmp_path).returncode == 1


def test_ctrl_c_while_a_model_loads(models, tmp_path):
    """The old model answers the next message as it would have."""
    program = SLOW_DISK.format(fast=1)
    words = (models[0], "--backend", "reference", "--residency", "eager", *GREEDY)
    with Chat(tmp_path, *words, program=program) as chat:
        chat.ready()
        chat.turn("Hello")
        first = chat.seen().split("the answer")[0].strip()
        chat.send(f"/model {models[1]} --eager")
        chat.expect("Ctrl-C cancels")
        chat.press(CTRL_C)
        assert "cancelled" in chat.ready()
        chat.turn("/retry")
        assert chat.seen().split("the answer")[0].strip() == first
        chat.press(CTRL_D)
        assert chat.leave() == 0


def test_ctrl_c_while_the_first_model_loads(models, tmp_path):
    with Chat(tmp_path, models[0], "--residency", "eager", program=SLOW_DISK.format(fast=0)) as chat:
        chat.expect("Ctrl-C cancels")
        chat.press(CTRL_C)
        assert chat.leave() == 130


def test_a_second_ctrl_c_does_not_wait(models, tmp_path):
    with Chat(tmp_path, models[0], "--backend", "reference", *GREEDY, program=DEAF.format(hundredths=6000)) as chat:
        chat.ready()
        chat.send(f"/model {models[1]}")
        chat.expect("slow work begins")
        chat.press(CTRL_C)
        chat.expect("Ctrl-C again leaves")
        chat.press(CTRL_C)
        assert chat.leave() == 130


def test_the_last_message_in_an_editor(models, tmp_path):
    script = tmp_path / "editor.py"
    script.write_text("import sys\nopen(sys.argv[1], 'a').write(' changed')\n")
    with Chat(tmp_path, models[0], "--backend", "reference", *GREEDY, EDITOR=f"{sys.executable} {script}") as chat:
        chat.ready()
        chat.turn("Hello")
        chat.turn("/edit")
        chat.turn("/save s.json")
    assert [text for role, text in messages(tmp_path / "s.json") if role == "user"] == ["Hello changed"]


def test_ctrl_c_at_the_prompt(models, tmp_path):
    with Chat(tmp_path, models[0], "--backend", "reference", *GREEDY) as chat:
        chat.ready()
        chat.press(CTRL_C)
        chat.expect("again leaves")
        chat.ready()
        chat.press(CTRL_C)
        assert chat.leave() == 0


def test_edits_are_asked_for(models, tmp_path):
    """What the model proposes is shown and asked for; here the proposal comes out of a saved session."""
    (tmp_path / "a.txt").write_text("one\n")
    with Chat(tmp_path, models[0], "--backend", "reference", *GREEDY) as chat:
        chat.ready()
        chat.turn(f"See @a.txt{ALT_ENTER}please")
        chat.turn("/save s.json")
        saved = json.loads((tmp_path / "s.json").read_text())
        assert saved["messages"][0]["content"] == "See @a.txt\nplease\n\n``` a.txt\none\n```"
        saved["messages"][-1]["content"] = "a.txt\n<<<<<<< SEARCH\none\n=======\ntwo\n>>>>>>> REPLACE\n"
        parts = {name: part for name, part in saved.items() if name not in ("lacewing_session", "checksum")}
        (tmp_path / "other.json").write_bytes(document.encode(parts))
        chat.turn("/load other.json")
        assert "-one" in chat.turn("/diff")
        chat.send("/apply")
        chat.expect("write a.txt")
        chat.send("n")
        assert "nothing was written" in chat.ready() and (tmp_path / "a.txt").read_text() == "one\n"
        chat.send("/apply")
        chat.expect("write a.txt")
        chat.send("y")
        assert "written: a.txt" in chat.ready() and (tmp_path / "a.txt").read_text() == "two\n"
        assert "proposes no edits" in chat.turn("/apply")


def test_two_real_models(smollm2_path, gemma3_path, tmp_path):
    """There, back, and there again with a template and a residency changed: the answers are those of fresh sessions."""
    with Chat(tmp_path, smollm2_path, *GREEDY) as chat:
        chat.ready()
        chat.turn("My name is Ada.")
        shown = chat.turn(f"/model {gemma3_path}")
        assert "gemma3" in shown and "is parked" in shown
        chat.turn("What is my name?")
        chat.turn("/save gemma.json")
        assert "back to" in chat.turn("/model -")
        chat.turn("/template raw --force")
        chat.turn("/lazy on")
        chat.turn("Where am I?")
        chat.turn("/save smollm2.json")
        chat.send("/quit")
        assert chat.leave() == 0
    for name, path in (("gemma.json", gemma3_path), ("smollm2.json", smollm2_path)):
        said = messages(tmp_path / name)
        session = open_session(str(path), LoadOptions(context=2048), Sampling(temperature=0, max_tokens=8))
        with contextlib.closing(session):
            files.load(session, str(tmp_path / name))
            session.cut(len(said) - 1)
            list(session.answer())
            assert [(each["role"], each["content"]) for each in session.messages] == said
    assert [text for role, text in said if role == "user"] == ["My name is Ada.", "What is my name?", "Where am I?"]


def test_smollm2(smollm2_path, tmp_path):
    """A real model: Markdown, the toolbar, completion, Ctrl-C in an answer."""
    with Chat(tmp_path, smollm2_path, "--temperature", "0", cursor_reports=True) as chat:
        chat.expect(r"\x1b\[6n")
        chat.press("\x1b[2;1R")
        chat.expect("/8192|/2048")  # the toolbar
        chat.press("/temp\t\t")
        chat.expect("emplate")
        chat.press(CTRL_C)
        chat.ready()
        chat.send("Write a very long story about a lacewing, at least five thousand words.")
        chat.expect("lacewing|Lacewing|Once|The")
        chat.press(CTRL_C)
        chat.expect("stopped")
        chat.send("/quit")
        assert chat.leave() == 0
