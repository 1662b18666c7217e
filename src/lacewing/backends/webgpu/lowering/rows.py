"""Embeddings, norms, rotary positions, activations, short convolutions: what works on each column or head by itself."""

from __future__ import annotations

from lacewing.backends.gpu.layouts import GROUP
from lacewing.backends.gpu.run import Run
from lacewing.backends.gpu.turns import fixed_turns
from lacewing.backends.webgpu.lowering.compiler import RULES, Compiler
from lacewing.backends.webgpu.lowering.dispatches import Grid
from lacewing.backends.webgpu.lowering.forms import forms_of
from lacewing.program import ops
from lacewing.program.ops import View

MOST_PARTS = 16  # vectors of four that a thread keeps of a row
DELTA_COLUMNS, DELTA_TEAMS = 32, 8  # of a workgroup: columns of a state, and teams that share its rows


@RULES.rule(ops.Embed)
def embed(compiler: Compiler, op: ops.Embed) -> None:
    matrix = compiler.matrix((op.weight,))
    for shard in matrix.shards:
        constants = {
            "layout": matrix.layout, "groups": matrix.groups, "columns": matrix.columns, "first_row": shard.first,
            "rows": shard.rows, "out": compiler.at(op.out), "scale": op.scale,
        }  # fmt: skip
        compiler.dispatch("embed", constants, shard.planes, lambda run: (-(-matrix.groups // 64), run.tokens, 1))
    compiler.written(op.out)


@RULES.rule(ops.AddNorm)
def add_norm(compiler: Compiler, op: ops.AddNorm) -> None:
    norm(compiler, ops.Norm(op.x, op.weight, op.out, op.eps, 1, op.weight_offset, op.bias, op.centred), op.add, op.scale)
    compiler.written(op.x)


def norm(compiler: Compiler, op: ops.Norm, add: View | None = None, scale: float = 1.0) -> None:
    """Of x, to which `scale` * `add` is added first, in place."""
    width, places = op.x.width // op.heads, [compiler.at(view) for view in (op.x, op.out, add) if view is not None]
    each = op.weight is not None and compiler.program.weights[op.weight][0] > width  # heads have weights of their own
    constants = {
        "x": compiler.at(op.x), "add": compiler.at(add) if add is not None else None, "out": compiler.at(op.out),
        "scale": scale, "width": width, "each": each, "eps": op.eps, "offset": op.weight_offset, "weighted": op.weight is not None,
        "biased": op.bias is not None, "centred": op.centred,
    }  # fmt: skip
    bindings = [compiler.vector(name) for name in (op.weight, op.bias) if name is not None]
    threads = min(compiler.device.most_threads, max(64, 1 << (width // 8 - 1).bit_length()))
    whole = op.heads == 1 and width % GROUP == 0 and all(place.base % 4 == 0 for place in places) and width <= 32 * threads
    forms = forms_of(compiler, op.out)
    coded = whole and compiler.variant.dot and op.out.start % GROUP == 0 and forms.codes > 0
    halved = whole and forms.halves >= 0
    if whole:
        more = {
            "q8": compiler.arena.quantised(op.out) if coded else None, "threads": threads, "parts": -(-width // (4 * threads)),
            "q8_most": forms.codes if forms.codes < compiler.limits.chunk else None, "halves_above": forms.halves,
            "halves": compiler.arena.halved(op.out) if halved else None,
        }  # fmt: skip
        compiler.dispatch("norm", {**constants, **more}, bindings, lambda run: (1, run.tokens, 1))
    else:
        threads = min(256, max(32, 1 << (width - 1).bit_length()))
        compiler.dispatch("norm_any", {**constants, "threads": threads}, bindings, lambda run: (op.heads, run.tokens, 1))
    compiler.written(op.out)
    if coded:
        compiler.mark_quantised(op.out, forms.codes)
    if halved:
        compiler.mark_halved(op.out, forms.halves)


def rope(compiler: Compiler, op: ops.Rope) -> None:
    pairs = len(op.rope.frequencies)
    turns = compiler.constant(fixed_turns(op.rope.frequencies))
    constants = {
        "x": compiler.at(op.x), "pairs": pairs, "width": op.x.width // op.heads, "start": op.start, "heads": op.heads,
        "adjacent": op.rope.adjacent, "magnitude": op.rope.magnitude,
    }  # fmt: skip
    compiler.dispatch("rope", constants, [turns], lambda run: (-(-pairs * op.heads // 64), run.tokens, 1))
    compiler.written(op.x)


@RULES.rule(ops.GatedActivation)
def gated_activation(compiler: Compiler, op: ops.GatedActivation) -> None:
    gated(compiler, op, 0)


@RULES.rule(ops.Activation)
def activation(compiler: Compiler, op: ops.Activation) -> None:
    _activation(compiler, op, op.function, op.x, None, 0, op.constants)


@RULES.rule(ops.LimitedActivation)
def limited_activation(compiler: Compiler, op: ops.LimitedActivation) -> None:
    gated(compiler, op, 0)


def gated(compiler: Compiler, op: ops.GatedActivation | ops.LimitedActivation, more_than: int) -> None:
    """The activation, for runs of more tokens than that."""
    if isinstance(op, ops.LimitedActivation):
        _activation(compiler, op, "silu", op.gate, op.up, more_than, limit=op.limit)
    else:
        _activation(compiler, op, op.activation, op.gate, op.up, more_than)


def _activation(
    compiler: Compiler, op: ops.Activation | ops.GatedActivation | ops.LimitedActivation, function: str, x: View, up: View | None,
    more_than: int, numbers: tuple[float, ...] = (), limit: float | None = None,
) -> None:  # fmt: skip
    """Of x, times `up` where it is given."""
    out, width = op.out, op.out.width
    places = {"gate": compiler.at(x), "up": compiler.at(up) if up is not None else None, "out": compiler.at(out)}
    constants, part = {**places, "width": width, "activation": function, "numbers": numbers, "limit": limit}, width // x.width
    whole = part == 1 and width % 4 == 0 and all(place is None or place.base % 4 == 0 for place in places.values())
    coded = whole and compiler.variant.dot and width % GROUP == 0 and out.start % GROUP == 0
    wide, threads = 256 if whole else 64, min(compiler.device.most_threads, max(64, 1 << (width // 8 - 1).bit_length()), 512)
    alone = forms_of(compiler, out, op).halves_alone
    rows = whole and 0 <= alone < compiler.limits.chunk and width <= 4 * MOST_PARTS * threads
    most = max(alone, more_than) if rows else compiler.limits.chunk  # tokens of the runs that have floats

    def grid(run: Run) -> Grid | None:
        return (-(-width // wide), run.tokens, 1) if more_than < run.tokens <= most else None

    more = {"q8": compiler.arena.quantised(out) if coded else None} if whole else {"part": part}
    compiler.dispatch("gated" if whole else "gated_any", {**constants, **more}, [], grid)
    if rows:
        sizes = {"halves": compiler.arena.halved(out), "threads": threads, "parts": -(-width // (4 * threads))}
        compiler.dispatch("gated_row", {**constants, **sizes}, [], lambda run: (1, run.tokens, 1) if run.tokens > most else None)
    compiler.written(out)
    if coded:
        compiler.mark_quantised(out, most)
    if rows:
        compiler.mark_halved(out, most)


@RULES.rule(ops.SplitHeads)
def split_heads(compiler: Compiler, op: ops.SplitHeads) -> None:
    parts, start = [], 0
    for out in op.outs:
        parts.append((start, out.width // op.heads, compiler.at(out)))
        start += out.width // op.heads
    constants = {"x": compiler.at(op.x), "width": start, "columns": op.x.width, "parts": parts}
    compiler.dispatch("split_heads", constants, [], lambda run: (-(-op.x.width // 64), run.tokens, 1))
    for out in op.outs:
        compiler.written(out)


@RULES.rule(ops.GatedDelta)
def gated_delta(compiler: Compiler, op: ops.GatedDelta) -> None:
    """A workgroup for each head and block of columns, which walks the tokens of a row."""
    blocks = -(-op.value_width // DELTA_COLUMNS)
    constants = {name: compiler.at(getattr(op, name)) for name in ("q", "k", "v", "decay", "beta", "out")} | {
        "heads": op.heads, "key_heads": op.key_heads, "rows": op.key_width, "width": op.value_width, "tiled": op.tiled,
        "by_row": op.by_row, "log_rate": op.log_rate, "scale": op.scale, "eps": op.eps, "columns": DELTA_COLUMNS,
        "teams": DELTA_TEAMS, "each": -(-op.key_width // DELTA_TEAMS), "blocks": blocks,
        "fixed_group": compiler.fixed_group(op.state),
    }  # fmt: skip
    vectors = [compiler.vector(name) for name in (op.rate, op.bias)]
    compiler.dispatch(
        "gated_delta", constants, [compiler.states.buffers[op.state], *vectors], lambda run: (op.heads * blocks, run.parts, 1)
    )
    compiler.written(op.out)


@RULES.rule(ops.ShortConvolution)
def short_convolution(compiler: Compiler, op: ops.ShortConvolution) -> None:
    width = op.x.width
    constants = {
        "x": compiler.at(op.x), "out": compiler.at(op.out), "width": width, "taps": compiler.program.weights[op.weight][1],
        "fixed_group": compiler.fixed_group(op.state), "biased": op.bias is not None,
    }  # fmt: skip
    weights = [compiler.vector(name) for name in (op.weight, op.bias) if name is not None]
    units = compiler.states.buffers[op.state]
    compiler.dispatch("short_convolution", constants, [units, *weights], lambda run: (-(-width // 64), run.parts, 1))
    compiler.written(op.out)
