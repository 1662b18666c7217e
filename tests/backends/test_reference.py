"""The reference backend against formulas written out value by value, and its contract."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from lacewing.backends import init_backend, known_backends
from lacewing.backends.batch import Batch, StepLimits
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.backends.reference.ops import gelu_tanh, silu
from lacewing.errors import BackendError, OptionError, WeightError
from lacewing.program.ops import (
    Activation,
    AddNorm,
    Attention,
    Buffer,
    Embed,
    GatedActivation,
    Hadamard,
    Linear,
    Logits,
    Norm,
    Rope,
    RopeSpec,
    ShortConvolution,
    WriteKeysValues,
)
from lacewing.program.program import Program
from lacewing.program.states import FixedState, Window
from lacewing.quants import by_name
from tests import paged
from tests.backends.cpu.checks import scan_case
from tests.backends.cpu.single_ops import one_batch
from tests.checkpoints import prompt_of, tiny
from tests.models.running import open_step, run
from tests.tolerance import assert_equal_up_to_rounding

RNG = np.random.default_rng(1)


@dataclass
class Array:
    """A float32 weight."""

    name: str
    values: np.ndarray

    @property
    def shape(self):
        return self.values.shape

    quant = by_name("F32")
    scales = None

    @property
    def data(self):
        return self.values.astype(np.float32).reshape(-1).view(np.uint8)

    @property
    def parts(self):
        return [self.data]


def identity_program(ops, weights, width, vocab, states=()):
    """Embed one row a token, do `ops` on it, and show the buffer `out` through an identity matrix."""
    x, out = Buffer("x", width).view(), Buffer("out", vocab).view()
    whole = (Embed("embedding", x), *ops, Logits(out, "identity"))
    shapes = {name: value.shape for name, value in weights.items()}
    return Program(whole, shapes, states, vocab)


def compute(ops, weights, width, tokens, positions=None, rows=None, states=(), out_width=None, backend=None):
    """What `ops` leave in the buffer `out`, (T, out width), for rows of a random embedding; and the embedding."""
    vocab = out_width or width
    embedding = RNG.standard_normal((vocab, width)).astype(np.float32)
    weights = {**weights, "embedding": embedding, "identity": np.eye(vocab, dtype=np.float32)}
    program = identity_program(ops, weights, width, vocab, states)
    wrapped = {name: Array(name, value) for name, value in weights.items()}
    step = paged.with_pages((backend or ReferenceBackend()).compile(program, wrapped, StepLimits(256, 200, 2)))
    count = len(tokens)
    positions = range(count) if positions is None else positions
    result = paged.run(step, tokens, rows or [0] * count, positions, np.arange(count))
    return embedding[tokens], result


X, OUT = Buffer("x", 8).view(), Buffer("out", 8).view()
TOKENS = [3, 0, 7, 3]


def test_embed_and_norm():
    weight = RNG.standard_normal(8)
    x, found = compute([Norm(X, "w", OUT, 1e-3, weight_offset=1.0)], {"w": weight}, 8, TOKENS)
    for row, got in zip(x.astype(float), found, strict=True):
        size = math.sqrt(sum(v * v for v in row) / 8 + 1e-3)
        np.testing.assert_allclose(got, [v / size * (w + 1) for v, w in zip(row, weight, strict=True)], rtol=1e-5)


def test_norm_of_heads_without_weight_and_with_add():
    h, sums = Buffer("h", 8).view(), Buffer("sums", 8).view()
    ops = [Norm(X, None, h, 1e-3), AddNorm(X, h, None, sums, 1e-3), Norm(X, None, OUT, 1e-3, heads=2)]
    x, found = compute(ops, {}, 8, TOKENS)
    for row, got in zip(x.astype(float), found, strict=True):
        total = row + row / math.sqrt((row**2).mean() + 1e-3)
        for head in (slice(0, 4), slice(4, 8)):
            np.testing.assert_allclose(got[head], total[head] / math.sqrt((total[head] ** 2).mean() + 1e-3), rtol=1e-5)


def test_norm_of_a_sum():
    h = Buffer("h", 8).view()
    x, found = compute([Norm(X, None, h, 1e-3), AddNorm(X, h, "w", OUT, 1e-3, 1.0, 0.25)], {"w": np.full(8, 0.5)}, 8, TOKENS)
    for row, got in zip(x.astype(float), found, strict=True):
        total = row + 0.25 * row / math.sqrt((row**2).mean() + 1e-3)
        np.testing.assert_allclose(got, 1.5 * total / math.sqrt((total**2).mean() + 1e-3), rtol=1e-5)


def test_layer_norm_of_heads():
    weights = {"w": RNG.standard_normal(4), "b": RNG.standard_normal(4)}
    x, found = compute([Norm(X, "w", OUT, 1e-3, 2, 0.0, "b", True)], weights, 8, TOKENS)
    for row, got in zip(x.astype(float), found, strict=True):
        for head in (slice(0, 4), slice(4, 8)):
            scaled = (row[head] - row[head].mean()) / math.sqrt(row[head].var() + 1e-3)
            np.testing.assert_allclose(got[head], scaled * weights["w"] + weights["b"], rtol=1e-4, atol=1e-5)


def test_linear_with_several_outs_and_biases():
    a, b, bias = RNG.standard_normal((5, 8)), RNG.standard_normal((3, 8)), RNG.standard_normal(3)
    ops = [Linear(X, ("a", "b"), (OUT.buffer.view(0, 5), OUT.buffer.view(5, 3)), (None, "bias"))]
    x, found = compute(ops, {"a": a, "b": b, "bias": bias}, 8, TOKENS)
    np.testing.assert_allclose(found, np.concatenate([x @ a.T, x @ b.T + bias], axis=1), atol=1e-5)


@pytest.mark.parametrize("adjacent", [False, True])
def test_rope(adjacent):
    rope = RopeSpec((1.0, 0.3), magnitude=1.5, adjacent=adjacent)
    heads = Buffer("out", 10).view()  # two heads of 5 values, of which 4 turn
    ops = [Linear(X, ("w",), (heads,)), Rope(heads, 2, rope)]
    weight = RNG.standard_normal((10, 8))
    x, found = compute(ops, {"w": weight}, 8, TOKENS, positions=[0, 1, 2, 3], out_width=10)
    for position, (row, got) in enumerate(zip(x @ weight.T, found, strict=True)):
        for head in (0, 5):
            expected = row[head : head + 5].copy()
            for pair, frequency in enumerate(rope.frequencies):
                i, j = (2 * pair, 2 * pair + 1) if adjacent else (pair, pair + 2)
                turn = 1.5 * np.exp(1j * position * frequency) * (row[head + i] + 1j * row[head + j])
                expected[i], expected[j] = turn.real, turn.imag
            np.testing.assert_allclose(got[head : head + 5], expected, atol=1e-5)


@pytest.mark.parametrize("size", [32, 64, 256])
def test_hadamard(size):
    """Sylvester's matrix, row by row from its definition: the parity of the bits that row and column share."""
    signs = np.array([[1 - 2 * ((row & column).bit_count() % 2) for column in range(size)] for row in range(size)])
    width, weight = 2 * size, RNG.standard_normal((2 * size, 8))
    heads = Buffer("out", width).view()
    x, found = compute([Linear(X, ("w",), (heads,)), Hadamard(heads, 1, size)], {"w": weight}, 8, TOKENS, out_width=width)
    expected = ((x @ weight.T).reshape(4, 2, size) @ signs / math.sqrt(size)).reshape(found.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("activation", "function"), [
    ("silu", lambda v: v / (1 + math.exp(-v))),
    ("sigmoid", lambda v: 1 / (1 + math.exp(-v))),
    ("gelu_tanh", lambda v: 0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))),
])  # fmt: skip
def test_gated_activation(activation, function):
    up = Buffer("up", 8).view()
    ops = [Norm(X, None, up, 1e-6), GatedActivation(X, up, OUT, activation)]
    x, found = compute(ops, {}, 8, TOKENS)
    for row, got in zip(x.astype(float), found, strict=True):
        size = math.sqrt((row**2).mean() + 1e-6)
        np.testing.assert_allclose(got, [function(v) * v / size for v in row], rtol=1e-4, atol=1e-6)


def test_norm_of_heads_with_weights_of_their_own():
    weight = RNG.standard_normal(8)
    x, found = compute([Norm(X, "w", OUT, 1e-6, 2, 1.0)], {"w": weight}, 8, TOKENS)
    halves = x.astype(float).reshape(4, 2, 4)
    expected = halves / np.sqrt((halves**2).mean(axis=-1, keepdims=True) + 1e-6) * (weight + 1).reshape(2, 4)
    np.testing.assert_allclose(found, expected.reshape(4, 8), rtol=1e-4)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_a_gate_for_every_part(parts):
    x, found = compute([Norm(X, None, OUT, 1e-6), GatedActivation(X.buffer.view(0, parts), OUT, OUT, "sigmoid")], {}, 8, TOKENS)
    for row, got in zip(x.astype(float), found, strict=True):
        size = math.sqrt((row**2).mean() + 1e-6)
        expected = [v / size / (1 + math.exp(-row[column * parts // 8])) for column, v in enumerate(row)]
        np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_xielu():
    x, found = compute([Activation(X, OUT, "xielu", (0.7, 1.4, 0.5, -0.01))], {}, 8, TOKENS)
    expected = [0.7 * v * v + 0.5 * v if v > 0 else 1.4 * (math.expm1(min(v, -0.01)) - v) + 0.5 * v for v in x.astype(float).flat]
    np.testing.assert_allclose(found.reshape(-1), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "function"), [
    ("relu2", lambda v: max(v, 0.0) ** 2), ("sigmoid", lambda v: 1 / (1 + math.exp(-v))), 
    ("softplus", lambda v: math.log1p(math.exp(v))), ("gelu", lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2)))),
])  # fmt: skip
def test_activation(name, function):
    x, found = compute([Activation(X, OUT, name)], {}, 8, TOKENS)
    np.testing.assert_allclose(found, np.vectorize(function)(x.astype(float)), rtol=1e-5, atol=1e-6)


def test_activations_do_not_overflow():
    values = np.array([-1e30, -1000, 0, 1000, 1e30], np.float32)
    np.testing.assert_allclose(silu(values), [0, 0, 0, 1000, 1e30], atol=1e-4)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(gelu_tanh(values), [0, 0, 0, 1000, 1e30])


ATTENTION = {"q": RNG.standard_normal((16, 8)), "k": RNG.standard_normal((8, 8)), "v": RNG.standard_normal((6, 8))}


@pytest.mark.parametrize(("window", "softcap"), [(None, None), (2, None), (None, 1.5), (3, 0.7), (1, None)])
def test_attention(window, softcap):
    """4 heads of width 4 over 2 key heads, values of width 3, two rows in one run."""
    q, k, v, out = (Buffer(name, width).view() for name, width in (("q", 16), ("k", 8), ("v", 6), ("out", 12)))
    ops = [Linear(X, ("q", "k", "v"), (q, k, v)), WriteKeysValues(k, v, 0), Attention(q, out, 0, 4, 2, 0.6, window, softcap)]
    tokens, slots, positions = [3, 7, 3, 2, 0, 1, 5], [0, 0, 0, 0, 0, 1, 1], [0, 1, 2, 3, 4, 0, 1]
    state = paged.paged(2, 4, 3, window and Window(window))
    x, found = compute(ops, ATTENTION, 8, tokens, positions, slots, (state,), 12)
    queries, keys, values = (x.astype(float) @ ATTENTION[name].T for name in "qkv")
    for row in range(len(tokens)):
        seen = [other for other in range(len(tokens)) if slots[other] == slots[row] and positions[other] <= positions[row]]
        seen = [other for other in seen if window is None or positions[row] - positions[other] < window]
        for head in range(4):
            key_head = head // 2
            scores = [0.6 * queries[row, head * 4 : head * 4 + 4] @ keys[other, key_head * 4 : key_head * 4 + 4] for other in seen]
            weights = np.exp([softcap * math.tanh(score / softcap) if softcap else score for score in scores])
            parts = [weight * values[other, key_head * 3 : key_head * 3 + 3] for weight, other in zip(weights, seen, strict=True)]
            np.testing.assert_allclose(found[row, head * 3 : head * 3 + 3], sum(parts) / weights.sum(), atol=1e-5)


def test_keys_and_values_in_half_precision():
    q, k, v, out = (Buffer(name, width).view() for name, width in (("q", 16), ("k", 8), ("v", 6), ("out", 12)))
    ops = [Linear(X, ("q", "k", "v"), (q, k, v)), WriteKeysValues(k, v, 0), Attention(q, out, 0, 4, 2, 0.6)]
    half = ReferenceBackend(exact=False)
    x, found = compute(ops, ATTENTION, 8, [3], [0], [0], (paged.paged(2, 4, 3),), 12, half)
    values = (x.astype(float) @ ATTENTION["v"].T)[0]
    assert np.array_equal(found, found.astype(np.float16))
    np.testing.assert_allclose(found[0], [*values[:3], *values[:3], *values[3:], *values[3:]], rtol=2**-10)  # a bit of float16


def test_logits_scale_softcap_and_rows(tmp_path):
    weight = RNG.standard_normal((5, 8)).astype(np.float32)
    bias = RNG.standard_normal(5).astype(np.float32)
    program = Program((Embed("w", X), Logits(X, "w", 2.0, 3.0, "b")), {"w": (5, 8), "b": (5,)}, (), 5)
    step = ReferenceBackend().compile(program, {"w": Array("w", weight), "b": Array("b", bias)}, StepLimits(4, 4))
    found = step.run(Batch.of([1, 4, 2], 0, [2, 0]))
    np.testing.assert_allclose(found, 3 * np.tanh(2 * (weight[[2, 1]] @ weight.T + bias) / 3), rtol=1e-5)
    assert step.run(Batch.of([1], 0, [])).shape == (0, 5)


@pytest.fixture
def step(tmp_path):
    return open_step(tiny("gemma2", "gguf", tmp_path), context=32, rows=3, chunk=24)[1]


def test_any_split_into_runs_gives_the_same_logits(step):
    ids = prompt_of("gemma2")
    whole = run(step, ids)
    for size in (1, 5, 23):
        parts = [run(step, ids[start : start + size], start, row=1) for start in range(0, len(ids), size)]
        assert_equal_up_to_rounding(np.concatenate(parts), whole)


def test_what_counts_as_rounding():
    x, weight = RNG.standard_normal((7, 512)).astype(np.float32), RNG.standard_normal((9, 512)).astype(np.float32)
    expected = x @ weight.T
    assert_equal_up_to_rounding(x[:, ::-1] @ weight[:, ::-1].T, expected)
    for wrong in (expected[::-1], expected * np.float32(1.0001), np.where(expected == expected.max(), np.nan, expected)):
        with pytest.raises(AssertionError):
            assert_equal_up_to_rounding(wrong, expected)


def test_rows_are_independent_and_may_share_a_run(step):
    first, second = prompt_of("gemma2")[:9], prompt_of("gemma3")[:5]
    expected = [run(step, first), run(step, second)]
    found = paged.run(step, second + first, [2] * 5 + [1] * 9, [*range(5), *range(9)], np.arange(14))
    assert_equal_up_to_rounding(found[5:], expected[0])
    assert_equal_up_to_rounding(found[:5], expected[1])


def test_a_suffix_is_forgotten_by_writing_over_it(step):
    ids = prompt_of("gemma2")
    run(step, ids)
    again = run(step, ids[::-1][:8], start=4)
    run(step, ids[:4], row=1)
    assert_equal_up_to_rounding(again, run(step, ids[::-1][:8], start=4, row=1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], [], []), "1 to 24 tokens, not 0"),
        (([1] * 25, [0] * 25, list(range(25)), []), "1 to 24 tokens, not 25"),
        (([320], [0], [0], []), "token 320 is out of range; there are 320"),
        (([-1], [0], [0], []), "token -1"),
        (([1], [3], [0], []), "row 3"),
        (([1], [0], [32], []), "position 32"),
        (([1, 1], [0, 0], [0, 2], []), "position 2 does not follow the one before it"),
        (([1, 1, 1], [0, 1, 0], [0, 0, 1], []), "tokens of a row must stand together"),
        (([1], [0, 0], [0], []), "1 tokens came with 2 rows and 1 positions"),
        (([1], [0], [0], [1]), "output row 1"),
        (([1.5], [0], [0], []), "integers"),
        (([[1]], [0], [0], []), "list of integers"),
    ],
)
def test_arguments_are_checked(step, arguments, message):
    with pytest.raises(OptionError, match=message):
        step.run(Batch(*(np.array(values) for values in arguments)))


def test_a_position_that_was_never_run_shows(step):
    """Pages begin as NaN, so that an engine that forgets to run a position is found out."""
    assert np.isnan(step.run(Batch.of([1], 3, [0], row=2))).all()


def test_selective_scan():
    """The recurrence written out in float64, number by number, for two heads that share b and c."""
    case = scan_case(7, 2, 1, 3, 4, (0.1, 0.9))
    found, (a, d, bias) = case.run(one_batch(7), None), (case.weights[name].data.view(np.float32) for name in ("a", "d", "bias"))
    for head in range(2):
        for column in range(3):
            kept = [0.0] * 4
            for row, got in zip(case.x.astype(float), found, strict=True):
                x, b, c = row[3 * head + column], row[6:10], row[10:14]
                dt = min(max(math.log1p(math.exp(row[14 + head] + bias[head])), 0.1), 0.9)
                kept = [math.exp(dt * a[head]) * value + dt * b[n] * x for n, value in enumerate(kept)]
                expected = sum(c[n] * value for n, value in enumerate(kept)) + d[head] * x
                assert abs(got[3 * head + column] - expected) < 1e-5


TAPS = RNG.standard_normal((8, 3))


@pytest.mark.parametrize("bias", [None, "bias"])
@pytest.mark.parametrize("sizes", [[7], [1, 1, 5], [3, 4], [6, 1]])
def test_short_convolution(sizes, bias):
    """In any parts, also of two rows in one run."""
    state = FixedState((("conv", (2, 8)),))
    named = {"taps": TAPS, "bias": RNG.standard_normal(8)} if bias else {"taps": TAPS}
    program = identity_program(
        [ShortConvolution(X, "taps", OUT, 0, bias)], {**named, "embedding": X0, "identity": EYE}, 8, 8, (state,)
    )
    wrapped = {name: Array(name, value) for name, value in {**named, "embedding": X0, "identity": EYE}.items()}
    step = paged.with_pages(ReferenceBackend().compile(program, wrapped, StepLimits(64, 64, 2)))
    tokens, start, found = [3, 0, 7, 3, 1, 2, 6], 0, []
    for size in sizes:
        ids = tokens[start : start + size]
        rows, places = [1] * size + [0] * size, [*range(start, start + size)] * 2
        found.append(paged.run(step, ids + ids[::-1], rows, places, np.arange(size)))
        start += size
    x = X0[tokens].astype(float)
    for position, got in enumerate(np.concatenate(found)):
        taps = [TAPS[:, tap] * x[position - 2 + tap] for tap in range(3) if position - 2 + tap >= 0]
        np.testing.assert_allclose(got, sum(taps) + (named["bias"] if bias else 0), rtol=1e-5, atol=1e-6)


X0, EYE = RNG.standard_normal((8, 8)).astype(np.float32), np.eye(8, dtype=np.float32)


@pytest.mark.parametrize("dtype", ["f16", "f32", "q8_0"])
def test_pages_are_read_and_written_in_their_precision(dtype):
    """32 values a head, two pages; what was read gives the same logits in another row."""
    named = {"qk": RNG.standard_normal((64, 8)), "v": RNG.standard_normal((64, 8))}
    q, k, v, out = (Buffer(name, 64).view() for name in ("q", "k", "v", "out"))
    ops = (
        Linear(X, ("qk", "qk", "v"), (q, k, v)), WriteKeysValues(k, v, 0), Attention(q, out, 0, 2, 2, 0.2),
    )  # fmt: skip
    weights = {**named, "embedding": RNG.standard_normal((64, 8)).astype(np.float32), "identity": np.eye(64, dtype=np.float32)}
    program = identity_program(ops, weights, 8, 64, (paged.paged(2, 32, 32, dtype=dtype),))
    wrapped = {name: Array(name, value) for name, value in weights.items()}
    step = paged.with_pages(ReferenceBackend(exact=False).compile(program, wrapped, StepLimits(256, 200, 2)), shuffle=3)
    ids = RNG.integers(0, 64, 150).tolist()
    paged.run_row(step, ids[:140])
    expected = paged.run_row(step, ids[140:], 140)
    pages = [int(page) for page in step.state.tables[0][0]]
    data = step.read(0, pages)
    assert data.shape == (2, 2 * 2 * 128 * {"f16": 64, "f32": 128, "q8_0": 34}[dtype])
    others = [int(page) for page in step.state.tables[0][1]]
    step.write(0, others, data)
    assert_equal_up_to_rounding(paged.run_row(step, ids[140:], 140, row=1), expected)
    step.copy(0, [(pages[0], others[0])])
    with pytest.raises(OptionError, match="page 4 of group 0 does not exist; there are 4"):
        step.read(0, [4])
    with pytest.raises(OptionError, match="2 pages take uint8"):
        step.write(0, pages, data[:1])
    step.close()
    with pytest.raises(OptionError, match="closed"):
        step.read(0, pages)


def test_not_a_number_shows_in_the_logits_without_warnings():
    weight = np.ones((5, 8), np.float32)
    weight[3] = np.inf
    ops = (Embed("w", X), Norm(X, None, OUT, 1e-6), Logits(OUT, "w"))
    step = ReferenceBackend().compile(Program(ops, {"w": (5, 8)}, (), 5), {"w": Array("w", weight)}, StepLimits(4))
    found = step.run(Batch.of([3, 1], 0, [0, 1]))
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1, :3]).all()


def test_weights_are_checked():
    program = Program((Embed("w", X), Logits(X, "w")), {"w": (5, 8)}, (), 5)
    with pytest.raises(WeightError, match="w is missing"):
        ReferenceBackend().compile(program, {}, StepLimits(4))
    with pytest.raises(WeightError, match=r"w has shape \(8, 5\)"):
        ReferenceBackend().compile(program, {"w": Array("w", np.zeros((8, 5)))}, StepLimits(4))


def test_large_weights_are_dequantised_in_parts(tmp_path, monkeypatch):
    ids, path = prompt_of("llama"), tiny("llama", "gguf", tmp_path, "Q8_0")
    expected = run(open_step(path)[1], ids)
    monkeypatch.setattr("lacewing.backends.reference.weights._SLAB", 1000)
    sparing = open_step(path, backend=ReferenceBackend(cache_bytes=0))[1]
    assert_equal_up_to_rounding(run(sparing, ids), expected)


def test_facts_rebind_and_close(step):
    assert init_backend("reference").facts().backend == "reference"
    ids = prompt_of("gemma2")
    before = run(step, ids)
    step.rebind()
    assert_equal_up_to_rounding(run(step, ids), before)
    assert step.state_bytes == sum(4 * 3 * 128 * 2 * 2 * 32 for _ in range(4))  # rows, positions, keys and values, heads, width
    assert step.buffer_bytes > 0
    step.close()
    with pytest.raises(OptionError, match="closed"):
        run(step, ids)


def test_backends_are_found_by_name():
    assert {"cpu", "reference"} <= set(known_backends())
    with pytest.raises(OptionError, match="'tpu', which does not exist; there are auto, cpu, cuda, reference"):
        init_backend("tpu")


def test_auto_takes_the_first_that_works(monkeypatch):
    import lacewing.backends as backends

    def fail(name, *rest):
        raise BackendError(f"no {name} here")

    opened = backends._open
    monkeypatch.setattr(backends, "_open", lambda name, *rest: (opened if name == "reference" else fail)(name, *rest))
    assert init_backend().name == "reference"
    monkeypatch.setattr(backends, "_open", fail)
    words = "no backend works here; cuda: no cuda here; webgpu: no webgpu here; cpu: no cpu here; reference: no reference here"
    with pytest.raises(BackendError, match=words):
        init_backend("auto")


QUANTS_32 = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4"]
QUANTS_256 = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "IQ2_XXS", "IQ3_S", "IQ1_S", "TQ1_0", "TQ2_0"]


@pytest.mark.parametrize("quant", QUANTS_32 + QUANTS_256)
def test_every_quant_runs(quant, tmp_path):
    spec, step = open_step(tiny("llama-wide" if quant in QUANTS_256 else "llama", "gguf", tmp_path, quant), context=64)
    assert {info.quant.name for info in spec.tensors.values()} == {"F32", quant}
    logits = run(step, prompt_of("llama"))
    assert np.isfinite(logits).all()
    assert 0.1 < logits.std() < 10
