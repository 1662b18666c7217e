"""Log-probabilities and hidden states of prompts: whatever the chunks, the company and what was run before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lacewing.engine import scheduler
from lacewing.engine.engine import Engine, Request
from lacewing.engine.sampling import Token
from lacewing.errors import Cancelled, NumericError, OptionError
from lacewing.options import Sampling
from tests.checkpoints import prompt_of, tiny
from tests.engine.mock import KINDS, VOCAB, WIDTH, AheadStep, MockStep, SeeingStep, hashed, hidden_of
from tests.models.running import open_step

GREEDY = Sampling(temperature=0, max_tokens=3)
LONG = [at * 7 % 31 for at in range(300)]


def make(script=hashed, kind=MockStep, **options) -> Engine:
    step = kind(script, **{"chunk": 64, "context": 1024, "rows": 4} | options)
    return Engine(step, VOCAB, step.limits.context)


def ended(stream):
    tokens = list(stream)
    return stream, tokens


def log_softmax(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    rows = rows - rows.max(axis=-1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))


def assert_scores(tokens, ids, logits, count) -> None:
    """`logits` (T, V) of each position."""
    assert [token.id for token in tokens] == list(ids) and tokens[0].logprob is None and tokens[0].alternatives == ()
    for place, (token, row) in enumerate(zip(tokens[1:], log_softmax(logits), strict=False), 1):
        assert token.logprob == pytest.approx(row[ids[place]], abs=2e-5)
        assert len(token.alternatives) == min(count, len(row))
        assert [value for _, value in token.alternatives] == pytest.approx(np.sort(row)[::-1][:count].tolist(), abs=2e-5)
        assert all(value == pytest.approx(row[each], abs=2e-5) for each, value in token.alternatives)


# log-probabilities


@pytest.mark.parametrize("name", ["llama", "gemma2", "lfm2"])
@pytest.mark.parametrize("kind", ["cpu", "reference", pytest.param("webgpu", marks=pytest.mark.gpu)])
def test_against_a_softmax_in_float64(name, kind, tmp_path):
    """Also of the answer, beside others, and after a prompt that begins alike."""
    from tests.backends.test_hidden import backend_of

    step = open_step(tiny(name, "gguf", tmp_path), 256, backend_of(kind), rows=3, chunk=16)[1]
    engine, ids = Engine(step, step.program.vocab_size, 256), prompt_of(name, 40)
    list(engine.generate(ids[:30], GREEDY))
    asked = Sampling(temperature=0, max_tokens=4, logprobs=20)
    streams = [
        engine.submit(Request(ids, asked, prompt_logprobs=20)),
        engine.submit(Request(ids[5:25], GREEDY)),
        engine.submit(Request(ids[:20], asked, prompt_logprobs=1)),
    ]
    (one, tokens), _, (other, _) = (ended(stream) for stream in streams)
    whole = [*ids, *(token.id for token in tokens)]
    logits = engine.logits(whole)
    assert_scores(one.prompt, ids, logits, 20)
    assert_scores(other.prompt, ids[:20], logits, 1)
    assert_scores([Token(ids[-1]), *tokens], whole[39:], logits[39:], 20)
    step.close()


@pytest.mark.parametrize(("count", "rows"), [(1, False), (7, False), (8, True)])
def test_a_device_that_finds_the_largest_brings_no_whole_rows(count, rows):
    """But for more alternatives than it finds; its answers and those beside it are chosen by it as well."""
    engine = make(kind=AheadStep)
    whole: list[int] = []
    run = engine.step.run
    engine.step.run = lambda batch: whole.append(len(batch.outputs)) or run(batch)
    streams = [engine.submit(Request(LONG[start:end], GREEDY, prompt_logprobs=count)) for start, end in ((0, 150), (20, 90))]
    company = engine.submit(Request(LONG[:40], GREEDY))
    for stream, ids in zip(streams, (LONG[:150], LONG[20:90]), strict=True):
        tokens = [token.id for token in stream]
        assert_scores(stream.prompt, ids, np.array([hashed(ids[: place + 1]) for place in range(len(ids))]), count)
        assert tokens == [token.id for token in make().generate(ids, GREEDY)]
    assert [token.id for token in company] == [token.id for token in make().generate(LONG[:40], GREEDY)]
    assert (sum(whole) > 100) if rows else not sum(whole)


def test_a_token_that_no_device_would_find():
    """Whole rows tell of one that is so unlikely, and nothing is collected twice or lost."""

    def unlikely(ids):
        row = np.linspace(0, 1, VOCAB, dtype=np.float32)
        row[ids[-1] % VOCAB] = -1000.0 if len(ids) % 5 == 0 else 2.0
        return row

    ids = [7] * 90
    stream, _ = ended(make(unlikely, kind=AheadStep).submit(Request(ids, GREEDY, prompt_logprobs=2)))
    assert_scores(stream.prompt, ids, np.array([unlikely(ids[: place + 1]) for place in range(90)]), 2)


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=300), st.integers(1, 64), st.integers(0, 300), st.sampled_from(list(KINDS))
)
@settings(max_examples=30, deadline=None)
def test_whatever_the_chunks_and_what_is_held(ids, chunk, held, kind):
    engine = make(chunk=chunk, states=KINDS[kind])
    if ids[:held]:
        list(engine.generate(ids[:held], GREEDY))
    company = [engine.submit(Request(LONG[: 40 + 20 * each], GREEDY)) for each in range(2)]
    stream, tokens = ended(engine.submit(Request(ids, GREEDY, prompt_logprobs=2)))
    logits = np.array([hashed(ids[: place + 1]) for place in range(len(ids))])
    assert_scores(stream.prompt, ids, logits, 2)
    assert [token.id for token in tokens] == [token.id for token in make().generate(ids, GREEDY)]
    for each in company:
        each.close()


def test_rows_of_logits_are_bounded(monkeypatch):
    monkeypatch.setattr(scheduler, "LOGIT_BYTES", 4 * VOCAB * 10)
    engine = make()
    streams = [engine.submit(Request(LONG[start:], GREEDY, prompt_logprobs=1)) for start in (0, 50)]
    plain = engine.submit(Request(LONG[7:], GREEDY))
    for stream in (plain, *streams):
        list(stream)
    assert max(engine.step.heads) <= 10 + 3 and max(engine.step.runs) > 40  # a plain prompt takes what is left of a run
    assert [len(stream.prompt) for stream in streams] == [300, 250]


def test_a_prompt_that_is_held_is_run_again_only_for_its_logprobs():
    engine = make()
    ended(engine.submit(Request(LONG, GREEDY)))
    scored, _ = ended(engine.submit(Request(LONG, GREEDY, prompt_logprobs=1)))
    assert scored.stats.reused_tokens == 0 and len(scored.prompt) == 300
    again, _ = ended(engine.submit(Request(LONG, GREEDY)))
    assert again.stats.reused_tokens == 299 and again.prompt == ()


def test_one_who_had_to_wait_goes_on_where_it_was():
    """Its pages go to another that needs them; what it has collected stays, and what is held of it is taken up."""
    engine = make(chunk=128, context=1024, memory=[4], rows=2, script=hashed)
    first = engine.submit(Request(LONG[:250], Sampling(temperature=0, max_tokens=100)))
    second = engine.submit(Request(LONG[20:], GREEDY, prompt_logprobs=3))
    (_, answer), (stream, _) = ended(first), ended(second)
    assert len(answer) == 100
    ids = LONG[20:]
    assert_scores(stream.prompt, ids, np.array([hashed(ids[: place + 1]) for place in range(len(ids))]), 3)


@pytest.mark.parametrize("extra", [{"prompt_logprobs": 2}, {"pooling": "mean"}, {"pooling": "none"}])
def test_a_run_that_is_repeated_counts_once(extra):
    engine, broken = make(chunk=32), iter([False, True, False, True])

    def fail():
        if next(broken, False):
            raise Cancelled("aborted")

    engine.step.fail = fail
    stream, _ = ended(engine.submit(Request(LONG[:100], GREEDY, **extra)))
    fresh, _ = ended(make(chunk=100).submit(Request(LONG[:100], GREEDY, **extra)))
    if "pooling" in extra:
        np.testing.assert_array_equal(stream.hidden, fresh.hidden)
    else:
        assert stream.prompt == fresh.prompt


@pytest.mark.parametrize("kind", [MockStep, SeeingStep, AheadStep])
def test_a_broken_row_fails_its_prompt_alone(kind):
    def script(ids):
        return hashed(ids) if ids[:2] != [9, 9] or len(ids) != 5 else np.full(VOCAB, np.nan, np.float32)

    engine = make(script, kind)
    bad = engine.submit(Request([9] * 20, GREEDY, prompt_logprobs=1))
    good = engine.submit(Request(LONG[:20], GREEDY, prompt_logprobs=1))
    with pytest.raises(NumericError, match="at position 4"):
        list(bad)
    assert len(list(good)) == 3 and len(good.prompt) == 20
    assert engine.held([9] * 20) == 0


def test_what_cannot_be():
    engine = make()
    for extra, message in (
        ({"prompt_logprobs": 101}, "`prompt_logprobs` is 101"),
        ({"prompt_logprobs": True}, "must be an integer"),
        ({"pooling": "max"}, "`pooling` is 'max'; it must be one of last, mean, none"),
        ({"pooling": "mean", "prompt_logprobs": 1}, "not both"),
    ):
        with pytest.raises(OptionError, match=message):
            engine.submit(Request([1, 2], GREEDY, **extra))
    stream, _ = ended(engine.submit(Request([1, 2], GREEDY)))
    with pytest.raises(OptionError, match="hidden states are there when"):
        assert stream.hidden is None


# hidden states


@given(
    st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=200), min_size=1, max_size=5),
    st.integers(1, 64),
    st.sampled_from(["last", "mean", "none"]),
    st.sampled_from(list(KINDS)),
)
@settings(max_examples=30, deadline=None)
def test_pooling(prompts, chunk, pooling, kind):
    engine = make(chunk=chunk, states=KINDS[kind], rows=2)
    for ids, found in zip(prompts, engine.embed(prompts, pooling), strict=True):
        rows = np.array([hidden_of(ids[: place + 1]) for place in range(len(ids))])
        expected = {"last": rows[-1], "mean": rows.mean(axis=0, dtype=np.float64), "none": rows}[pooling]
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
        assert found.dtype == np.float32
    assert not any(engine.step.heads)


def test_embedding_beside_an_answer_and_what_is_taken_up():
    engine, told = make(), []
    answer = engine.submit(Request([1, 2, 3], Sampling(temperature=0, max_tokens=20)))
    last, again = engine.embed([LONG, LONG[:200]], "last", progress=lambda *each: told.append(each))
    assert last.shape == (WIDTH,) and told == [("embedding", 1, 2), ("embedding", 2, 2)]
    np.testing.assert_array_equal(again, hidden_of(LONG[:200]))
    assert [token.id for token in answer] == [
        token.id for token in make().generate([1, 2, 3], Sampling(temperature=0, max_tokens=20))
    ]
    stream, _ = ended(engine.submit(Request(LONG, GREEDY, pooling="last")))
    assert stream.stats.reused_tokens == 299
    np.testing.assert_array_equal(stream.hidden, last)
    assert stream.finish_reason == "stop" and stream.stats.generated_tokens == 0
    stream, _ = ended(engine.submit(Request(LONG, GREEDY, pooling="mean")))
    assert stream.stats.reused_tokens == 0


def test_cancelled_embeddings():
    engine = make(chunk=16)
    with pytest.raises(Cancelled):
        engine.embed([LONG, LONG[1:]], "mean", cancelled=lambda: len(engine.step.runs) > 2)
    assert not engine.scheduler.running and not engine.scheduler.waiting


def test_broken_hidden_states(monkeypatch):
    engine = make()
    monkeypatch.setattr("tests.engine.mock.hidden_of", lambda ids: np.full(WIDTH, np.nan, np.float32))
    with pytest.raises(NumericError):
        engine.embed([LONG], "mean")
    assert engine.held(LONG) == 0
