import threading

import numpy as np
import pytest

from lacewing.engine.engine import Engine
from lacewing.errors import ContextOverflowError, ModelFormatError, NumericError, OptionError, OutOfMemoryError
from lacewing.options import Sampling
from lacewing.weights import Machine

from .mock import VOCAB, MockStep, counting, hashed

GREEDY = Sampling(temperature=0, max_tokens=5)


def make(script=hashed, chunk=4, context=64):
    return Engine(MockStep(script, chunk, context), VOCAB, context)


def ids_of(generation):
    return [token.id for token in generation]


def test_greedy_counts_up():
    generation = make(counting).generate([1, 2, 3], GREEDY)
    assert ids_of(generation) == [4, 5, 6, 7, 8]
    assert generation.finish_reason == "length"
    assert generation.stats.generated_tokens == 5 and generation.stats.prompt_tokens == 3


def test_stop_id_ends_and_is_not_given():
    generation = make(counting).generate([1], Sampling(temperature=0), frozenset({4}))
    assert ids_of(generation) == [2, 3]
    assert generation.finish_reason == "stop"


@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 9])
def test_prompt_runs_in_chunks_with_one_row_of_logits(length):
    engine = make(chunk=4)
    list(engine.generate(list(range(length)), Sampling(max_tokens=0)))
    assert sum(engine.step.runs) == length and max(engine.step.runs) <= 4


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64])
def test_chunks_do_not_change_the_answer(chunk):
    expected = ids_of(make(chunk=5).generate(list(range(11)), Sampling(seed=3, max_tokens=9)))
    assert ids_of(make(chunk=chunk).generate(list(range(11)), Sampling(seed=3, max_tokens=9))) == expected


@pytest.mark.parametrize("second", [[1, 2, 3, 4], [1, 2, 9, 9, 9], [7], [1, 2, 3], [1, 2], [1, 2, 3, 4, 5, 6, 7, 8]])
def test_prefix_reuse_gives_the_same_tokens(second):
    fresh = ids_of(make().generate(second, GREEDY))
    engine = make()
    ids_of(engine.generate([1, 2, 3, 4], GREEDY))
    generation = engine.generate(second, GREEDY)
    assert ids_of(generation) == fresh
    shared = next((i for i, (a, b) in enumerate(zip(second, [1, 2, 3, 4], strict=False)) if a != b), min(len(second), 4))
    assert min(shared, len(second) - 1) <= generation.stats.reused_tokens < len(second)


def test_a_conversation_reuses_the_answer_too():
    engine = make(counting)
    answer = ids_of(engine.generate([1, 2], GREEDY))
    generation = engine.generate([1, 2, *answer, 20], GREEDY)
    list(generation)
    assert generation.stats.reused_tokens == 2 + len(answer) - 1  # the last answer token was picked but never run


def test_interleaved_generations_do_not_disturb_each_other():
    engine = make()
    expected = [ids_of(make().generate(prompt, GREEDY)) for prompt in ([1, 2], [1, 5])]
    first, second = engine.generate([1, 2], GREEDY), engine.generate([1, 5], GREEDY)
    got = [pair for pair in zip(first, second, strict=True)]
    assert [[pair[i].id for pair in got] for i in (0, 1)] == expected


@pytest.mark.parametrize("length", [6, 7, 8, 9])
@pytest.mark.parametrize("limit", [0, 1, 2, 10**9, None])
def test_context_edge(length, limit):
    engine = make(context=8)
    if length > 8:
        with pytest.raises(ContextOverflowError, match="9 tokens, the context holds 8"):
            engine.generate([1] * length, Sampling(max_tokens=limit))
        return
    generation = engine.generate([1] * length, Sampling(temperature=0, max_tokens=limit))
    count = len(ids_of(generation))
    assert generation.finish_reason == "length"
    assert count == min(8 - length + 1, 10**9 if limit is None else limit)


@pytest.mark.parametrize("ids, words", [([], "empty"), ([VOCAB], "outside"), ([-1], "outside")])
def test_bad_prompts(ids, words):
    with pytest.raises(OptionError, match=words):
        make().generate(ids, GREEDY)
    with pytest.raises(OptionError, match=words):
        make().logits(ids)


@pytest.mark.parametrize("where", [0, 5, VOCAB - 1, slice(None)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("at", [3, 5])
def test_nan_fails_the_request_and_drops_the_prefix(where, value, at):
    def poisoned(ids):
        row = counting(ids)
        if len(ids) == at:
            row[where] = value
        return row

    engine = make(poisoned)
    seen = []
    with pytest.raises(NumericError, match=f"position {at - 1}"):
        for token in engine.generate([1, 2, 3], GREEDY):
            seen.append(token.id)
    assert seen == list(range(4, 4 + at - 3)) and engine.cached == []


def test_minus_infinity_is_only_a_mask():
    def masked(ids):
        row = counting(ids)
        row[:3] = -np.inf
        return row

    assert ids_of(make(masked).generate([4], Sampling(seed=1, top_k=0, top_p=1, min_p=0, max_tokens=3))) == [5, 6, 7]


def test_cancel_between_chunks():
    asked = []
    engine = make(chunk=4)
    generation = engine.generate(list(range(20)), GREEDY, cancelled=lambda: asked.append(1) or len(asked) > 2)
    assert ids_of(generation) == []
    assert generation.finish_reason == "cancelled" and engine.step.runs == [4, 4]
    again = engine.generate(list(range(20)), GREEDY)
    assert ids_of(again) == ids_of(make().generate(list(range(20)), GREEDY)) and again.stats.reused_tokens == 8


def test_cancel_between_tokens():
    tokens = []
    generation = make(counting).generate([1], GREEDY, cancelled=lambda: len(tokens) == 2)
    for token in generation:
        tokens.append(token.id)
    assert tokens == [2, 3] and generation.finish_reason == "cancelled"


def test_close_ends_a_generation():
    generation = make(counting).generate([1], GREEDY)
    next(generation)
    generation.close()
    assert generation.finish_reason == "cancelled" and list(generation) == []


def test_progress_counts_the_prompt():
    seen = []
    list(make(chunk=4).generate(list(range(10)), GREEDY, progress=lambda what, done, total: seen.append((done, total))))
    assert seen == [(4, 10), (8, 10), (10, 10)]


def test_logits_has_a_row_for_each_position():
    engine = make(chunk=4)
    rows = engine.logits(list(range(9)))
    assert rows.shape == (9, VOCAB) and rows.dtype == np.float32
    for t in range(9):
        assert np.array_equal(rows[t], hashed(list(range(t + 1))))
    assert engine.cached == list(range(9))


def test_logits_refuses_nan():
    engine = make(lambda ids: np.full(VOCAB, np.nan, np.float32))
    with pytest.raises(NumericError):
        engine.logits([1])
    assert engine.cached == []


def test_a_failing_run_keeps_only_what_was_run():
    def script(ids):
        if len(ids) == 6:
            raise MemoryError
        return counting(ids)

    engine = make(script)
    with pytest.raises(MemoryError):
        ids_of(engine.generate([1, 2, 3, 4, 5], GREEDY))
    assert engine.cached == [1, 2, 3, 4, 5]
    assert ids_of(engine.generate([1, 2, 3], Sampling(temperature=0, max_tokens=2))) == [4, 5]


def test_who_may_cancel_gets_short_runs():
    engine = make(chunk=512, context=4096)
    engine.step.script = lambda ids: np.zeros(VOCAB, np.float32)
    list(engine.generate([1] * 1000, Sampling(max_tokens=0), cancelled=lambda: False))
    assert engine.step.runs[0] == 64 and max(engine.step.runs[1:]) > 64 and sum(engine.step.runs) == 1000
    engine.forget()
    list(engine.generate([1] * 1000, Sampling(max_tokens=0)))
    assert engine.step.runs[-2:] == [512, 488]


def test_threads_take_turns():
    """Each gets its own answer, whatever the other leaves in the slot."""
    engine, prompts = make(chunk=4), ([1, 2, 3], [1, 5, 6, 7, 8, 9])
    sampling = Sampling(temperature=0, max_tokens=25)
    expected = [ids_of(make().generate(prompt, sampling)) for prompt in prompts]
    found = {}

    def work(index):
        found[index] = [ids_of(engine.generate(prompts[index], sampling)) for _ in range(10)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(answer == expected[index] for index in range(2) for answer in found[index])


@pytest.mark.parametrize("ids", ["abc", [1.5], [float("nan")], [None]])
def test_ids_must_be_integers(ids):
    with pytest.raises(OptionError, match="list of token ids"):
        make().logits(ids)


def test_logits_that_cannot_fit_are_refused_before_anything_runs(monkeypatch):
    monkeypatch.setattr("lacewing.engine.engine.this_machine", lambda: Machine(1000, 100, "the test"))
    engine = make()
    with pytest.raises(OutOfMemoryError, match="10 positions take"):
        engine.logits(list(range(10)))
    assert not engine.cached


def test_weights_are_checked_before_each_run_as_a_mapped_file_that_became_shorter_would_end_the_process():
    def check():
        if len(engine.step.runs) == 2:  # a prompt and a token
            raise ModelFormatError("model.gguf", "became shorter")

    engine = make()
    engine.scheduler.checks = check, check
    generation = engine.generate([1, 2, 3], Sampling(max_tokens=9, temperature=0))
    with pytest.raises(ModelFormatError):
        ids_of(generation)
    assert len(engine.step.runs) == 2 and not engine.cached
    with pytest.raises(ModelFormatError):
        engine.logits([1, 2, 3])
    assert len(engine.step.runs) == 2


@pytest.mark.parametrize("limit", [0, 3])
def test_a_check_that_fails_fails_the_generation_instead_of_ending_it(limit):
    def check():
        raise ModelFormatError("model.gguf", "changed")

    engine = make()
    engine.scheduler.checks = check, check
    generation = engine.generate([1, 2, 3], Sampling(max_tokens=limit, temperature=0))
    with pytest.raises(ModelFormatError):
        ids_of(generation)
    assert generation.finish_reason is None and not engine.cached


@pytest.mark.parametrize(("length", "behind"), [(63, [0]), (64, [0, 64])])
def test_steps_that_rebalance(length, behind):
    """Before a request, and behind the first token of an answer to a long prompt; a prompt that is known already tells nothing."""
    step = MockStep(context=256)
    engine = Engine(step, VOCAB, 256)
    prompt = [value % VOCAB for value in range(length)]
    first = [token.id for token in engine.generate(prompt, Sampling(max_tokens=5, temperature=0))]
    assert step.rebalanced == behind and len(first) == 5
    ran = sum(step.runs)
    assert [token.id for token in engine.generate(prompt, Sampling(max_tokens=5, temperature=0))] == first
    assert step.rebalanced == [*behind, ran]
    step.rebalanced.clear()
    engine.logits(prompt)
    assert step.rebalanced == []


def test_a_changed_file_is_told_before_a_step_reads_it_anew():
    step = MockStep(context=64)

    def changed():
        raise OptionError("the file was changed")

    with pytest.raises(OptionError, match="changed"):
        Engine(step, VOCAB, 64, check=changed).prefill([1, 2])
    assert step.rebalanced == []
