"""Checks a program before any backend sees it: shapes agree, nothing is read before it is written."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lacewing.program import ops
from lacewing.program.ops import Op, View
from lacewing.program.program import Program

ACTIVATIONS = ("silu", "gelu_tanh")
GATINGS = ("softmax", "sigmoid")


class ProgramError(ValueError):
    """A program contradicts itself: a mistake in our own model code, never in a person's file."""


def check_program(program: Program) -> None:
    """Raise ProgramError, naming the op, for the first thing in `program` that does not fit."""
    checker = _Checker(program)
    for index, op in enumerate(program.ops):
        try:
            checker.check(op)
        except ProgramError as error:
            raise ProgramError(f"op {index} {op}: {error}") from None
    checker.finish()


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise ProgramError(problem)


def _overlap(a: View, b: View) -> bool:
    return a.buffer.name == b.buffer.name and a.start < b.start + b.width and b.start < a.start + a.width


class _Checker:
    """Walks the ops once, remembering which columns have been written and which weights and layers have been used."""

    def __init__(self, program: Program):
        self.program = program
        self.written: dict[str, np.ndarray] = {}  # buffer name: bool (width,)
        self.used: set[str] = set()
        self.stored: set[int] = set()
        self.attended: set[int] = set()
        self.routed: dict[View, int | None] = {}  # views that hold ids: of how many experts, None: another device knows
        self.finished = self.sent = False

    def check(self, op: Op) -> None:
        _require(not self.finished, "stands after the logits")
        _require(not self.sent or isinstance(op, ops.Receive), "stands between two stages")
        rule = _RULES.get(type(op))
        if rule is None:
            raise ProgramError("is of a kind that the checker does not know")
        for view in op.views(op.reads) + op.views(op.writes):
            self.columns(view)
        for view in op.views(op.reads):
            _require(bool(self.columns(view).all()), f"{ops.show(view)} is read before it is written")
        rule(self, op)
        for view in op.views(op.writes):
            self.columns(view)[:] = True
            self.routed = {ids: experts for ids, experts in self.routed.items() if not _overlap(ids, view)}
        if isinstance(op, ops.Route):
            self.routed[op.ids] = op.logits.width
        elif isinstance(op, ops.Allot):
            self.routed |= {op.here: op.held, op.there: op.experts}
        elif isinstance(op, ops.Receive):
            self.routed |= dict.fromkeys(op.outs)

    def columns(self, view: View) -> np.ndarray:
        """The written flags of a view's columns; checks that the view lies in its buffer."""
        buffer = view.buffer
        flags = self.written.setdefault(buffer.name, np.zeros(max(buffer.width, 0), bool))
        _require(len(flags) == buffer.width, f"buffer {buffer.name} has width {buffer.width} here and {len(flags)} before")
        inside = view.start >= 0 and view.width > 0 and view.start + view.width <= buffer.width
        _require(inside, f"{ops.show(view)} does not lie in its buffer of width {buffer.width}")
        return flags[view.start : view.start + view.width]

    def weight(self, name: str, *shape: int) -> None:
        _require(name in self.program.weights, f"weight {name} is not listed in the program")
        listed = tuple(self.program.weights[name])
        _require(listed == shape, f"weight {name} is listed as {listed}, this op needs {shape}")
        self.used.add(name)

    def layer(self, index: int) -> Any:
        _require(0 <= index < len(self.program.layers), f"layer {index} of {len(self.program.layers)}")
        return self.program.layers[index]

    def finish(self) -> None:
        """What only the whole program can tell."""
        _require(self.finished or self.sent, "the program has no logits")
        unused = sorted(set(self.program.weights) - self.used)
        _require(not unused, f"the program lists weights that no op uses: {', '.join(unused[:8])}")
        idle = sorted(set(range(len(self.program.layers))) - self.attended)
        _require(not idle, f"no attention reads the keys and values of layers {idle[:8]}")


def _embed(c: _Checker, op: ops.Embed) -> None:
    c.weight(op.weight, c.program.vocab_size, op.out.width)
    _require(math.isfinite(op.scale), f"scale {op.scale}")


def _norm(c: _Checker, op: ops.Norm) -> None:
    _require(op.heads >= 1 and op.x.width % op.heads == 0, f"width {op.x.width} is not {op.heads} equal heads")
    _require(op.out.width == op.x.width, f"out has width {op.out.width}, x {op.x.width}")
    _require(op.out == op.x or not _overlap(op.out, op.x), "out must be x itself or lie apart from it")
    _require(op.eps > 0, f"eps {op.eps}")
    if op.weight is not None:
        c.weight(op.weight, op.x.width // op.heads)
    if op.add is not None:
        _require(op.add.width == op.x.width, f"add has width {op.add.width}, x {op.x.width}")
        _require(not _overlap(op.add, op.x), "add overlaps x")
        _require(not _overlap(op.out, op.x), "out must lie apart from x where add is given")


def _linear(c: _Checker, op: ops.Linear) -> None:
    _require(len(op.weights) == len(op.outs) > 0, f"{len(op.weights)} weights for {len(op.outs)} outs")
    _require(len(op.biases) in (0, len(op.outs)), f"{len(op.biases)} biases for {len(op.outs)} outs")
    for index, (weight, out) in enumerate(zip(op.weights, op.outs, strict=True)):
        c.weight(weight, out.width, op.x.width)
        _require(not any(_overlap(out, other) for other in (op.x, *op.outs[:index])), f"{ops.show(out)} overlaps x or another out")
    for bias, out in zip(op.biases, op.outs, strict=False):
        if bias is not None:
            c.weight(bias, out.width)


def _rope(c: _Checker, op: ops.Rope) -> None:
    _require(op.heads >= 1 and op.x.width % op.heads == 0, f"width {op.x.width} is not {op.heads} equal heads")
    head = op.x.width // op.heads
    _require(0 <= op.start < head, f"start {op.start} in a head of {head} values")
    _require(0 < 2 * len(op.rope.frequencies) <= head - op.start, f"{len(op.rope.frequencies)} pairs in a head of {head} values")
    _require(all(map(math.isfinite, (*op.rope.frequencies, op.rope.magnitude))), "a frequency is not finite")


def _write_keys_values(c: _Checker, op: ops.WriteKeysValues) -> None:
    layer = c.layer(op.layer)
    _require(op.layer not in c.stored, f"layer {op.layer} is written twice")
    _require(op.k.width == layer.key_heads * layer.key_width, f"k has width {op.k.width}, the layer {layer}")
    if op.v is None:
        fits = layer.values_in_keys and 0 < layer.value_width <= layer.key_width
        _require(fits, f"v is None, but the values are not in the keys of the layer {layer}")
    else:
        _require(not layer.values_in_keys, f"v is given, but the values are in the keys of the layer {layer}")
        _require(op.v.width == layer.key_heads * layer.value_width, f"v has width {op.v.width}, the layer {layer}")
    c.stored.add(op.layer)


def _attention(c: _Checker, op: ops.Attention) -> None:
    layer = c.layer(op.layer)
    _require(op.layer in c.stored, f"layer {op.layer} is read before its keys and values are written")
    _require(op.key_heads == layer.key_heads, f"{op.key_heads} key heads, the layer has {layer.key_heads}")
    _require(op.key_heads >= 1 and op.heads % op.key_heads == 0, f"{op.heads} heads over {op.key_heads} key heads")
    _require(op.q.width == op.heads * layer.key_width, f"q has width {op.q.width}")
    _require(op.out.width == op.heads * layer.value_width, f"out has width {op.out.width}")
    _require(not _overlap(op.q, op.out), "out overlaps q")
    _require(op.scale > 0 and math.isfinite(op.scale), f"scale {op.scale}")
    _require(op.softcap is None or op.softcap > 0, f"softcap {op.softcap}")
    _require(op.window is None or op.window >= 1, f"window {op.window}")
    _require(op.chunk is None or op.chunk >= 1, f"chunk {op.chunk}")
    seen = min(op.window or math.inf, op.chunk or math.inf)
    _require(seen <= (layer.window or math.inf), f"window {op.window} is wider than what the layer keeps, {layer.window}")
    if op.sinks is not None:
        c.weight(op.sinks, op.heads)
    c.attended.add(op.layer)


def _gated_activation(c: _Checker, op: ops.GatedActivation) -> None:
    _require(op.activation in ACTIVATIONS, f"activation {op.activation!r} is none of {', '.join(ACTIVATIONS)}")
    _gate_and_up(op)


def _clamped_activation(c: _Checker, op: ops.ClampedActivation) -> None:
    _require(op.limit > 0 and math.isfinite(op.alpha), f"limit {op.limit}, alpha {op.alpha}")
    _gate_and_up(op)


def _gate_and_up(op: ops.GatedActivation | ops.ClampedActivation) -> None:
    _require(op.gate.width == op.up.width == op.out.width, "gate, up and out differ in width")
    _require(op.out == op.gate or not _overlap(op.out, op.gate), "out must be gate itself or lie apart from it")
    _require(not _overlap(op.out, op.up), "out overlaps up")


def _scale_by_position(c: _Checker, op: ops.ScaleByPosition) -> None:
    _require(op.length >= 1 and op.offset >= 0, f"length {op.length}, offset {op.offset}")
    _require(math.isfinite(op.beta), f"beta {op.beta}")


def _head_linear(c: _Checker, op: ops.HeadLinear) -> None:
    for view in (op.x, op.out):
        _require(op.heads >= 1 and view.width % op.heads == 0, f"width {view.width} is not {op.heads} equal heads")
    shape = tuple(c.program.weights.get(op.weight, ()))
    _require(len(shape) == 3, f"weight {op.weight} is listed as {shape}; it must have three axes")
    outputs, inputs = (shape[2], shape[1]) if op.transposed else (shape[1], shape[2])
    c.weight(op.weight, op.heads, *shape[1:])
    rest = op.x.width // op.heads - inputs
    _require(rest >= 0 and op.out.width // op.heads - outputs == rest, f"heads of x and out do not fit {shape}")
    _require(not _overlap(op.x, op.out), "out overlaps x")


def _route(c: _Checker, op: ops.Route) -> None:
    experts, active = op.logits.width, op.ids.width
    _require(1 <= active <= experts, f"{active} active of {experts} experts")
    _require(op.weights.width == active, f"{op.weights.width} weights for {active} ids")
    views = (op.logits, op.ids, op.weights)
    _require(not any(_overlap(a, b) for i, a in enumerate(views) for b in views[:i]), "logits, ids and weights overlap")
    _require(op.gating in GATINGS, f"gating {op.gating!r} is none of {', '.join(GATINGS)}")
    _require(op.groups >= 1 and experts % op.groups == 0, f"{experts} experts in {op.groups} groups")
    size = experts // op.groups
    _require(1 <= op.groups_used <= op.groups, f"{op.groups_used} of {op.groups} groups")
    _require(active <= op.groups_used * size, f"{active} active experts from {op.groups_used} groups of {size}")
    _require(op.group_best in (1, 2) and (op.groups == 1 or op.group_best <= size), f"the best {op.group_best} of {size}")
    _require(math.isfinite(op.scale), f"scale {op.scale}")
    if op.bias is not None:
        c.weight(op.bias, experts)


def _expert_linear(c: _Checker, op: ops.ExpertLinear) -> None:
    active = op.ids.width
    _require(op.ids in c.routed, f"{ops.show(op.ids)} does not hold the ids of a Route")
    experts = c.routed[op.ids] or next(iter(c.program.weights.get(op.weights[0], ())), 0)
    inputs, rest = divmod(op.x.width, active if op.separate else 1)
    _require(rest == 0 and all(out.width % active == 0 for out in op.outs), f"a width is not {active} equal parts")
    outputs = [out.width // active for out in op.outs]
    if (len(op.weights), len(op.outs)) == (1, 2):
        _require(outputs[0] == outputs[1], "the two outs differ in width")
        outputs = [2 * outputs[0]]
    else:
        _require(len(op.weights) == len(op.outs) > 0, f"{len(op.weights)} weights for {len(op.outs)} outs")
        _require(not op.interleaved, "interleaved needs one weight with two outs")
    _require(len(op.biases) in (0, len(op.weights)), f"{len(op.biases)} biases for {len(op.weights)} weights")
    for weight, output in zip(op.weights, outputs, strict=True):
        c.weight(weight, experts, *((inputs, output) if op.transposed else (output, inputs)))
    for bias, output in zip(op.biases, outputs, strict=False):
        if bias is not None:
            c.weight(bias, experts, output)
    _require(op.factor is None or op.factor.width == active, "factor is not one value an active expert")
    for index, out in enumerate(op.outs):
        _require(not any(_overlap(out, view) for view in (*op.views(op.reads), *op.outs[:index])), f"{ops.show(out)} overlaps")


def _allot(c: _Checker, op: ops.Allot) -> None:
    _require(op.ids in c.routed, f"{ops.show(op.ids)} does not hold the ids of a Route")
    _require(c.routed[op.ids] in (None, op.experts), f"{op.experts} experts, the router has {c.routed[op.ids]}")
    _require(1 <= op.held < op.experts, f"{op.held} of {op.experts} experts are held")
    _require(op.here.width == op.there.width == op.ids.width, "ids, here and there differ in width")
    views = (op.ids, op.here, op.there)
    _require(not any(_overlap(a, b) for i, a in enumerate(views) for b in views[:i]), "ids, here and there overlap")


def _combine(c: _Checker, op: ops.Combine) -> None:
    _require(op.active >= 1 and op.x.width == op.active * op.out.width, f"x has width {op.x.width}, out {op.out.width}")
    _require(op.weights is None or op.weights.width == op.active, "weights are not one value an active expert")
    _require(op.ids is None or (op.ids in c.routed and op.ids.width == op.active), "ids are not those of the active experts")
    _require(op.add is None or op.add.width == op.out.width, "add and out differ in width")
    _require(op.add is None or op.add == op.out or not _overlap(op.add, op.out), "add must be out itself or lie apart from it")
    read = (view for view in (op.x, op.weights, op.ids) if view is not None)
    _require(not any(_overlap(op.out, view) for view in read), "out overlaps x, weights or ids")


def _logits(c: _Checker, op: ops.Logits) -> None:
    c.weight(op.weight, c.program.vocab_size, op.x.width)
    _require(op.softcap is None or op.softcap > 0, f"softcap {op.softcap}")
    c.finished = True


def _receive(c: _Checker, op: ops.Receive) -> None:
    _require(not any(_overlap(a, b) for i, a in enumerate(op.outs) for b in op.outs[:i]), "outs overlap")
    c.sent = False


def _send(c: _Checker, op: ops.Send) -> None:
    c.sent = True


_RULES: dict[type[Op], Callable[[_Checker, Any], None]] = {
    ops.Embed: _embed,
    ops.Norm: _norm,
    ops.Linear: _linear,
    ops.Rope: _rope,
    ops.WriteKeysValues: _write_keys_values,
    ops.ScaleByPosition: _scale_by_position,
    ops.HeadLinear: _head_linear,
    ops.Attention: _attention,
    ops.GatedActivation: _gated_activation,
    ops.ClampedActivation: _clamped_activation,
    ops.Route: _route,
    ops.Allot: _allot,
    ops.ExpertLinear: _expert_linear,
    ops.Combine: _combine,
    ops.Logits: _logits,
    ops.Receive: _receive,
    ops.Send: _send,
}
