"""Checks a program before any backend sees it: shapes agree, nothing is read before it is written."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lacewing.program import attention_checks, check_streams, expert_checks, ops
from lacewing.program.checker import Checker, ProgramError, equal_heads, in_place, require
from lacewing.program.operands import Op
from lacewing.program.program import Program
from lacewing.program.states import Q8_BLOCK

ACTIVATIONS = ("silu", "gelu_tanh", "sigmoid", "none")
SINGLE_ACTIVATIONS = ("relu2", "silu", "gelu", "gelu_tanh", "sigmoid", "softplus", "xielu")


def check_program(program: Program) -> None:
    """Raise ProgramError, naming the op, for the first thing in `program` that does not fit."""
    checker = Checker(program)
    for index, op in enumerate(program.ops):
        try:
            checker.check(op, rule_of(op))
        except ProgramError as error:
            raise ProgramError(f"op {index} {op}: {error}") from None
    checker.finish()


def rule_of(op: Op) -> Callable[[Checker, Any], None]:
    """Raises ProgramError for a kind without one."""
    if type(op) not in RULES:
        raise ProgramError("is of a kind that the checker does not know")
    return RULES[type(op)]


def _embed(c: Checker, op: ops.Embed) -> None:
    c.weight(op.weight, c.program.vocab_size, op.out.width)
    require(math.isfinite(op.scale), f"scale {op.scale}")


def _norm(c: Checker, op: ops.Norm) -> None:
    equal_heads(op.x, op.heads)
    require(op.out.width == op.x.width, f"out has width {op.out.width}, x {op.x.width}")
    in_place(op.out, op.x, "x")
    require(op.eps > 0, f"eps {op.eps}")
    if op.weight is not None:
        whole = tuple(c.program.weights.get(op.weight, ())) == (op.x.width,)
        c.weight(op.weight, op.x.width if whole else op.x.width // op.heads)
    if op.bias is not None:
        c.weight(op.bias, op.x.width // op.heads)


def _add_norm(c: Checker, op: ops.AddNorm) -> None:
    require(op.out.width == op.x.width == op.add.width, f"widths differ: x {op.x.width}, add {op.add.width}, out {op.out.width}")
    require(not op.add.overlaps(op.x), "add overlaps x")
    require(not op.out.overlaps(op.x), "out must lie apart from x")
    require(op.eps > 0 and math.isfinite(op.scale), f"eps {op.eps}, scale {op.scale}")
    for weight in (op.weight, op.bias):
        if weight is not None:
            c.weight(weight, op.x.width)


def _linear(c: Checker, op: ops.Linear) -> None:
    require(len(op.weights) == len(op.outs) > 0, f"{len(op.weights)} weights for {len(op.outs)} outs")
    require(len(op.biases) in (0, len(op.outs)), f"{len(op.biases)} biases for {len(op.outs)} outs")
    for index, (weight, out) in enumerate(zip(op.weights, op.outs, strict=True)):
        c.weight(weight, out.width, op.x.width)
        require(not any(out.overlaps(other) for other in (op.x, *op.outs[:index])), f"{ops.show(out)} overlaps x or another out")
    for bias, out in zip(op.biases, op.outs, strict=False):
        if bias is not None:
            c.weight(bias, out.width)


def _rope(c: Checker, op: ops.Rope) -> None:
    equal_heads(op.x, op.heads)
    head = op.x.width // op.heads
    require(0 <= op.start < head, f"start {op.start} in a head of {head} values")
    require(0 < 2 * len(op.rope.frequencies) <= head - op.start, f"{len(op.rope.frequencies)} pairs in a head of {head} values")
    require(all(map(math.isfinite, (*op.rope.frequencies, op.rope.magnitude))), "a frequency is not finite")


def _hadamard(c: Checker, op: ops.Hadamard) -> None:
    equal_heads(op.x, op.heads)
    require(op.size >= Q8_BLOCK and op.size & (op.size - 1) == 0, f"size {op.size} is no power of two from {Q8_BLOCK} on")
    require(op.x.width // op.heads % op.size == 0, f"a head of {op.x.width // op.heads} values is not whole runs of {op.size}")


def _short_convolution(c: Checker, op: ops.ShortConvolution) -> None:
    state = c.fixed(op.state)
    require(len(state.parts) == 1 and state.parts[0][0] == "conv", f"state {op.state} has the parts {state.parts}")
    before, width = state.parts[0][1]
    require(before >= 1 and op.x.width == op.out.width == width, f"x has width {op.x.width}, out {op.out.width}, the state {width}")
    in_place(op.out, op.x, "x")
    c.weight(op.weight, width, before + 1)
    if op.bias is not None:
        c.weight(op.bias, width)


def _gated_delta(c: Checker, op: ops.GatedDelta) -> None:
    state = c.fixed(op.state)
    require(1 <= op.key_heads <= op.heads and op.heads % op.key_heads == 0, f"{op.heads} heads over {op.key_heads} key heads")
    for view, heads in ((op.q, op.key_heads), (op.k, op.key_heads), (op.v, op.heads), (op.decay, op.heads), (op.out, op.heads)):
        equal_heads(view, heads)
    widths = op.key_width, op.value_width
    require(op.q.width == op.k.width and op.out.width == op.v.width, "q and k, or v and out, differ in width")
    require(op.beta.width == op.heads, f"beta has width {op.beta.width} for {op.heads} heads")
    require(op.decay.width in (op.heads, op.heads * widths[0]), f"decay has width {op.decay.width}")
    require(state.parts == (("delta", (op.heads, *widths)),), f"state {op.state} has the parts {state.parts}")
    require(op.eps > 0 and op.scale > 0 and math.isfinite(op.scale), f"eps {op.eps}, scale {op.scale}")
    require(not any(op.out.overlaps(view) for view in op.reads), "out overlaps what is read")
    c.weight(op.rate, op.heads)
    c.weight(op.bias, op.decay.width)


def _selective_scan(c: Checker, op: ops.SelectiveScan) -> None:
    state = c.fixed(op.state)
    equal_heads(op.x, op.heads)
    require(op.groups >= 1 and op.heads % op.groups == 0, f"{op.heads} heads do not divide over {op.groups} groups")
    require(op.b.width == op.c.width and op.b.width % op.groups == 0, f"b and c of {op.b.width} and {op.c.width} values")
    require(op.dt.width == op.heads, f"{op.dt.width} time steps for {op.heads} heads")
    shape = (op.heads, op.b.width // op.groups, op.x.width // op.heads)
    require(state.parts == (("scan", shape),), f"state {op.state} has the parts {state.parts}, this op needs scan {shape}")
    require(op.out.width == op.x.width, f"out has width {op.out.width}, x {op.x.width}")
    in_place(op.out, op.x, "x")
    require(not any(op.out.overlaps(view) for view in (op.b, op.c, op.dt)), "out overlaps b, c or dt")
    require(0 <= op.limits[0] <= op.limits[1], f"limits {op.limits}")
    for name in op.weight_names:
        c.weight(name, op.heads)


def _split_heads(c: Checker, op: ops.SplitHeads) -> None:
    require(op.heads >= 1 and all(out.width % op.heads == 0 for out in op.outs), f"a width is not {op.heads} equal heads")
    require(sum(out.width for out in op.outs) == op.x.width, f"the parts are not the {op.x.width} columns of x")
    for index, out in enumerate(op.outs):
        require(not any(out.overlaps(view) for view in (op.x, *op.outs[:index])), f"{ops.show(out)} overlaps x or another out")


def _gated_activation(c: Checker, op: ops.GatedActivation) -> None:
    require(op.activation in ACTIVATIONS, f"activation {op.activation!r} is none of {', '.join(ACTIVATIONS)}")
    require(op.up.width % op.gate.width == 0, f"gate has {op.gate.width} values for {op.up.width}")
    require(op.up.width == op.out.width, "up and out differ in width")
    in_place(op.out, op.gate, "gate")
    in_place(op.out, op.up, "up")


def _activation(c: Checker, op: ops.Activation) -> None:
    require(op.function in SINGLE_ACTIVATIONS, f"function {op.function!r} is none of {', '.join(SINGLE_ACTIVATIONS)}")
    require(op.x.width == op.out.width, f"out has width {op.out.width}, x {op.x.width}")
    in_place(op.out, op.x, "x")
    wanted = 4 if op.function == "xielu" else 0
    require(len(op.constants) == wanted and all(map(math.isfinite, op.constants)), f"constants {op.constants} of {op.function}")


def _clamped_activation(c: Checker, op: ops.ClampedActivation) -> None:
    require(op.limit > 0 and math.isfinite(op.alpha), f"limit {op.limit}, alpha {op.alpha}")
    require(op.gate.width == op.up.width == op.out.width, "gate, up and out differ in width")
    in_place(op.out, op.gate, "gate")
    require(not op.out.overlaps(op.up), "out overlaps up")


def _limited_activation(c: Checker, op: ops.LimitedActivation) -> None:
    require(op.limit > 0 and math.isfinite(op.limit), f"limit {op.limit}")
    require(op.gate.width == op.up.width == op.out.width, "gate, up and out differ in width")
    in_place(op.out, op.gate, "gate")
    in_place(op.out, op.up, "up")


def _scale_by_position(c: Checker, op: ops.ScaleByPosition) -> None:
    require(op.length >= 1 and op.offset >= 0, f"length {op.length}, offset {op.offset}")
    require(math.isfinite(op.beta), f"beta {op.beta}")


def _head_linear(c: Checker, op: ops.HeadLinear) -> None:
    for view in (op.x, op.out):
        equal_heads(view, op.heads)
    shape = tuple(c.program.weights.get(op.weight, ()))
    require(len(shape) == 3, f"weight {op.weight} is listed as {shape}; it must have three axes")
    outputs, inputs = (shape[2], shape[1]) if op.transposed else (shape[1], shape[2])
    c.weight(op.weight, op.heads, *shape[1:])
    rest = op.x.width // op.heads - inputs
    require(rest >= 0 and op.out.width // op.heads - outputs == rest, f"heads of x and out do not fit {shape}")
    require(not op.x.overlaps(op.out), "out overlaps x")


def _logits(c: Checker, op: ops.Logits) -> None:
    c.weight(op.weight, c.program.vocab_size, op.x.width)
    require(op.softcap is None or op.softcap > 0, f"softcap {op.softcap}")
    if op.bias is not None:
        c.weight(op.bias, c.program.vocab_size)
    c.finished = True


def _receive(c: Checker, op: ops.Receive) -> None:
    require(not any(a.overlaps(b) for i, a in enumerate(op.outs) for b in op.outs[:i]), "outs overlap")
    c.sent = False


def _send(c: Checker, op: ops.Send) -> None:
    c.sent = True


RULES: dict[type[Op], Callable[[Checker, Any], None]] = {
    ops.Embed: _embed,
    ops.Norm: _norm,
    ops.AddNorm: _add_norm,
    ops.Linear: _linear,
    ops.Rope: _rope,
    ops.Hadamard: _hadamard,
    ops.WriteKeysValues: attention_checks.write_keys_values,
    ops.ScaleByPosition: _scale_by_position,
    ops.HeadLinear: _head_linear,
    ops.SelectKeys: attention_checks.select_keys,
    ops.Attention: attention_checks.attention,
    ops.ShortConvolution: _short_convolution,
    ops.GatedDelta: _gated_delta,
    ops.SplitHeads: _split_heads,
    ops.SelectiveScan: _selective_scan,
    ops.GatedActivation: _gated_activation,
    ops.Activation: _activation,
    ops.ClampedActivation: _clamped_activation,
    ops.LimitedActivation: _limited_activation,
    **expert_checks.RULES,
    ops.Logits: _logits,
    ops.Receive: _receive,
    ops.Send: _send,
    **check_streams.RULES,
}

unknown = {kind for kind in Op.__subclasses__() if kind.__module__.startswith("lacewing.program.")} - set(RULES)
if unknown:
    raise TypeError(f"the checker has no rule for {sorted(kind.__name__ for kind in unknown)}")
