import json
import math

import numpy as np
import pytest

from lacewing.api import load
from lacewing.backends.step import RoutedLayer
from lacewing.engine.routing import AnswerRouting, RoutingStatistics, as_dict, means, trace_lines, watch_text
from lacewing.errors import NumericError, OptionError
from lacewing.options import Sampling
from tests.checkpoints import prompt_of, tiny
from tests.tolerance import SAME

IDS = [[0, 1], [0, 2], [1, 0], [3, 0]]
TOKENS = 4
SKEWED = [0.5, 0.25, 0.125, 0.125]


def routed(ids, probabilities, layer=0):
    p = np.broadcast_to(np.array(probabilities, np.float32), (len(ids), np.shape(probabilities)[-1]))
    return RoutedLayer(layer, np.array(ids, np.int32), p)


def counted(*runs):
    statistics = RoutingStatistics()
    for run in runs:
        statistics.add(run)
    return statistics


def test_statistics_known_on_paper():
    (found,) = counted([routed(IDS, SKEWED)]).layers()
    assert (found.layer, found.experts, found.active, found.tokens) == (0, 4, 2, TOKENS)
    assert found.counts == (4, 2, 1, 1)  # shares 1/2, 1/4, 1/8, 1/8
    assert found.busiest == found.busiest_tenth == 0.5
    assert found.entropy_bits == pytest.approx(1.75) and found.entropy_share == pytest.approx(1.75 / 2)
    assert found.variation == pytest.approx(math.sqrt(1.5) / 2)
    assert found.balance_loss == pytest.approx(4 * (1 / 4 + 1 / 16 + 1 / 64 + 1 / 64))
    assert found.sequence_loss == pytest.approx(found.balance_loss)  # one sequence, and the probabilities sum to 1
    assert found.reuse == 0.5  # expert 0, in each of the three pairs
    assert found.heat(8) == [2, 1, 0.5, 0.5] and found.heat(2) == [1.5, 0.5]


def test_an_even_router():
    ids = [[first, first + 10] for first in range(10)]
    (found,) = counted([routed(ids, [1 / 20] * 20)]).layers()
    assert found.counts == (1,) * 20 and found.variation == 0 and found.entropy_share == pytest.approx(1)
    assert found.busiest == pytest.approx(1 / 20) and found.busiest_tenth == pytest.approx(2 / 20)
    assert found.balance_loss == pytest.approx(1) and found.reuse == 0


def test_a_collapsed_router():
    (found,) = counted([routed([[3]] * 5, [0, 0, 0, 1])]).layers()
    assert found.busiest == 1 and found.entropy_bits == 0 and found.reuse == 1
    assert found.balance_loss == pytest.approx(4)  # E, the most there can be
    assert found.variation == pytest.approx(math.sqrt(3))
    (single,) = counted([routed([[0]], [1.0])]).layers()
    assert single.entropy_share == 1 and single.reuse is None and single.balance_loss == 1


def test_sequences_are_weighed_by_their_tokens():
    statistics = RoutingStatistics()
    statistics.add([routed(IDS[:3], SKEWED)])
    statistics.begin_sequence()
    statistics.add([routed(IDS[3:], [0.25] * 4)])
    (found,) = statistics.layers()
    first = 4 / (2 * 3) * (3 * 0.5 + 2 * 0.25 + 1 * 0.125)
    assert found.sequence_loss == pytest.approx((3 * first + 1 * 1) / 4)
    assert found.reuse == 0.5  # half of {0, 2} and half of {1, 0}; the last token follows nothing


def test_reuse_only_within_a_sequence():
    together, apart = RoutingStatistics(), RoutingStatistics()
    for part in ([[0, 1], [2, 3]], [[2, 3], [0, 1]]):
        together.add([routed(part, SKEWED)])
        apart.begin_sequence()
        apart.add([routed(part, SKEWED)])
    assert together.layers()[0].reuse == pytest.approx(1 / 3) and apart.layers()[0].reuse == 0


def test_the_form_for_sigmoid_does_not_depend_on_the_scale():
    whole, half = (counted([routed(IDS, np.array(SKEWED) * scale)]).layers()[0] for scale in (1, 0.5))
    assert half.sequence_loss == pytest.approx(whole.sequence_loss)
    assert half.balance_loss == pytest.approx(whole.balance_loss / 2)


@pytest.mark.parametrize("sizes", [[1] * 200, [100, 1, 1, 98], [63, 64, 73], [200]])
def test_runs_of_any_length_count_the_same(sizes):
    chance = np.random.default_rng(1)
    scores = chance.random((2, 200, 12)).astype(np.float32)
    ids = scores.argsort(-1)[:, :, -3:].astype(np.int32)
    statistics, start = RoutingStatistics(), 0
    buffers = [RoutedLayer(layer, np.zeros((200, 3), np.int32), np.zeros((200, 12), np.float32)) for layer in (1, 4)]
    for size in sizes:  # every run overwrites the buffers of the last
        for at, buffer in enumerate(buffers):
            buffer.ids[:size], buffer.probabilities[:size] = ids[at, start : start + size], scores[at, start : start + size]
        statistics.add([RoutedLayer(each.layer, each.ids[:size], each.probabilities[:size]) for each in buffers])
        start += size
    assert statistics.tokens == 200
    for at, found in enumerate(statistics.layers()):
        assert found.layer == (1, 4)[at] and found.counts == tuple(np.bincount(ids[at].ravel(), minlength=12).tolist())
        pairs = zip(ids[at].tolist(), ids[at].tolist()[1:], strict=False)
        assert found.reuse == pytest.approx(sum(len(set(a) & set(b)) for a, b in pairs) / (199 * 3))
        f, p = np.array(found.counts) / 600, scores[at].mean(0)
        assert found.balance_loss == pytest.approx(12 * float(f @ p), rel=1e-5)


def test_layers_of_different_width_and_their_means():
    layers = counted([routed([[0]], [0.5, 0.5], 3), routed([[0, 1]], [1 / 3] * 3, 1)]).layers()
    assert [(each.layer, each.experts, each.active) for each in layers] == [(1, 3, 2), (3, 2, 1)]
    found = means(layers)
    assert found["busiest"] == 0.75 and found["reuse"] is None
    assert json.loads(json.dumps(as_dict(layers)))["layers"][0]["counts"] == [1, 1, 0]
    assert counted([]).layers() == []


def test_nan_is_an_error_not_a_statistic():
    statistics = counted([routed(IDS, [math.nan] * 4, 7)])
    with pytest.raises(NumericError, match="layer 7"):
        statistics.layers()


def test_trace_lines():
    lines = list(trace_lines([routed(IDS, SKEWED, 1), routed(IDS[::-1], SKEWED, 2)], first=5))
    assert lines[0] == '{"tok": 5, "layers": [[0, 1], [3, 0]]}'  # as in the traces that the expert cache is studied with
    assert [json.loads(line)["tok"] for line in lines] == [5, 6, 7, 8]


@pytest.mark.parametrize("name", ["qwen3moe", "qwen3moe-sparse", "deepseek3", "llama4", "gpt-oss"])
def test_a_mixture_on_both_backends(name, tmp_path):
    form = "huggingface" if name.endswith("sparse") else "gguf"
    path, ids, found, traces = tiny(name, form, tmp_path), prompt_of(name, 100), [], []
    for backend in ("reference", "cpu"):
        lines = []
        with load(path, backend=backend, context=256) as model:
            watched = watch_text(model.engine, ids, trace=lines.append)
            assert model.step.routes() == [] and model.engine.cached == []
            logits = model.logits(ids[:8])
            model.step.watch_routes(True)
            SAME[backend](model.logits(ids[:8]), logits)
            assert model.step.routes()
        found.append(watched.layers())
        traces.append([json.loads(line) for line in "".join(lines).splitlines()])
    for left, right in zip(*found, strict=True):
        assert left.layer == right.layer and left.tokens == right.tokens == 100
        assert sum(left.counts) == sum(right.counts) == 100 * left.active
        assert left.balance_loss == pytest.approx(right.balance_loss, rel=0.02)
        assert sum(abs(a - b) for a, b in zip(left.counts, right.counts, strict=True)) <= 4
    for trace, layers in zip(traces, found, strict=True):
        assert [line["tok"] for line in trace] == list(range(100))
        for at, layer in enumerate(layers):
            chosen = [expert for line in trace for expert in line["layers"][at]]
            assert np.bincount(chosen, minlength=layer.experts).tolist() == list(layer.counts)


def test_a_text_longer_than_the_context(tmp_path):
    told = []
    with load(tiny("mixtral", "gguf", tmp_path), backend="reference", context=16) as model:
        watched = watch_text(model.engine, prompt_of("mixtral", 40), [1], progress=lambda *told_: told.append(told_))
        assert watched.tokens == 43  # 15 + 15 + 10, and one in front of each
        assert told[-1] == ("reading the text", 40, 40)
        counts = np.zeros(6, int)
        for start in (0, 15, 30):
            counts += watch_text(model.engine, prompt_of("mixtral", 40)[start : start + 15], [1]).layers()[0].counts
        assert watched.layers()[0].counts == tuple(counts.tolist())
        with pytest.raises(OptionError, match="empty"):
            watch_text(model.engine, [])
        with pytest.raises(OptionError, match="no room"):
            watch_text(model.engine, [5], range(16))


def test_an_observer_counts_one_answer(tmp_path):
    greedy = Sampling(temperature=0, max_tokens=4)
    with load(tiny("mixtral", "gguf", tmp_path), backend="reference", context=64) as model:
        plain = [token.id for token in model.engine.generate([1, 2, 3], greedy)]
        model.engine.forget()
        watched = AnswerRouting()
        model.engine.observe(watched)
        assert [token.id for token in model.engine.generate([1, 2, 3], greedy)] == plain
        assert watched.statistics.tokens == 6  # the prompt, and all tokens of the answer but the last
        list(model.engine.generate([1, 2, 3, *plain, 4, 5], greedy))
        assert watched.statistics.tokens == 6  # three that were not cached, and three again
        list(model.engine.generate([1, 2], greedy))
        assert watched.statistics.tokens == 4  # back to an earlier place, for one token of the prompt
        assert watched.statistics.layers()[0].tokens == 4


@pytest.mark.gpu
@pytest.mark.parametrize("sampling", [Sampling(temperature=0, max_tokens=6), Sampling(top_k=5, seed=3, max_tokens=6)])
def test_a_gpu_chooses_tokens_while_it_is_watched(sampling, tmp_path, monkeypatch):
    """Its own greedy and top-k, not rows of logits that come back to the host."""
    with load(tiny("qwen3moe", "gguf", tmp_path), backend="webgpu", context=64) as model:
        engine, step = model.engine, model.step
        plain = [token.id for token in engine.generate([1, 2, 3], sampling)]
        engine.forget()
        watched, runs, run = AnswerRouting(), [], step.run
        monkeypatch.setattr(step, "run", lambda batch: runs.append(len(batch.tokens)) or run(batch))
        engine.observe(watched)
        assert [token.id for token in engine.generate([1, 2, 3], sampling)] == plain
        assert runs == []  # no row of logits came back, not even of the prompt
        monkeypatch.undo()
        counts = [each.counts for each in watched.statistics.layers()]
        engine.unobserve(watched)
        assert counts == [each.counts for each in watch_text(engine, [1, 2, 3, *plain[:-1]]).layers()]
