"""From the program to lowered ops: one rule for each kind of op, and what is fused.

Fused: the quantisation of an activation into the op that makes it; QK norm, rotation and storing of a head into one pass.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lacewing.backends.base import StepLimits, WeightView
from lacewing.backends.cpu import lower_experts, lower_scaled
from lacewing.backends.cpu.addresses import of_either_order, of_rows
from lacewing.backends.cpu.arguments import ANGLES, ATTENTION, CAP, EMBED, GATED, GATHER, LINEAR, NORM, QUANTISE, ROWS, SCALE
from lacewing.backends.cpu.heads import HeadJobs
from lacewing.backends.cpu.isa import host_isa
from lacewing.backends.cpu.plan import LoweredOp, Memory, Word, aligned, double_word, float_word
from lacewing.backends.cpu.quants import TileKernels, kernels_of
from lacewing.backends.cpu.stages import Stage, Staging
from lacewing.errors import UnsupportedModelError
from lacewing.program import ops
from lacewing.program.ops import Op, RopeSpec, View
from lacewing.program.program import Program
from lacewing.quants.base import Quant

MAX_QUERIES = 32  # kernels/attention.py
MAX_HEAD_WIDTHS = 1800  # of key and value together: (MAX_QUERIES * (widths + 128 + 17)) float32 fit SCRATCH_BYTES
MAX_GENERIC_WIDTH = 65_000  # a dequantised row fits it, too


class Lowering(Staging):
    """Walks the program once. `ops`: the result; `kernels`: the names that it needs beyond those of the ops themselves."""

    def __init__(self, program: Program, weights: Mapping[str, WeightView], limits: StepLimits):
        self.program, self.weights, self.limits = program, weights, limits
        self.memory = Memory(limits.chunk)
        self.ops: list[LoweredOp] = []
        self.extra: set[str] = set()  # kernels called by other kernels
        self.heads = HeadJobs(self)
        self.fusable: dict[View, LoweredOp] = {}  # who could quantise a view
        self.quantised: dict[tuple[View, int], int] = {}  # views (in so many parts) whose bytes are up to date, and where
        self.keys: list[np.ndarray] = []
        self.values: list[np.ndarray] = []
        self.addresses: dict[str, int] = {}  # of kernels; filled when they are loaded
        self.angle_tables: dict[RopeSpec, int] = {}
        self.routers: list[lower_experts.WatchedRouter] = []
        self.layer = 0  # of the attention that was lowered last
        self.stages: list[Stage] = []  # none: the program is not a part of one
        self.head_groups: set[int] = set()  # addresses of what `route.all_heads` makes
        self.sorted: set[View] = set()  # ids whose pairs are sorted by expert
        self._store_memory()
        for position, op in enumerate(program.ops):
            rule = getattr(self, f"lower_{type(op).__name__}", None)
            if rule is None:
                raise UnsupportedModelError(f"the CPU backend has no rule for the op {op.kind}")
            if not isinstance(op, (ops.Rope, ops.WriteKeysValues, ops.Norm)):
                self.heads.flush()
            rule(op, program.ops[position + 1 :])

    @property
    def kind(self) -> str:
        """How kernels name the precision of keys and values."""
        return "f16" if self.program.kv_itemsize == 2 else "f32"

    def _store_memory(self) -> None:
        """Keys and values: zeros, because attention multiplies what lies behind the last position by zero."""
        lanes, context, slots = host_isa().lanes, self.limits.context, self.limits.slots
        precision = np.float16 if self.program.kv_itemsize == 2 else np.float32
        for layer in self.program.layers:
            blocks = -(-context // lanes) * lanes
            self.keys.append(np.zeros(slots * layer.key_heads * blocks * layer.key_width, precision))
            stored = 0 if layer.values_in_keys else slots * layer.key_heads * context * layer.value_width + lanes
            self.values.append(np.zeros(stored, precision))

    def emit(self, op: LoweredOp, *written: View) -> LoweredOp:
        """Add an op; what was known of the buffers that it writes is forgotten."""
        self.ops.append(op)
        self.forget(written)
        return op

    def forget(self, written: tuple[View, ...]) -> None:
        buffers = {view.buffer for view in written}
        self.fusable = {view: by for view, by in self.fusable.items() if view.buffer not in buffers}
        self.quantised = {key: at for key, at in self.quantised.items() if key[0].buffer not in buffers}

    # ---- operands ----

    def at(self, view: View) -> int:
        return self.memory.address(view)

    def stride(self, view: View) -> int:
        return self.memory.stride(view.buffer)

    def kernel(self, name: str) -> Word:
        self.extra.add(name)
        return lambda: self.addresses[name]

    def bytes_stride(self, width: int) -> int:
        return (width * 15 // 8 + 63) // 64 * 64

    def offsets(self, stride: int) -> int:
        """Address of where the rows of a step's tokens begin, int64, for rows `stride` bytes apart."""
        name = f"offsets {stride}"
        if name not in self.memory.kept:
            self.memory.kept[name] = aligned(8 * self.limits.chunk, np.int64)
            self.memory.kept[name][:] = stride * np.arange(self.limits.chunk)
        return int(self.memory.kept[name].ctypes.data)

    def bytes_of(self, view: View, parts: int = 1) -> int:
        """Address of the quantised form of a view, each of its `parts` a row of its own; made by the op that made the view, or
        by an op of its own."""
        if (view, parts) in self.quantised:
            return self.quantised[view, parts]
        width = view.width // parts
        stride = self.bytes_stride(width)
        area = f"{view.buffer.name}[{view.start}:{view.start + view.width}] bytes of {parts}"
        to = self.memory.area(area, self.limits.chunk * parts * stride)
        if view in self.fusable and parts == 1:
            self.fusable[view].set(bytes=to, bytes_stride=stride)
        else:
            made = self.quantise_op(view, to, stride, outputs=0)
            made.set(width=width, parts=parts)
            self.ops.append(made)
        self.quantised[view, parts] = to
        return to

    def angles(self, rope: RopeSpec) -> int:
        """The cos and sin table of a rotation, made once a step."""
        if rope not in self.angle_tables:
            pairs = len(rope.frequencies)
            frequencies = aligned(8 * pairs, np.float64)
            frequencies[:] = rope.frequencies
            self.memory.kept[f"frequencies {len(self.angle_tables)}"] = frequencies
            table = self.memory.area(f"angles {len(self.angle_tables)}", self.limits.chunk * 8 * pairs)
            magnitude, address = double_word(rope.magnitude), int(frequencies.ctypes.data)
            made = LoweredOp("heads.angles", ANGLES, frequencies=address, pairs=pairs, magnitude=magnitude, out=table)
            made.barrier = False
            self.ops.insert(0, made)
            self.angle_tables[rope] = table
        return self.angle_tables[rope]

    # ---- a rule for each kind of op ----

    def lower_Embed(self, op: ops.Embed, rest: tuple[Op, ...]) -> None:
        table, width = self.weights[op.weight], op.out.width
        quant = table.quant
        if lower_scaled.is_scaled(self, op.weight):
            self.emit(lower_scaled.embed_op(self, op), op.out)
            return
        kinds = kernels_of(quant)
        made = LoweredOp(
            "embed.embed_tiles", EMBED, row_bytes=quant.row_bytes(width), width=width,
            out=self.at(op.out), out_stride=self.stride(op.out), scale=float_word(op.scale),
            blocks=width // quant.block_elements, block_bytes=quant.block_bytes, block_columns=quant.block_elements,
        )  # fmt: skip
        if isinstance(kinds, TileKernels):
            shift = -1 if kinds.shift is None else kinds.shift
            made.set(unpack=self.kernel(kinds.unpack), sub_block=kinds.sub_block, shift=shift, **of_either_order(table))
        elif "." in kinds:
            made.kernel = "embed.embed_generic"
            made.set(unpack=self.kernel(kinds), weight=of_rows(table))
        else:
            made.kernel = f"embed.embed_{kinds}"
            made.set(weight=of_rows(table))
        self.emit(made, op.out)

    def lower_Norm(self, op: ops.Norm, rest: tuple[Op, ...]) -> None:
        if self.heads.takes_norm(op, rest):
            return
        self.heads.flush()
        made = LoweredOp(
            "norm.norm", NORM, x=self.at(op.x), x_stride=self.stride(op.x), out=self.at(op.out), out_stride=self.stride(op.out),
            width=op.x.width // op.heads, heads=op.heads, eps=float_word(op.eps),
        )  # fmt: skip
        if op.weight:
            made.set(weight=self.memory.vector(self.weights, op.weight, op.weight_offset))
        if op.add:
            made.set(add=self.at(op.add), add_stride=self.stride(op.add))
        self.emit(made, op.out, *([op.x] if op.add else []))
        self.may_quantise(made, op.out, op.out.width)

    def may_quantise(self, made: LoweredOp, out: View, piece: int) -> None:
        """`made` writes `out` in pieces of so many columns; if they are whole blocks of 32 it can quantise them as well."""
        if piece % 32 == 0:
            self.fusable[out] = made

    def quantise_op(self, x: View, to: int, to_stride: int, outputs: int) -> LoweredOp:
        at, stride = self.at(x), self.stride(x)
        return LoweredOp(
            "activations.quantise_rows",
            QUANTISE,
            x=at,
            x_stride=stride,
            width=x.width,
            to=to,
            to_stride=to_stride,
            outputs=outputs,
            parts=1,
        )

    def lower_Linear(self, op: ops.Linear, rest: tuple[Op, ...]) -> None:
        biases = op.biases or (None,) * len(op.weights)
        x_bytes = self.bytes_of(op.x) if any(self.tiled(name) for name in op.weights) else 0
        for index, (name, out, bias) in enumerate(zip(op.weights, op.outs, biases, strict=True)):
            x = x_bytes if self.tiled(name) else self.at(op.x)
            made = self.linear_op(name, x, self.stride(op.x), out=self.at(out), out_stride=self.stride(out))
            made.barrier = index == 0
            if bias:
                made.set(bias=self.memory.vector(self.weights, bias))
            self.emit(made, out)

    def tiled(self, name: str) -> bool:
        """Whether a weight runs on tiles: the others, and those with fewer rows than lanes, run in float32."""
        weight = self.weights[name]
        return isinstance(kernels_of(weight.quant), TileKernels) and weight.shape[0] >= host_isa().lanes

    def linear_op(self, name: str, x: int, x_stride: int, **words: Word) -> LoweredOp:
        """The product with a weight; x: the quantised rows if it is tiled, else the float rows, `x_stride` bytes apart."""
        if lower_scaled.is_scaled(self, name):
            return lower_scaled.linear_op(self, name, x, x_stride, **words)
        weight = self.weights[name]
        rows, width = weight.shape
        quant, kinds = weight.quant, kernels_of(weight.quant)
        words |= {"rows": rows, "row_bytes": quant.row_bytes(width), "x": x, "blocks": width // quant.block_elements}
        if isinstance(kinds, TileKernels) and self.tiled(name):
            return LoweredOp(
                "linear.linear", LINEAR, block_bytes=quant.block_bytes, block_columns=quant.block_elements,
                unpack=self.kernel(kinds.unpack), dot=self.kernel(kinds.dot), shift=kinds.shift or 0,
                x_offsets=self.offsets(self.bytes_stride(width)), x_scales=width, x_sums=int(width * kinds.sums_at),
                sum_bytes=kinds.sum_bytes, **self.single_words(kinds, quant), **of_either_order(weight), **words,
            )  # fmt: skip
        words |= {"weight": of_rows(weight), "x_stride": x_stride, "width": width, "chunk": max(4, min(64, rows // 32 // 4 * 4))}
        if isinstance(kinds, TileKernels):  # fewer rows than lanes: small enough to keep as floats
            words |= {"weight": self.memory.vector(self.weights, name), "row_bytes": 4 * width}
            return LoweredOp("rows.linear_f32", ROWS, **words)
        if "." not in kinds:
            return LoweredOp(f"rows.linear_{kinds}", ROWS, **words)
        if width > MAX_GENERIC_WIDTH:
            raise UnsupportedModelError(
                f"the CPU backend takes {quant} rows of up to {MAX_GENERIC_WIDTH} values; {name} has {width}"
            )
        return LoweredOp("rows.linear_generic", ROWS, dequantise=self.kernel(kinds), **words)

    def single_words(self, kinds: TileKernels, quant: Quant) -> dict[str, Word]:
        """The kernel for one token, where there is one."""
        if not kinds.single or host_isa().lanes < 8:
            return {}
        blocks = max(1, 8 * host_isa().lanes // quant.block_elements)
        return {"single": self.kernel(kinds.single), "tiled_single": self.kernel(kinds.tiled), "single_blocks": blocks}

    def lower_Rope(self, op: ops.Rope, rest: tuple[Op, ...]) -> None:
        self.heads.rope(op)

    def lower_WriteKeysValues(self, op: ops.WriteKeysValues, rest: tuple[Op, ...]) -> None:
        self.heads.write(op.k, op.v, op.layer)

    def lower_Attention(self, op: ops.Attention, rest: tuple[Op, ...]) -> None:
        layer, self.layer = self.program.layers[op.layer], op.layer
        if layer.key_width + layer.value_width > MAX_HEAD_WIDTHS:
            raise UnsupportedModelError(f"the CPU backend takes heads of up to {MAX_HEAD_WIDTHS // 2} values, not {layer}")
        group = op.heads // op.key_heads
        group = max(d for d in range(1, min(group, MAX_QUERIES) + 1) if group % d == 0)
        made = LoweredOp(
            f"attention.attention_{self.kind}", ATTENTION, q=self.at(op.q), q_stride=self.stride(op.q), out=self.at(op.out),
            out_stride=self.stride(op.out), heads=op.heads, key_heads=op.key_heads, key_width=layer.key_width,
            value_width=layer.value_width, keys=int(self.keys[op.layer].ctypes.data),
            values=0 if layer.values_in_keys else int(self.values[op.layer].ctypes.data), scale=float_word(op.scale),
            softcap=float_word(op.softcap or 0.0),
            window=op.window or 2**30, group=group, chunk=op.chunk or 2**30,
            sinks=self.memory.vector(self.weights, op.sinks) if op.sinks else 0,
        )  # fmt: skip
        self.emit(made, op.out)
        self.may_quantise(made, op.out, layer.value_width)

    def lower_GatedActivation(self, op: ops.GatedActivation, rest: tuple[Op, ...]) -> None:
        made = LoweredOp(
            f"elementwise.gated_{op.activation}", GATED, gate=self.at(op.gate), gate_stride=self.stride(op.gate),
            up=self.at(op.up), up_stride=self.stride(op.up), out=self.at(op.out), out_stride=self.stride(op.out),
            width=op.out.width,
        )  # fmt: skip
        self.emit(made, op.out)
        self.may_quantise(made, op.out, op.out.width)

    def lower_Logits(self, op: ops.Logits, rest: tuple[Op, ...]) -> None:
        vocab, width, chunk = self.program.vocab_size, op.x.width, self.limits.chunk
        out = self.memory.area("logits", 4 * chunk * vocab + 64 * host_isa().lanes)
        stride = self.stride(op.x)
        if self.tiled(op.weight):
            gathered = self.memory.area("output bytes", chunk * self.bytes_stride(width))
            self.emit(self.quantise_op(op.x, gathered, self.bytes_stride(width), outputs=1))
        else:
            gathered = self.memory.area("output rows", chunk * stride)
            self.emit(
                LoweredOp("rows.gather", GATHER, x=self.at(op.x), x_stride=stride, width=width, out=gathered, out_stride=stride)
            )
        self.emit(self.linear_op(op.weight, gathered, stride, out=out, out_stride=4 * vocab, outputs=1))
        if op.scale != 1.0 or op.softcap:
            scale, limit = float_word(op.scale), float_word(op.softcap or 0.0)
            self.emit(LoweredOp("elementwise.scale_and_cap", CAP, x=out, width=vocab, scale=scale, limit=limit))

    # ---- mixtures of experts: lower_experts.py ----

    def lower_Route(self, op: ops.Route, rest: tuple[Op, ...]) -> None:
        lower_experts.lower_route(self, op)

    def lower_ExpertLinear(self, op: ops.ExpertLinear, rest: tuple[Op, ...]) -> None:
        lower_experts.lower_expert_linear(self, op)

    def lower_ClampedActivation(self, op: ops.ClampedActivation, rest: tuple[Op, ...]) -> None:
        lower_experts.lower_clamped_activation(self, op)

    def lower_HeadLinear(self, op: ops.HeadLinear, rest: tuple[Op, ...]) -> None:
        lower_experts.lower_head_linear(self, op)

    def lower_ScaleByPosition(self, op: ops.ScaleByPosition, rest: tuple[Op, ...]) -> None:
        factors = np.log1p(np.arange((self.limits.context + op.offset) // op.length + 1)) * op.beta + 1
        table = aligned(4 * factors.size, np.float32)
        table[:] = factors
        self.memory.kept[f"factors by position {len(self.memory.kept)}"] = table
        made = LoweredOp(
            "elementwise.scale_by_position", SCALE, x=self.at(op.x), x_stride=self.stride(op.x), width=op.x.width,
            table=int(table.ctypes.data), length=op.length, offset=op.offset,
        )  # fmt: skip
        self.emit(made, op.x)

    def lower_Combine(self, op: ops.Combine, rest: tuple[Op, ...]) -> None:
        lower_experts.lower_combine(self, op)
