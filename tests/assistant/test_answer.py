import json
import threading
from types import MappingProxyType

import numpy as np
import pytest

from lacewing.assistant.prompt import Prompt
from lacewing.assistant.reply import Assistant
from lacewing.engine.engine import Engine
from lacewing.errors import TemplateError
from lacewing.options import Sampling
from tests.engine.mock import KINDS, VOCAB, MockStep

TEXT = "Hi \N{SLICE OF PIZZA}! Stop here."
DATA = TEXT.encode()
STOP = VOCAB - 1


class ByteTokenizer:
    """Token i is byte i of TEXT; knows what the assistant needs and no more."""

    stop_ids = frozenset({STOP})
    control_tokens = MappingProxyType({})

    def has(self, text):
        return False

    def encode(self, text):
        return [0, 0]

    def decode(self, ids, *, special=False):
        return bytes(DATA[token - 1] for token in ids if 0 < token <= len(DATA)).decode(errors="replace")

    def stream(self, *, continuation=False):
        import codecs

        decoder = codecs.getincrementaldecoder("utf-8")("replace")

        class Stream:
            @property
            def incomplete(self):
                return bool(decoder.getstate()[0])

            def push(self, token):
                return decoder.decode(DATA[token - 1 : token])

            def flush(self):
                return decoder.decode(b"", final=True)

        return Stream()


class Template:
    def __init__(self):
        self.seen = None

    def segments(self, messages, **options):
        return [(each["content"], False) for each in messages]

    def encode(self, messages, tokenizer, **options):
        self.seen = json.loads(json.dumps(messages))
        return tokenizer.encode("")


def spell(ids):
    """Token after token of TEXT, then the stop token."""
    row = np.zeros(VOCAB, np.float32)
    row[ids[-1] + 1 if ids[-1] < len(DATA) else STOP] = 9
    return row


def answer_to(ids, step, tokenizer=None, cancelled=None, **options):
    prompt = Prompt.of_text(tokenizer or ByteTokenizer(), ids)
    return prompt.answer(Engine(step, VOCAB, 64), Sampling(temperature=0, **options), cancelled)


def stream(**options):
    return answer_to([0], MockStep(spell), **options)


def test_pieces_are_whole_characters_and_make_the_text():
    one = stream()
    pieces = list(one)
    assert "".join(pieces) == TEXT and "\N{SLICE OF PIZZA}" in pieces
    assert one.finish_reason == "stop" and len(one.tokens) == len(DATA) == one.stats.generated_tokens


@pytest.mark.parametrize("stop, expected", [("!", "Hi \N{SLICE OF PIZZA}"), ("Stop", "Hi \N{SLICE OF PIZZA}! "), ("Stopped", TEXT)])
def test_stop_strings(stop, expected):
    one = stream(stop=(stop,))
    assert "".join(one) == expected and one.finish_reason == "stop"


def test_an_unfinished_character_becomes_one_replacement():
    one = stream(max_tokens=5)
    assert "".join(one) == "Hi \N{REPLACEMENT CHARACTER}" and one.finish_reason == "length"


def test_cancel_and_close():
    one = stream(cancelled=lambda: True)
    assert list(one) == [] and one.finish_reason == "cancelled"
    two = stream()
    assert next(two) == "H"
    two.close()
    assert list(two) == [] and two.finish_reason == "cancelled"


def test_reply_goes_through_the_template():
    template = Template()
    assistant = Assistant(Engine(MockStep(spell), VOCAB, 64), ByteTokenizer(), template)
    messages = [{"role": "user", "content": "hello"}]
    assert "".join(assistant.reply(messages, Sampling(temperature=0))) == TEXT
    assert template.seen == messages


class Rendered(Template):
    """A template that writes the length of each message and then its characters."""

    refuses = ""

    def encode(self, messages, tokenizer, add_generation_prompt=True):
        if self.refuses == "system alone" and all(each["role"] == "system" for each in messages):
            raise TemplateError("there must be a message of the user")
        if self.refuses == "nothing said" and not all(each["content"] for each in messages):
            raise TemplateError("a message is empty")
        ids = [token for each in messages for token in (len(each["content"]), *(ord(sign) % 8 for sign in each["content"]))]
        return [*ids, 0] if add_generation_prompt else ids


@pytest.mark.parametrize(
    ("states", "refuses", "marks"),
    [
        ("windows", "", (6,)),
        ("windows", "system alone", (6,)),  # as Gemma's, which writes it into the user's message
        ("windows", "nothing said", ()),
        ("full", "", ()),
    ],
)
def test_the_end_of_the_system_message_is_marked_where_it_is_of_use(states, refuses, marks, monkeypatch):
    engine = Engine(MockStep(spell, context=64, states=KINDS[states]), VOCAB, 64)
    template = Rendered()
    template.refuses = refuses
    asked = []
    ask = engine.ask
    monkeypatch.setattr(engine, "ask", lambda request: (asked.append(request.marks), ask(request))[1])
    messages = [{"role": "system", "content": "brief"}, {"role": "user", "content": "hello"}]
    Assistant(engine, ByteTokenizer(), template).reply(messages, Sampling(temperature=0, max_tokens=2))
    assert asked == [marks]


def test_the_ends_of_earlier_messages_of_the_user_are_marked(monkeypatch):
    """An edit in the middle of a conversation that was sent as a whole resumes there: four of them, the newest."""
    engine = Engine(MockStep(spell, context=64, states=KINDS["windows"]), VOCAB, 64)
    asked, ask = [], engine.ask
    monkeypatch.setattr(engine, "ask", lambda request: (asked.append(request.marks), ask(request))[1])
    messages = [{"role": role, "content": "abc"} for _ in range(6) for role in ("user", "assistant")][:-1]
    Assistant(engine, ByteTokenizer(), Rendered()).reply(messages, Sampling(temperature=0, max_tokens=2))
    assert asked == [(12, 20, 28, 36)]


def test_another_thread_may_close_a_stream_that_somebody_waits_for():
    """As a server does when a client goes away; `generator already executing` else."""
    step, under_way, closed = MockStep(spell, chunk=4, context=64), threading.Event(), threading.Event()
    answer = answer_to([0] * 12, step)
    step.fail = lambda: (under_way.set(), closed.wait(0.2))
    found = []
    thread = threading.Thread(target=lambda: found.extend(answer))
    thread.start()
    assert under_way.wait(20)
    answer.close()
    closed.set()
    thread.join()
    assert found == [] and answer.finish_reason == "cancelled" and len(step.runs) == 1
    assert list(answer) == []


def test_an_answer_that_only_repeats_itself_is_ended():
    def rave(ids):
        row = np.zeros(VOCAB, np.float32)
        row[1 + len(ids) % 2] = 9  # "H", "i", "H", "i" ...
        return row

    class Words(ByteTokenizer):
        def decode(self, ids):
            return "".join(chr(DATA[token - 1]) for token in ids)

    def answer(**options):
        one = answer_to([0], MockStep(rave), Words(), **options)
        return "".join(one), one.finish_reason

    text, reason = answer(repeat_guard=20)
    assert reason == "repetition" and text in ("Hi" * 16, "iH" * 16)
    assert answer(repeat_guard=0)[1] == answer()[1] == "length"  # the context of 64 tokens is full before it is due
