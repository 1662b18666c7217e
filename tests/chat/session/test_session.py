"""A session without a terminal: talking, taking back, going on, what does not fit."""

import pytest

from lacewing.chat.services.templates import change_template
from lacewing.chat.session.events import Delta, Finished, Notice
from lacewing.chat.session.settings import Settings
from lacewing.engine.engine import common_prefix
from lacewing.errors import Cancelled, ContextOverflowError, LacewingError, NumericError, OptionError, TemplateError
from lacewing.options import Sampling
from tests.chat.conftest import GREEDY, say
from tests.chat.faults import cancelling


def test_turns(start):
    session = start()
    events = list(session.say("Hello"))
    first_of_all = list(session.model.engine.cached)
    assert isinstance(events[-1], Finished) and events[-1].reason in ("stop", "length")
    assert "".join(each.text for each in events if isinstance(each, Delta)) == session.messages[1]["content"]
    say(session, "More")
    assert [each["role"] for each in session.messages] == ["user", "assistant"] * 2
    assert session.stats["reused_tokens"] > 10
    status = session.status()
    assert (status.backend, status.context) == ("cpu", 512)
    whole = session.formatter.ids(session.messages, session.settings, generation=False)
    assert status.used_tokens == len(whole) > len(first_of_all)


def test_retry_undo_edit_continue(start):
    session = start()
    first = say(session, "Hello")
    list(session.retry())
    assert session.messages[-1]["content"] == first and len(session.messages) == 2
    list(session.continue_())
    assert session.messages[-1]["content"].startswith(first) and len(session.messages[-1]["content"]) > len(first)
    list(session.say_instead("Hello"))
    assert session.messages[-1]["content"] == first and len(session.messages) == 2
    assert session.undo()[0]["content"] == "Hello" and session.messages == []
    for empty in (session.undo, lambda: list(session.retry()), lambda: list(session.continue_()), lambda: list(session.answer())):
        with pytest.raises(OptionError):
            empty()


def test_continue_is_one_long_answer(start):
    short, long = start(), start()
    long.settings = Settings(Sampling(temperature=0, max_tokens=12))
    text = say(long, "Hello")
    say(short, "Hello")
    list(short.continue_())
    assert len(short.messages) == 2
    assert short.messages[-1]["content"][:4] == text[:4]


def test_an_answer_that_is_stopped_stays(start):
    session = start()
    session.settings = Settings(Sampling(temperature=0, max_tokens=40))
    events = []
    with cancelling(session, 6):
        events = list(session.say("Hello"))
    assert events[-1].reason == "cancelled"
    kept = session.messages[-1]
    assert kept["role"] == "assistant" and kept["content"] == "".join(each.text for each in events if isinstance(each, Delta))


def test_nothing_came_so_nothing_is_kept(start):
    session = start()
    say(session, "Hello")
    before = [dict(each) for each in session.messages]
    session.attachments.append("a file")
    with cancelling(session, 0):
        assert list(session.say("More"))[-1].reason == "cancelled"
        assert session.messages == before and session.attachments == ["a file"]
        list(session.retry())
        assert session.messages == before
        list(session.say_instead("Other"))
        assert session.messages == before
        list(session.continue_())
        assert session.messages == before


def test_an_answer_that_fails_leaves_nothing(start, monkeypatch):
    session = start()
    say(session, "Hello")
    before, count = [dict(each) for each in session.messages], 0
    run = session.model.step._run

    def poisoned(batch):
        nonlocal count
        count += 1
        rows = run(batch)
        if count <= 3:
            return rows
        session.model.step.maxima.ids[:] = -1  # what the kernels saw of the rows says so as well
        return rows * float("nan")

    monkeypatch.setattr(session.model.step, "_run", poisoned)
    for attempt in (lambda: session.say("More"), session.retry, session.continue_, lambda: session.say_instead("Other")):
        count = 0
        with pytest.raises(NumericError):
            list(attempt())
        assert session.messages == before
    monkeypatch.undo()
    assert say(session, "More") is not None


def test_whoever_reads_may_go_away(start):
    session = start()
    session.settings = Settings(Sampling(temperature=0, max_tokens=40))
    reading = session.say("Hello")
    text = next(each.text for each in reading if isinstance(each, Delta))
    reading.close()
    assert session.messages[-1]["role"] == "assistant" and session.messages[-1]["content"].startswith(text)
    assert say(session, "More") is not None


def fill(session, turns=12):
    for turn in range(turns):
        say(session, f"Message number {turn}, which has a few words.")


def test_a_full_context_stops(start):
    session = start(context=160)
    with pytest.raises(ContextOverflowError, match="drop-oldest"):
        fill(session)
    assert len(session.messages) % 2 == 0
    assert session.messages[-1]["role"] == "assistant"


@pytest.mark.parametrize("policy", ["stop", "drop-oldest", "summarise"])
@pytest.mark.parametrize("spare", [-2, -1, 0, 1, 2])
def test_at_the_edge_of_the_context(policy, spare, start):
    text = "Some words to fill it, and some more of them, and a few to end it."
    size = len(start().formatter.ids([{"role": "user", "content": text}], Settings()))
    session = start(context=size + spare)
    session.settings = Settings(GREEDY, overflow=policy)
    if spare <= 0:
        with pytest.raises(ContextOverflowError):
            say(session, text)
        assert session.messages == []
        return
    events = list(session.say(text))
    assert events[-1].stats["generated_tokens"] <= spare + 1 and len(session.messages) == 2


@pytest.mark.parametrize("policy", ["drop-oldest", "summarise"])
def test_a_full_context_goes_on(policy, start):
    session = start(context=160)
    session.change(overflow=policy)
    fill(session)
    assert len(session.messages) == 24 and session.formatter.history.hidden > 0
    assert (session.formatter.history.summary is not None) == (policy == "summarise")
    events = list(session.say("And one more message to answer, please."))
    assert all(isinstance(each, Notice | Delta | Finished) for each in events)
    with pytest.raises(ContextOverflowError, match="last message alone"):
        list(session.say("far too long " * 60))
    assert len(session.messages) == 26
    session.cut(2)
    assert session.formatter.history.hidden == 0


def test_templates_change(start):
    session = start()
    say(session, "Hello")
    before = session.formatter
    with pytest.raises(TemplateError, match="<start_of_turn>, <end_of_turn>"):
        change_template(session, "gemma")
    with pytest.raises(LacewingError, match="there is no chat template"):
        change_template(session, "nothing")
    assert session.formatter is before
    cached = list(session.model.engine.cached)
    lines = change_template(session, "raw")
    assert "checkpoint -> raw" in lines[0] and any("reprocessed" in line for line in lines)
    kept = common_prefix(cached, session.model.engine.cached)
    assert session.model.engine.cached[:kept] == cached[:kept]
    say(session, "More")
    change_template(session, "gemma", force=True)
    assert session.formatter.format.stops == ("<end_of_turn>",)
    change_template(session, "auto")
    assert session.formatter.template.name == "checkpoint" and len(session.messages) == 4
    with cancelling(session, 0), pytest.raises(Cancelled):
        change_template(session, "raw")
    assert session.formatter.choice == "auto"


def test_many_stops_of_a_person_leave_those_of_the_template(start, monkeypatch):
    session = start()
    session.settings = session.settings.with_sampling(stop=tuple(f"never {number}" for number in range(16)))
    whole = say(session, "Hello")
    assert len(whole) > 2
    session.formatter.format.stops = (whole[1:],)  # as gpt-oss's, where the vocabulary has no such token
    session.model.engine.forget()
    list(session.retry())
    assert session.messages[-1]["content"] == whole[:1]


def test_a_template_keeps_what_is_common(start, tmp_path):
    session = start()
    say(session, "Hello")
    say(session, "More")
    mine = tmp_path / "mine.jinja"
    mine.write_text(session.formatter.template.source.replace("assistant\n", "assistant\nSo: "))
    cached = list(session.model.engine.cached)
    runs = []
    original = session.model.step._run
    session.model.step._run = lambda batch: (runs.append(len(batch.tokens)), original(batch))[1]
    change_template(session, str(mine))
    assert sum(runs) < len(cached) // 2  # the history is written alike, only the prompt for an answer is not


def test_thoughts_are_told_apart(start, tmp_path):
    session = start()
    mine = tmp_path / "mine.jinja"
    mine.write_text(session.formatter.template.source.replace("assistant\n", "assistant\n<think>\n"))
    change_template(session, str(mine))
    events = list(session.say("Hello"))
    assert {each.kind for each in events if isinstance(each, Delta)} == {"reasoning"}
    assert session.messages[-1]["content"] == "" and session.messages[-1]["reasoning"]
    list(session.continue_())
    assert len(session.messages) == 2 and session.last_answer() == ""


def test_settings_are_checked():
    with pytest.raises(OptionError, match="overflow"):
        Settings(overflow="hope")
    assert Settings(GREEDY).reserve(4096) == 6 and Settings().reserve(400) == 100
