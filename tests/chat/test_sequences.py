"""Any commands in any order, with failures: every message is kept, and the next answer is that of a fresh session."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lacewing
from lacewing.chat.commands.table import run_line
from lacewing.chat.services import files
from lacewing.chat.services.evict import change_residency
from lacewing.chat.services.opening import open_session
from lacewing.chat.services.swap import change_model
from lacewing.chat.services.templates import change_template
from lacewing.chat.session.session import Session
from lacewing.errors import Cancelled, ContextOverflowError, LacewingError, OptionError
from lacewing.options import LoadOptions
from tests.chat.conftest import GREEDY
from tests.chat.faults import STEPS, cancelling, failing

TEXTS = st.sampled_from(["Hello", "What is the world?", "and you?", "<|im_end|> no", "for the other one " * 4])
MODELS = st.sampled_from(["llama", "gemma", "qwen", "-"])
TEMPLATES = st.sampled_from(["auto", "chatml", "raw", "mistral", "llama2", "llama3", "phi3", "gemma", "deepseek", "gpt-oss"])
CHANGES = st.sampled_from([{}, {"residency": "lazy"}, {"residency": "eager"}, {"context": 200}])
COMMAND = st.one_of(
    st.tuples(st.just("say"), TEXTS),
    st.tuples(st.just("say"), TEXTS),
    st.tuples(st.just("model"), MODELS, CHANGES),
    st.tuples(st.just("broken model"), MODELS, st.sampled_from(STEPS), st.sampled_from(["before", "after"])),
    st.tuples(st.just("cancelled model"), MODELS, st.integers(0, 12)),
    st.tuples(st.just("residency"), st.sampled_from(["lazy", "eager"])),
    st.tuples(st.just("cancelled residency"), st.integers(0, 3)),
    st.tuples(st.just("template"), TEMPLATES),
    st.tuples(st.just("cancelled template"), TEMPLATES),
    st.tuples(st.just("retry")),
    st.tuples(st.just("undo")),
    st.tuples(st.just("go on")),
    st.tuples(
        st.just("command"), st.sampled_from(["/clear", "/system Be brief.", "/system off", "/thinking off", "/debug", "/stats"])
    ),
    st.tuples(st.just("compare"), MODELS),
    st.tuples(st.just("save and load"), st.booleans()),
    st.tuples(st.just("overflow"), st.sampled_from(["stop", "drop-oldest", "summarise"])),
)

TALK = [("say", text) for text in ("Hello", "What is the world?", "for the other one", "and you?")]
BEGIN = st.sampled_from([[], TALK, [("overflow", "drop-oldest"), *TALK], [("overflow", "summarise"), *TALK]])


class Driver:
    """Runs commands on a session and keeps its own account of the conversation."""

    def __init__(self, paths: dict[str, Path], pool: dict, context: int = 320):
        self.paths, self.pool = paths, pool
        self.session = open_session(str(paths["llama"]), LoadOptions("cpu", context=context, threads=1), GREEDY)
        self.expected: list[dict[str, str]] = []

    def run(self, name: str, *arguments) -> None:
        self.session.ui.cancelled = lambda: False
        before = self.state()
        try:
            getattr(self, name.replace(" ", "_"))(*arguments)
        except LacewingError:
            assert self.state() == before, f"{name} {arguments} failed and left something behind"
        assert self.session.messages == self.expected

    def state(self):
        session = self.session
        return session.loaded, session.formatter, session.model.weights.residency, list(session.messages)

    def fresh(self) -> Session:
        """A session that knows the state and nothing of how it came about."""
        mine = self.session
        key = (mine.model.path, mine.model.spec.context)
        if key not in self.pool:
            self.pool[key] = lacewing.load(mine.model.path, backend="cpu", context=key[1], threads=1)
        session = Session(self.pool[key], mine.settings)
        session.model.engine.forget()
        change_template(session, mine.formatter.choice, force=True)
        session.messages = [dict(each) for each in mine.messages]
        session.formatter.history = mine.formatter.history
        return session

    def say(self, text: str) -> None:
        fresh = self.fresh()
        try:
            for _ in fresh.say(text):
                pass
        except ContextOverflowError:
            with pytest.raises(ContextOverflowError):
                list(self.session.say(text))
            return
        for _ in self.session.say(text):
            pass
        assert self.session.messages == fresh.messages
        assert self.session.formatter.history == fresh.formatter.history
        self.expected = [dict(each) for each in self.session.messages]

    def model(self, name: str, changes: dict) -> None:
        change_model(self.session, name if name == "-" else str(self.paths[name]), **changes)

    def broken_model(self, name: str, step: str, when: str) -> None:
        with failing(step, when):
            self.model(name, {})

    def cancelled_model(self, name: str, after: int) -> None:
        with cancelling(self.session, after):
            self.model(name, {"residency": "eager"})

    def residency(self, wanted: str) -> None:
        change_residency(self.session, wanted)

    def cancelled_residency(self, after: int) -> None:
        with cancelling(self.session, after), contextlib.suppress(Cancelled):
            change_residency(self.session, "eager")

    def template(self, choice: str) -> None:
        change_template(self.session, choice, force=True)

    def cancelled_template(self, choice: str) -> None:
        with cancelling(self.session, 0):
            change_template(self.session, choice, force=True)

    def retry(self) -> None:
        for _ in self.session.retry():
            pass
        assert len(self.session.messages) == len(self.expected)
        self.expected = [dict(each) for each in self.session.messages]

    def undo(self) -> None:
        if not self.expected:
            with pytest.raises(OptionError):
                self.session.undo()
            return
        self.session.undo()
        self.expected = self.expected[:-2]

    def go_on(self) -> None:
        fresh = self.fresh()
        try:
            list(fresh.continue_())
        except (ContextOverflowError, OptionError) as error:
            with pytest.raises(type(error)):
                list(self.session.continue_())
            return
        list(self.session.continue_())
        assert self.session.messages == fresh.messages
        self.expected = [dict(each) for each in self.session.messages]

    def command(self, line: str) -> None:
        run_line(self.session, line)
        self.expected = [] if line == "/clear" else self.expected

    def compare(self, name: str) -> None:
        """Another model's answer, to the last message or one of its own, changes nothing here."""
        text = "" if self.expected else " Hello"
        before = self.state()
        run_line(self.session, f'/compare "{self.paths.get(name, self.paths["llama"])}"{text}')
        assert self.state() == before

    def save_and_load(self, keys_values: bool) -> None:
        history, file = self.session.formatter.history, str(self.paths["llama"].with_name("session.json"))
        files.save(self.session, file, keys_values, force=True)
        self.session.replace([])
        files.load(self.session, file)
        assert self.session.formatter.history == history

    def overflow(self, policy: str) -> None:
        self.session.change(overflow=policy)


@pytest.fixture(scope="module")
def pool():
    models: dict = {}
    yield models
    for model in models.values():
        model.close()


def check(paths, pool, commands, context=320):
    driver = Driver(paths, pool, context)
    try:
        for command in commands:
            driver.run(*command)
        driver.run("say", "And now?")
    finally:
        driver.session.close()


SLACK = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}


@settings(max_examples=40, **SLACK)
@given(BEGIN, st.lists(COMMAND, min_size=3, max_size=12), st.sampled_from([130, 320]))
def test_sequences(paths, pool, begin, commands, context):
    check(paths, pool, begin + commands, context)


@pytest.mark.slow
@settings(max_examples=1500, **SLACK)
@given(BEGIN, st.lists(COMMAND, min_size=6, max_size=40), st.sampled_from([100, 130, 180, 320]))
def test_long_sequences(paths, pool, begin, commands, context):
    check(paths, pool, begin + commands, context)


@pytest.mark.slow
def test_sequences_of_real_models(smollm2_path):
    from lacewing.hub.pull import pull

    real = {"llama": smollm2_path, "gemma": pull("gemma3-270m").path, "qwen": smollm2_path}
    models: dict = {}

    @settings(max_examples=25, **SLACK)
    @given(BEGIN, st.lists(COMMAND, min_size=5, max_size=14), st.sampled_from([320, 700]))
    def run(begin, commands, context):
        check(real, models, begin + commands, context)

    run()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_every_step_of_a_swap_may_fail(paths, pool, step, when):
    for residency in ("lazy", "eager"):
        commands = [("say", "Hello"), ("residency", residency), ("broken model", "gemma", step, when), ("say", "go on")]
        check(paths, pool, [*commands, ("model", "gemma", {}), ("broken model", "qwen", step, when), ("model", "-", {})])


@pytest.mark.parametrize("after", range(14))
def test_a_swap_may_be_cancelled_at_any_time(paths, pool, after):
    check(paths, pool, [("say", "Hello"), ("cancelled model", "gemma", after), ("say", "go on"), ("model", "-", {})])
