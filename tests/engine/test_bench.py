import pytest

from lacewing.engine.bench import GENERATE, PROMPT, check_sequences, context_of, measure, measure_sequences
from lacewing.engine.engine import Engine
from lacewing.errors import BackendError, OptionError

from .mock import VOCAB, AheadStep, MockStep


def test_measures_what_it_says():
    step = MockStep(chunk=4, context=16)
    speed = measure(Engine(step, VOCAB, 16), prompt=6, generate=3, repeats=2)
    assert speed.prompt > 0 and speed.generate > 0 and speed.first_token_seconds > 0
    assert step.runs == [4, 2, 1, 1] + [4, 2, 1, 1, 1] * 2


def test_measures_what_an_answer_uses_where_the_step_chooses_by_itself():
    step = AheadStep(chunk=4, context=16)
    measure(Engine(step, VOCAB, 16), prompt=6, generate=3, repeats=1)
    assert step.asked == [(6, 2), (6, 3)]  # to warm up, and once


@pytest.mark.parametrize("prompt, generate", [(0, 1), (1, 0), (16, 1)])
def test_refuses_what_does_not_fit(prompt, generate):
    with pytest.raises(OptionError, match="context of 16"):
        measure(Engine(MockStep(context=16), VOCAB, 16), prompt, generate)


def test_several_sequences_generate_together():
    step = MockStep(chunk=512, context=context_of([1, 3]), rows=3)
    engine = Engine(step, VOCAB, step.limits.context)
    found = measure_sequences(engine, [1, 3], repeats=1)
    assert list(found) == [1, 3] and min(found.values()) > 0
    assert step.runs == ([PROMPT] + [1] * GENERATE) * 2 + ([3 * PROMPT] + [3] * GENERATE) * 2
    assert not engine.scheduler.running and not engine.scheduler.waiting


def test_sequences_that_do_not_fit_together_are_refused():
    context = context_of([3]) - 1
    with pytest.raises(
        OptionError, match=f"3 sequences need a context of {context + 1} tokens, not {context}; leave `context` out"
    ):
        measure_sequences(Engine(MockStep(chunk=512, context=context, rows=3), VOCAB, context), [3], repeats=1)


def test_sequences_whose_step_fails_are_not_waited_for():
    step = MockStep(chunk=512, context=context_of([2]), rows=2)

    def fail():
        raise BackendError("the device is lost")

    step.fail = fail
    with pytest.raises(BackendError, match="the device is lost"):
        measure_sequences(Engine(step, VOCAB, step.limits.context), [2], repeats=1)


@pytest.mark.parametrize("text", ["", "0", "1,", "two", "-1", "1025", "1.5", "9" * 5000], ids=lambda text: text[:9])
def test_counts_of_sequences_that_are_refused(text):
    with pytest.raises(OptionError, match="`sequences` is"):
        check_sequences(text)
    assert check_sequences("1, 2,32") == [1, 2, 32]
