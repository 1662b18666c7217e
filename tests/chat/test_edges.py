"""Edges of the commands: full contexts, half-read edits, folders for files, templates and models that change on disk."""

import os
import shutil

import pytest

from lacewing.chat.commands.table import run_line
from lacewing.chat.services import autosave, files
from lacewing.chat.services.document import SessionFileError
from lacewing.chat.services.edits import EditError
from lacewing.chat.services.swap import change_model
from lacewing.chat.services.templates import change_template
from lacewing.chat.session.events import Delta, Notice
from lacewing.chat.session.formatter import VisibleHistory
from lacewing.chat.session.overflow import clamp
from lacewing.chat.session.settings import Settings
from lacewing.errors import ContextOverflowError, ModelFormatError, OptionError, TemplateError
from lacewing.text.template import ChatTemplate
from tests.chat.commands.test_commands import cells
from tests.chat.conftest import GREEDY, say
from tests.chat.session.test_session import fill


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LACEWING_SESSIONS", str(tmp_path / "sessions"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def full(start, policy):
    """A session whose next turn does not fit, and the number of its messages."""
    session = start(context=160)
    with pytest.raises(ContextOverflowError):
        fill(session)
    session.settings = Settings(GREEDY, overflow=policy)
    return session, len(session.messages)


@pytest.mark.parametrize("policy", ["drop-oldest", "summarise"])
def test_an_answer_goes_on_in_a_full_context(policy, start):
    session, count = full(start, policy)
    text = session.messages[-1]["content"]
    for _ in range(12):  # more than 72 tokens: somewhere the context is full
        events = list(session.continue_())
        assert any(isinstance(each, Delta) for each in events) and len(session.messages) == count
        assert len(session.messages[-1]["content"]) > len(text) and session.messages[-1]["content"].startswith(text)
        text = session.messages[-1]["content"]
        if any(isinstance(each, Notice) for each in events):
            break
    assert 0 < session.formatter.history.hidden < count
    assert (session.formatter.history.summary is not None) == (policy == "summarise")


def test_an_answer_that_fills_the_context_alone(start):
    session = start(context=60)
    say(session, "Hello")
    session.messages[-1]["content"] *= 20
    before, history = list(session.messages), session.formatter.history
    for policy in ("stop", "drop-oldest"):
        session.change(overflow=policy)
        with pytest.raises(ContextOverflowError, match="tokens"):
            list(session.continue_())
        assert session.messages == before and session.formatter.history == history
    with pytest.raises(ContextOverflowError, match=r"and its answer alone.*say something new"):
        list(session.continue_())


@pytest.mark.parametrize("policy", ["stop", "drop-oldest", "summarise"])
def test_the_meter_adds_up(policy, start):
    """Also where the policy has yet to make room, and where a system text leaves none."""
    session, _ = full(start, policy)
    for system in (None, "Be brief.", "Be as brief as you can be, in any case. " * 3):
        session.change(system=system, code=system is None)
        shown = [line.split(" | ") for line in cells(run_line(session, "/context"))]
        numbers = {row[0]: int(row[1].replace(",", "")) for row in shown if row[1]}
        parts = [numbers[name] for name in ("system", "history", "reserved for the answer", "free")]
        assert min(parts) >= 0 and numbers["context"] == 160
        if "too many for an answer" in numbers:
            assert sum(parts) == 160 - 1 + numbers["too many for an answer"]
            assert ("/context drop-oldest" in shown[5][2]) == (policy == "stop")
        else:
            assert sum(parts) == 160
    session.change(system=None, code=False)
    shown = cells(run_line(session, "/context"))
    assert any("too many for an answer" in line for line in shown) == (policy == "stop")
    assert any("by the next answer" in line for line in shown) == (policy != "stop")


def test_a_summary_is_not_made_again(start):
    """What was said last is taken back and said in other words; all that is left of it has been summarised."""
    assert (
        clamp(VisibleHistory(4, "so far"), 4) == VisibleHistory(4, "so far")
        and clamp(VisibleHistory(4, "so far"), 3) == VisibleHistory()
    )
    session, _ = full(start, "summarise")
    while session.formatter.history.hidden == 0:
        say(session, "Message, which has a few words.")
    session.formatter.history = VisibleHistory(len(session.messages) - 2, "They talked.")
    session.undo()
    assert not session.formatter.sees(session.messages) and session.messages
    assert cells(run_line(session, "/context"))[1].startswith("history | 0")
    change_template(session, "raw")
    change_template(session, "auto")
    run_line(session, "/template diff raw")
    with pytest.raises(OptionError, match="not seen anything of the conversation"):
        run_line(session, "/debug")
    files.save(session, "one")
    files.load(session, "one")
    assert session.formatter.history.summary == "They talked."
    assert not any(isinstance(each, Notice) for each in session.say("Once more"))
    assert session.formatter.history.summary == "They talked."


def proposes(session, text):
    session.messages += [{"role": "user", "content": "Change it"}, {"role": "assistant", "content": text}]


def test_edits_that_cannot_be_read_are_dropped_too(start):
    session = start()
    proposes(session, "a.txt\n<<<<<<< SEARCH\none\n")
    with pytest.raises(EditError, match="no end"):
        run_line(session, "/diff")
    assert run_line(session, "/discard").text == "0 edits dropped, and 1 block that could not be read"
    for line in ("/discard", "/diff", "/apply"):
        with pytest.raises(EditError, match="or they were applied or discarded"):
            run_line(session, line)
    proposes(session, "a.txt\n<<<<<<< SEARCH\n=======\ntwo\n>>>>>>> REPLACE\n")
    assert run_line(session, "/discard").text == "1 edit dropped"
    proposes(session, session.messages[-1]["content"])  # the same once more is another proposal
    assert "+two" in run_line(session, "/diff").text


def test_where_sessions_are_saved(start, folder):
    session = start()
    say(session, "Hello")
    (folder / "there").mkdir()
    for name in ("new/", "there/", "there", "./there"):
        if name != "there":
            with pytest.raises(OptionError, match="is a folder; give the session in it a name"):
                run_line(session, f"/save {name}")
    assert not (folder / "new").exists()
    assert "made the folder new/deep" in run_line(session, "/save new/deep/one").text
    assert (folder / "new/deep/one.json").is_file() and "loaded 2" in run_line(session, "/load new/deep/one").text
    run_line(session, "/save there/one.txt")
    assert [path.name for path in (folder / "there").iterdir()] == ["one.txt.json"]
    with pytest.raises(OptionError, match="home folder is not known"):
        run_line(session, "/save ~nobody-of-this-name/x")
    (folder / "file").write_text("")
    with pytest.raises(SessionFileError, match="could not be written"):
        run_line(session, "/save file/x")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_what_is_no_file_is_not_waited_for(start, folder):
    session = start()
    for name in ("a.json", "a.jinja"):
        os.mkfifo(folder / name)
    with pytest.raises(SessionFileError, match="is not a regular file"):
        run_line(session, "/load ./a.json")
    for name in ("./a.jinja", "/dev/zero", "/", f"{'x' * 5000}.jinja", "~nobody-of-this-name/x.jinja"):
        with pytest.raises(TemplateError, match=r"is not a regular file|cannot be used as a path"):
            run_line(session, f"/template {name}")
    with pytest.raises(ModelFormatError, match="regular file"):
        run_line(session, "/model ./a.json")


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs a file that cannot be read")
def test_a_model_that_cannot_be_read(start):
    with pytest.raises(ModelFormatError, match=r"/proc/self/mem.*cannot be read"):
        run_line(start(), "/model /proc/self/mem")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_what_is_no_file_is_not_replaced(start, folder):
    session = start()
    say(session, "Hello")
    for name in ("a.json", "a.md"):
        os.mkfifo(folder / name)
    with pytest.raises(SessionFileError, match="is not a regular file"):
        run_line(session, "/save a.json")
    with pytest.raises(OptionError, match="is not a regular file"):
        run_line(session, "/export a.md --force")
    assert all((folder / name).is_fifo() for name in ("a.json", "a.md"))
    (folder / "link.json").symlink_to("real.json")
    run_line(session, "/save link.json")
    assert (folder / "link.json").is_symlink() and (folder / "real.json").is_file()
    assert "loaded 2 messages" in run_line(session, "/load link.json").text


def test_a_template_file_that_changed(start, folder):
    session = start()
    say(session, "Hello")
    mine = folder / "mine.jinja"
    mine.write_text(session.formatter.template.source)
    change_template(session, "mine.jinja")
    files.save(session, "one")
    assert not any("has changed" in line for line in files.load(session, "one"))
    mine.write_text(mine.read_text().replace("assistant\n", "assistant\nSo: "))
    assert any("mine.jinja has changed since" in line for line in files.load(session, "one"))
    assert "So: " in session.formatter.template.source  # it is what the file says now
    change_template(session, "auto")
    files.save(session, "two")
    other = start("gemma")
    assert not any("has changed" in line for line in files.load(other, "two"))  # its own template is another one


def test_the_template_of_a_checkpoint_that_has_none_is_marked(start, monkeypatch):
    def none(checkpoint, tokenizer):
        raise TemplateError("it has no chat template")

    monkeypatch.setattr(ChatTemplate, "from_checkpoint", none)
    session = start()
    shown = cells(run_line(session, "/template"))
    assert shown[0] == " | auto | it has no chat template"
    assert [line for line in shown if line.startswith("*")] == [line for line in shown if line.startswith("* | raw |")] != []


def test_templates_of_a_checkpoint_by_name(start, paths, tmp_path, monkeypatch):
    shutil.copytree(paths["qwen"], tmp_path / "model")
    (tmp_path / "model" / "additional_chat_templates").mkdir()
    (tmp_path / "model" / "additional_chat_templates" / "tool_use.jinja").write_text("{{ messages[-1].content }}<|im_end|>")
    monkeypatch.setitem(paths, "more", tmp_path / "model")
    session = start("more")
    assert any(line.split(" | ")[1] == "tool_use" for line in cells(run_line(session, "/template")))
    assert "template checkpoint -> checkpoint:tool_use" in change_template(session, "tool_use")
    files.save(session, "one")
    change_template(session, "auto")
    files.load(session, "one")
    assert session.formatter.template.name == "checkpoint:tool_use" and session.formatter.choice == "tool_use"
    with pytest.raises(TemplateError, match="no chat template named 'tool_use'"):
        change_template(start("llama"), "tool_use")


def test_memory_tells_why(start, paths):
    session = start(residency="eager")
    say(session, "Hello")
    assert cells(run_line(session, "/memory"))[-1].endswith("eager: asked for")
    run_line(session, "/lazy on")
    assert cells(run_line(session, "/memory"))[-1].endswith("lazy: asked for")
    run_line(session, "/lazy off --force")
    shown = cells(run_line(session, "/memory"))
    assert shown[-1].endswith("eager: forced") and shown[0].endswith("RAM (eager)")
    needed = session.model.plan.needed_bytes
    run_line(session, f"/model {paths['gemma']}")
    assert "/eager reads them into RAM" in run_line(session, "/model -").text
    shown = cells(run_line(session, "/memory"))
    assert shown[-1].endswith("lazy: it was parked") and shown[0].endswith("mapped from the file (lazy)")
    assert session.model.plan.needed_bytes == needed - session.model.weights.nbytes
    run_line(session, f"/model {paths['gemma']}")
    assert "/eager" not in run_line(session, "/model -").text  # it was lazy when it was parked


def test_an_eager_model_whose_file_was_replaced(start, paths, folder):
    """Its path means the file that is there now."""
    copy = folder / "model.gguf"
    copy.write_bytes(paths["llama"].read_bytes())
    session = start("gemma")
    change_model(session, str(copy), residency="eager")
    assert change_model(session, str(copy)) == [f"{copy} is the current model"]
    (folder / "new").write_bytes(paths["gemma"].read_bytes())
    os.replace(folder / "new", copy)
    say(session, "Hello")  # eager weights are of the file that was
    lines = change_model(session, str(copy))
    assert lines[0].startswith("now") and session.model.spec.architecture == "gemma3"
    assert say(session, "More") is not None and len(session.messages) == 4


def test_a_model_whose_file_is_gone_does_not_cost_the_conversation(start, paths, folder):
    copy = folder / "model.gguf"
    copy.write_bytes(paths["llama"].read_bytes())
    session = start("gemma")
    change_model(session, str(copy), residency="eager")
    say(session, "Hello")
    copy.unlink()
    assert "saved 2 messages" in run_line(session, "/fullsave one").text
    assert "the conversation will be reprocessed" in run_line(start(), "/load one").text
    session.replace([])
    assert "loaded 2 messages" in run_line(session, "/load one").text and len(session.messages) == 2
    say(session, "More")
    assert "/load autosave-" in autosave.rescue(session) and autosave.rescue(session) is None
    other = start()
    files.load(other, files.names()[0])
    assert other.messages == session.messages


def test_old_rescued_conversations_go(start, folder, monkeypatch):
    session = start()
    for count in range(13):
        session.messages = [{"role": "user", "content": str(count)}]
        monkeypatch.setattr(files.os, "getpid", lambda count=count: 1000 + count)
        assert autosave.rescue(session)
    kept = files.names()
    assert len(kept) == 10
    files.load(session, kept[-1])
    assert session.messages[0]["content"] == "12"


def test_sessions_that_are_damaged(start, folder):
    session = start()
    files.save(session, "good")
    (folder / "sessions/bad.json").write_text("{")
    (folder / "sessions/worse.json").write_bytes((folder / "sessions/good.json").read_bytes().replace(b"cpu", b"gpu", 1)[:-9])
    rows = {row[0]: row for row in files.listing()}
    assert rows["bad"][4].startswith("is damaged or not a session file") and str(folder) not in rows["bad"][4]
    assert set(rows) == {"good", "bad", "worse"} and max(len(row[4]) for row in rows.values()) <= 80
