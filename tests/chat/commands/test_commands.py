"""Every command, without a terminal."""

import re

import numpy as np
import pytest

from lacewing.chat.commands.table import load_commands, run_line
from lacewing.chat.services import files
from lacewing.chat.services.swap import change_model
from lacewing.console.output import Columns, Table
from lacewing.engine.engine import Engine
from lacewing.errors import DownloadError, LacewingError, NumericError, OptionError, TemplateError
from lacewing.options import counted
from tests.chat.conftest import say


@pytest.fixture
def chat(start, tmp_path, monkeypatch):
    monkeypatch.setenv("LACEWING_SESSIONS", str(tmp_path / "sessions"))
    monkeypatch.setenv("LACEWING_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    session = start()
    say(session, "Hello")
    return session


def cells(reply):
    assert isinstance(reply.data, Table)
    assert all(len(row) == len(reply.data.headings) for row in reply.data.rows)
    return [" | ".join(row) for row in reply.data.rows]


ISSUE = [
    "help",
    "quit",
    "clear",
    "retry",
    "undo",
    "edit",
    "continue",
    "context",
    "settings",
    "temperature",
    "top-k",
    "top-p",
    "min-p",
    "repeat-penalty",
    "seed",
    "max-tokens",
    "system",
    "thinking",
    "stop",
    "save",
    "fullsave",
    "load",
    "sessions",
    "export",
    "read",
    "stats",
    "memory",
    "compare",
    "verify",
    "copy",
    "debug",
    "lazy",
    "eager",
    "model",
    "template",
    "code",
    "diff",
    "apply",
    "discard",
]


def test_all_commands_are_there():
    table = load_commands()
    assert set(" ".join(ISSUE).split()) <= set(table.rows)
    for row in table.rows.values():
        assert row.summary.endswith((".", ":")) or ";" in row.summary or row.summary[-1].isalnum(), row.name
        assert row.usage.startswith(f"/{row.name}") and len(row.summary) < 130


def test_help(chat):
    tables = run_line(chat, "/help").data
    assert [table.title for table in tables][:2] == ["Most used", "The conversation"] and tables[0].rows[0][0] == "/help [COMMAND]"
    told = dict(row for table in tables for row in table.rows)
    assert told["/read FILE"].endswith(
        "(`/read notes.txt:10-50`), in front of your next message"
    )  # a colon in an example ends nothing
    assert "/model [NAME]" in [row[0] for row in tables[0].rows]
    assert sum(len(table.rows) for table in tables) == len(load_commands().rows)
    text = run_line(chat, "/help m").text
    assert text.startswith("/model [NAME] [--backend BACKEND]") and "goes back to the previous model" in text
    with pytest.raises(OptionError, match="did you mean /model"):
        run_line(chat, "/help modle")
    assert run_line(chat, "/q").then == "quit"


def test_models(chat, paths):
    lines = cells(run_line(chat, "/model"))
    assert any(line.startswith("*") and "llama" in line and "Q4_0" in line and "fits" in line for line in lines)
    assert any("gemma3-wide" in line for line in lines) and any("not fetched" in line for line in lines)
    assert "is parked" in run_line(chat, f'/model "{paths["gemma"]}" --lazy --context 256').text
    assert (chat.model.spec.context, chat.model.weights.residency) == (256, "lazy")
    assert any(line.startswith("parked") for line in cells(run_line(chat, "/model")))
    assert "back to" in run_line(chat, "/model -").text
    assert "backend" not in run_line(chat, "/model --backend reference").text and chat.model.backend.name == "reference"
    for options in ("--lazy --eager", "--residency lazy --eager"):
        with pytest.raises(OptionError, match="one residency"):
            run_line(chat, f"/model x {options}")
    assert run_line(chat, "/model --residency eager --eager") and chat.model.weights.residency == "eager"
    assert run_line(chat, "/model --residency lazy") and chat.model.weights.residency == "lazy"
    with pytest.raises(OptionError, match=r"residency is 'slow'; it must be"):
        run_line(chat, "/model --residency slow")
    with pytest.raises(DownloadError, match="no file"):
        run_line(chat, "/model none.gguf")


def test_a_broken_file_in_the_list(chat, paths, tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF broken")
    assert any("broken.gguf" in line and "cannot be used" in line for line in cells(run_line(chat, "/model")))


def test_residency(chat):
    before = chat.model.weights.residency
    run_line(chat, "/lazy on")
    assert chat.model.weights.residency == "lazy"
    assert "eager" in run_line(chat, "/lazy").text and "lazy" in run_line(chat, "/lazy").text
    run_line(chat, "/eager --force")
    assert chat.model.weights.residency == "eager" == before
    assert "already" in run_line(chat, "/lazy off").text


def test_templates(chat, tmp_path):
    lines = cells(run_line(chat, "/template"))
    assert lines[0].startswith("* | auto (checkpoint) | fine") and any(
        "lacks <|eot_id|>" in line or "llama3" in line for line in lines
    )
    told = run_line(chat, "/template qwen").text
    assert "checkpoint -> chatml" in told and re.search(r"^\d+ tokens with this template: \d+ reused, \d+ reprocessed$", told, re.M)
    assert any(line.startswith("* | chatml") for line in cells(run_line(chat, "/template")))
    with pytest.raises(LacewingError, match="--force"):
        run_line(chat, "/template phi3")
    run_line(chat, "/template harmony --force")
    assert chat.formatter.template.name == "gpt-oss"
    reply = run_line(chat, "/template diff raw")
    assert isinstance(reply.data, Columns) and "Hello" in reply.data.texts[1] and "<|start|>user" in reply.data.texts[0]
    (tmp_path / "mine.jinja").write_text("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}")
    assert "mine.jinja" in run_line(chat, "/template ./mine.jinja").text
    assert any("./mine.jinja" in line and "ignores add_generation_prompt" in line for line in cells(run_line(chat, "/template")))
    run_line(chat, "/template auto")
    with pytest.raises(OptionError, match="needs the name"):
        run_line(chat, "/template diff")
    with pytest.raises(OptionError, match="unexpected argument"):
        run_line(chat, "/template raw gemma")


def test_compare(chat, paths):
    before = list(chat.messages)
    reply = run_line(chat, f"/compare {paths['gemma']}")
    assert isinstance(reply.data, Columns) and reply.data.texts[0] == before[-1]["content"]
    assert "tokens/s" in reply.data.headings[1] and chat.messages == before and not chat.parked
    with pytest.raises(OptionError, match="no model is parked"):
        run_line(chat, "/compare -")
    change_model(chat, str(paths["gemma"]))
    back = run_line(chat, "/compare -")
    assert back.data.headings[1].startswith("llama-wide") and back.data.texts[1] == before[-1]["content"] and len(chat.parked) == 1
    again = run_line(chat, f"/compare {paths['llama']} What is it?")
    assert all("tokens/s" in heading for heading in again.data.headings) and len(chat.parked) == 1
    chat.replace([])
    with pytest.raises(OptionError, match="no message"):
        run_line(chat, f"/compare {paths['llama']}")


def test_verify(chat):
    lines = cells(run_line(chat, "/verify"))
    assert sum("bitwise equal" in line for line in lines) == 2
    assert any(line.startswith("reference") and "agrees, within 5% of the range" in line for line in lines)
    assert len(chat.messages) == 2 and say(chat, "More") is not None


@pytest.mark.parametrize(("off", "verdict"), [(0.04, "agrees, within 5%"), (0.06, "FAR OFF, over 5%"), (np.inf, "FAR OFF"),
                                              (np.nan, "FAILED, please report this: the model produced NaN")])  # fmt: skip
def test_verify_of_a_backend_that_is_off(off, verdict, chat, monkeypatch):
    """By a share of the range of the logits, at one place; the other rows are there all the same."""
    logits = Engine.logits

    def wrong(self, ids):
        found = logits(self, ids)
        if type(self.step).__module__.startswith("lacewing.backends.reference"):
            found[3, 7] += off * (found.max() - found.min())
            if np.isnan(off):
                raise NumericError("the model produced NaN logits")
        return found

    monkeypatch.setattr(Engine, "logits", wrong)
    monkeypatch.setattr("lacewing.chat.services.inspection.known_backends", lambda: ["cpu", "reference"])
    lines = cells(run_line(chat, "/verify"))
    assert any(line.startswith("reference") and verdict in line for line in lines)
    assert sum("bitwise equal" in line for line in lines) == 2


def test_talking(chat):
    assert run_line(chat, "/retry").stream is not None
    list(run_line(chat, "/continue").stream)
    with pytest.raises(OptionError, match="no editor"):
        run_line(chat, "/edit")
    chat.ui.edit = lambda text: text + " again\n"
    list(run_line(chat, "/edit").stream)
    assert chat.messages[0]["content"] == "Hello again" and len(chat.messages) == 2
    chat.ui.edit = lambda text: None
    assert run_line(chat, "/edit").text == "nothing was changed"
    assert run_line(chat, "/undo").text == "removed: Hello again"
    for line in ("/retry", "/continue", "/edit", "/undo", "/debug", "/export x.md"):
        with pytest.raises(OptionError):
            run_line(chat, line)
    assert run_line(chat, "/clear").text == "the conversation is already empty"


def test_system_and_thinking(chat):
    assert "no system" in run_line(chat, "/system").text
    run_line(chat, "/system Be  'brief'.")
    assert run_line(chat, "/system").text == "Be  'brief'." and "Be  'brief'." in run_line(chat, "/debug").text
    run_line(chat, "/system off")
    assert chat.settings.system is None
    run_line(chat, "/thinking off")
    run_line(chat, "/thinking hide")
    assert (chat.settings.thinking, chat.settings.show_reasoning) == (False, False)
    assert "as the template decides; thoughts are hidden" in run_line(chat, "/thinking auto").text
    assert "thinking: on, low effort" in run_line(chat, "/thinking low").text
    assert {row[0]: row[1] for row in run_line(chat, "/settings").data.rows}["/thinking"] == "low, hide"
    assert chat.settings.chat_options().reasoning_effort == "low"
    assert "thinking: on, high effort" in run_line(chat, "/thinking on").text
    assert "no limit" in run_line(chat, "/thinking-budget").text
    assert "after 100 tokens" in run_line(chat, "/thinking-budget 100").text
    assert chat.settings.chat_options().reasoning_budget == 100
    assert "no limit" in run_line(chat, "/thinking-budget off").text
    with pytest.raises(OptionError, match="reasoning_budget"):
        run_line(chat, "/thinking-budget -1")


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("/temperature 0.5", "temperature", 0.5),
        ("/temperature default", "temperature", 0.8),
        ("/top-k 7", "top_k", 7),
        ("/top-p 0.5", "top_p", 0.5),
        ("/min-p 0.1", "min_p", 0.1),
        ("/repeat-penalty 1.2", "repeat_penalty", 1.2),
        ("/seed 12", "seed", 12),
        ("/seed random", "seed", None),
        ("/max-tokens 9", "max_tokens", 9),
        ("/max-tokens off", "max_tokens", None),
        ("/stop END", "stop", ("END",)),
        ("/stop off", "stop", ()),
    ],
)
def test_sampling(line, field, value, chat):
    run_line(chat, line)
    assert getattr(chat.settings.sampling, field) == value
    assert run_line(chat, line.split()[0]).text


@pytest.mark.parametrize(
    "line", ["/temperature hot", "/temperature -1", "/top-p 2", "/top-k 1.5", "/seed -2", "/context sometimes"]
)
def test_values_out_of_range(line, chat):
    before = chat.settings
    with pytest.raises(OptionError):
        run_line(chat, line)
    assert chat.settings == before


def test_state(chat):
    lines = cells(run_line(chat, "/context drop-oldest"))
    assert [line.split(" | ")[0] for line in lines] == ["system", "history", "reserved for the answer", "free", "context"]
    assert chat.settings.overflow == "drop-oldest"
    run_line(chat, "/system A rather long instruction for the model.")
    assert int(cells(run_line(chat, "/context"))[0].split(" | ")[1]) > 10
    assert any("temperature | 0 | changed" in line for line in cells(run_line(chat, "/settings")))
    assert any(line.startswith("answer speed") for line in cells(run_line(chat, "/stats")))
    assert any(line.startswith("process") for line in cells(run_line(chat, "/memory")))
    copied = []
    chat.ui.copy = lambda text: copied.append(text) or ""
    assert run_line(chat, "/copy").text == f"copied {counted(len(chat.last_answer()), 'character')}"
    assert copied == [chat.last_answer()]
    chat.ui.copy = lambda text: "nobody knows"
    assert run_line(chat, "/copy").text.endswith("sent to the clipboard: nobody knows")
    assert "<|im_start|>user\nHello<|im_end|>" in run_line(chat, "/debug").text
    chat.replace([])
    for line in ("/copy", "/stats"):
        with pytest.raises(OptionError):
            run_line(chat, line)
    assert cells(run_line(chat, "/context"))


def test_files(chat, tmp_path):
    assert "no session is saved" in run_line(chat, "/sessions").text
    with pytest.raises(OptionError, match="give the session a name"):
        run_line(chat, "/save")
    run_line(chat, "/save one")
    assert "saved 2 messages" in run_line(chat, "/save").text
    assert "KV cache" in run_line(chat, "/fullsave").text
    assert "KV cache" in cells(run_line(chat, "/sessions"))[0]
    chat.replace([])
    assert "nothing has to be reprocessed" in run_line(chat, "/load one").text and len(chat.messages) == 2
    run_line(chat, "/export talk.md")
    assert "## You\n\nHello" in (tmp_path / "talk.md").read_text("utf-8")
    chat.ui.confirm = lambda question: pytest.fail("nobody is there who could be asked, but for the next line of a pipe")
    with pytest.raises(OptionError, match="--force replaces"):
        run_line(chat, "/export talk.md")
    run_line(chat, "/export talk.md --force")


def test_reading_a_file(chat, tmp_path):
    (tmp_path / "my notes.txt").write_text("first\nsecond\nthird\n")
    assert "sent with your next message" in run_line(chat, '/read "my notes.txt:2-3"').text
    say(chat, "What does it say?")
    content = chat.messages[-2]["content"]
    assert "second\nthird" in content and "first" not in content and content.endswith("What does it say?")
    run_line(chat, '/read "my notes.txt"')
    assert run_line(chat, "/read off").text == "1 file removed from your next message" and chat.attachments == []
    with pytest.raises(LacewingError, match="there is no file"):
        run_line(chat, "/read missing.txt")


ANSWER = """Two files:

```py
a = 1
```
and
1. in a list
   ~~~~sh
   ls
   ~~~
   ~~~~
```
open"""


def test_a_code_block_is_copied(chat):
    chat.messages[-1]["content"] = ANSWER
    copied = []
    chat.ui.copy = lambda text: copied.append(text) or ""
    assert run_line(chat, "/copy 2").text == "copied 6 characters of code block 2"
    run_line(chat, "/copy 1")
    run_line(chat, "/copy 3")
    assert copied == ["ls\n~~~", "a = 1", "open"]
    for line in ("/copy 0", "/copy 4"):
        with pytest.raises(OptionError, match="the last answer has 3 code blocks; /copy copies all of it"):
            run_line(chat, line)
    chat.messages[-1]["content"] = "none"
    with pytest.raises(OptionError, match="has no code block"):
        run_line(chat, "/copy 1")


def test_settings_are_spelled_as_their_commands_are(chat):
    run_line(chat, "/max-tokens off")
    run_line(chat, "/seed 5")
    run_line(chat, "/stop END")
    run_line(chat, "/plain on")
    shown = {row[0]: row[1:] for row in run_line(chat, "/settings").data.rows}
    assert set(shown) <= {f"/{name}" for name in load_commands().rows} and "/top-k" in shown
    assert shown["/max-tokens"] == ("off", "") and shown["/seed"] == ("5", "changed") and shown["/stop"] == ("'END'", "changed")
    assert shown["/plain"] == ("on", "changed") and shown["/code"] == ("off", "") and shown["/thinking"] == ("auto, show", "")
    values = {name: value for name, (value, _) in shown.items() if name not in ("/stop", "/system", "/thinking", "/model")}
    for name, value in values.items():  # each may be typed as it is shown
        run_line(chat, f"{name} {value}")
    assert {row[0]: row[1:] for row in run_line(chat, "/settings").data.rows} == shown


def test_plain_switches(chat):
    assert "as they are written" in run_line(chat, "/plain").text and chat.settings.plain
    assert "as Markdown" in run_line(chat, "/plain").text and not chat.settings.plain


def test_the_status_is_of_this_model_and_conversation(chat, paths):
    def figures():
        status = chat.status()
        return status.used_tokens, status.tokens_per_second > 0

    used = len(chat.formatter.ids(chat.messages, chat.settings, generation=False))
    assert figures() == (used, True) and chat.status().model == paths["llama"].name
    files.save(chat, "one")
    run_line(chat, f"/model {paths['gemma']}")
    assert figures() == (len(chat.formatter.ids(chat.messages, chat.settings, generation=False)), False)
    with pytest.raises(OptionError, match="no answer"):
        run_line(chat, "/stats")
    run_line(chat, "/model -")
    say(chat, "More")
    assert figures()[0] > used and figures()[1]
    chat.replace([])
    assert figures() == (0, False)
    run_line(chat, "/load one")
    assert figures() == (used, False)
    run_line(chat, "/system Be brief.")
    assert figures()[0] > used


def test_a_template_that_never_renders_the_messages_is_refused(chat, tmp_path):
    before = chat.formatter
    (tmp_path / "page.jinja").write_text("root:x:0:0:{{ bos_token }}\n{% for m in messages %}{{ m.role }}{% endfor %}")
    for name in ("./page.jinja", "/etc/passwd"):
        with pytest.raises(TemplateError, match="is not a chat template: it never renders the messages"):
            run_line(chat, f"/template {name}")
    (tmp_path / "odd.jinja").write_text(
        "{% if messages | length < 2 %}{{ raise_exception('two at least') }}{% endif %}"
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    assert "odd.jinja" in run_line(chat, "/template ./odd.jinja --force").text
    run_line(chat, "/template auto")
    assert chat.formatter.template.name == before.template.name


def test_names_with_spaces_get_a_hint(chat):
    for line in ("/read my file.txt", "/save my chat", "/export a b.md"):
        with pytest.raises(OptionError, match=rf'put a name with spaces in quotes: {line.partition(" ")[0]} "'):
            run_line(chat, line)
