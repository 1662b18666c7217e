import pytest

from lacewing.engine.bench import measure
from lacewing.engine.engine import Engine
from lacewing.errors import OptionError

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
