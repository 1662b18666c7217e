"""Rewriting a mixture so that two devices share the experts of a layer: some are
resident on one, the other computes with all that are left.

Of each such layer, from its router to its sum, comes

    Route                                  as before
    Dispatch                               which of the chosen experts are resident
    experts, over smaller stacks; Combine  the resident ones, with what else is added
    experts, over all stacks; Combine      the others
    Combine                                the two sums

so that neither waits for the other, and a run need not know beforehand what is resident.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from lacewing.backends.weights import TensorSpec
from lacewing.program.ops import Buffer, Combine, Dispatch, ExpertLinear, Op, Route
from lacewing.program.program import Program
from lacewing.quants.base import Quant

_RESIDENT = " (resident)"
TRUNK, DISPATCH, RESIDENT, OTHERS = "trunk", "dispatch", "resident", "others"  # whose work an op of a shared layer is


@dataclass(frozen=True)
class SharedExperts:
    """`sides`: of each op of `program` one of the four, None: it is of no shared layer's experts."""

    program: Program
    sides: tuple[str | None, ...]


def resident_name(name: str) -> str:
    """The stack of those experts of a weight that are resident."""
    return name + _RESIDENT


def source_name(name: str) -> str:
    """The weight that a name is of, resident or not."""
    return name.removesuffix(_RESIDENT)


def share_experts(program: Program, layers: Sequence[int | None], resident: Mapping[int, int]) -> SharedExperts:
    """`layers`: of each op the layer whose chosen experts it is about, None: of none; those of a layer must stand together (see
    `layers.experts_together`). `resident`: how many experts of which layers; of each fewer than it has."""
    ops: list[Op] = []
    sides: list[str | None] = []
    weights = dict(program.weights)
    index = 0
    while index < len(program.ops):
        layer, end = layers[index], index + 1
        if layer is None or layer not in resident:
            ops.append(program.ops[index])
            sides.append(None)
        else:
            while end < len(layers) and layers[end] == layer:
                end += 1
            for op, side in _layer(program.ops[index:end], resident[layer]):
                ops.append(op)
                sides.append(side)
                if side == RESIDENT and isinstance(op, ExpertLinear):
                    for name in op.weight_names:
                        weights[name] = (resident[layer], *program.weights[source_name(name)][1:])
        index = end
    return SharedExperts(replace(program, ops=tuple(ops), weights=weights), tuple(sides))


def _layer(ops: Sequence[Op], resident: int) -> list[tuple[Op, str]]:
    route, inner, combine = ops[0], ops[1:-1], ops[-1]
    if not isinstance(route, Route) or not isinstance(combine, Combine):
        raise ValueError("the experts of a layer do not stand together")
    active, width = route.ids.width, combine.out.width
    here, there = Buffer("ids of resident experts", active).view(), Buffer("ids of other experts", active).view()
    rest = Buffer("sum of other experts", width).view()
    other = [_with(op, lambda op: replace(op, ids=there)) for op in inner]
    return [
        (route, TRUNK),
        (Dispatch(route.ids, here, there, route.logits.width, resident), DISPATCH),
        *((_with(op, lambda op: replace(op, ids=here).with_weights(resident_name)), RESIDENT) for op in inner),
        (replace(combine, ids=here), RESIDENT),
        *((op, OTHERS) for op in other),
        (replace(combine, out=rest, ids=there, add=None), OTHERS),
        (Combine(rest, None, combine.out, 1, combine.out), TRUNK),
    ]


def _with(op: Op, change: Callable[[ExpertLinear], Op]) -> Op:
    return change(op) if isinstance(op, ExpertLinear) else op


@dataclass(frozen=True)
class _SomeExperts:
    """The spec of the first experts of a stack; see `backends.weights.TensorSpec`."""

    whole: TensorSpec
    count: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.count, *self.whole.shape[1:])

    @property
    def quant(self) -> Quant:
        return self.whole.quant

    @property
    def nbytes(self) -> int:
        return -(-self.whole.nbytes * self.count // self.whole.shape[0])

    @property
    def scales(self) -> object:
        return self.whole.scales

    @property
    def scale_block(self) -> tuple[int, int]:
        return self.whole.scale_block


def resident_specs(program: Program, tensors: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    """The specs of a program's weights, those of stacks of resident experts among them."""
    found: dict[str, TensorSpec] = {}
    for name, shape in program.weights.items():
        whole = tensors[source_name(name)]
        found[name] = whole if name == source_name(name) else _SomeExperts(whole, shape[0])
    return found
