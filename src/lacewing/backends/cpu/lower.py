"""From the program to lowered ops: one rule for each kind of op, and what is fused.

Fused: the quantisation of an activation into the op that makes it; QK norm, rotation and storing of a head into one pass.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lacewing.backends.base import StepLimits, WeightView
from lacewing.backends.cpu.heads import HeadJobs
from lacewing.backends.cpu.isa import host_isa
from lacewing.backends.cpu.plan import LoweredOp, Memory, Word, aligned, double_word, float_word
from lacewing.backends.cpu.quants import TileKernels, kernels_of
from lacewing.errors import UnsupportedModelError
from lacewing.program import ops
from lacewing.program.ops import Op, RopeSpec, View
from lacewing.program.program import Program

MAX_QUERIES = 32  # kernels/attention.py
MAX_HEAD_WIDTHS = 1800  # of key and value together: (MAX_QUERIES * (widths + 128 + 17)) float32 fit the scratch of kernels/state.py
MAX_GENERIC_WIDTH = 65_000  # a dequantised row fits it, too


class Lowering:
    """Walks the program once. `ops`: the result; `kernels`: the names that it needs beyond those of the ops themselves."""

    def __init__(self, program: Program, weights: Mapping[str, WeightView], limits: StepLimits):
        self.program, self.weights, self.limits = program, weights, limits
        self.memory = Memory(limits.chunk)
        self.ops: list[LoweredOp] = []
        self.extra: set[str] = set()  # kernels called by other kernels
        self.heads = HeadJobs(self)
        self.fusable: dict[View, tuple[LoweredOp, int, int]] = {}  # who could quantise a view: op, word offsets
        self.quantised: dict[View, int] = {}  # views whose bytes are up to date, and where
        self.keys: list[np.ndarray] = []
        self.values: list[np.ndarray] = []
        self.addresses: dict[str, int] = {}  # of kernels; filled when they are loaded
        self.angle_tables: dict[RopeSpec, int] = {}
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
            self.values.append(np.zeros(slots * layer.key_heads * context * layer.value_width + lanes, precision))

    def emit(self, op: LoweredOp, *written: View) -> LoweredOp:
        """Add an op; what was known of the buffers that it writes is forgotten."""
        self.ops.append(op)
        for known in (self.fusable, self.quantised):
            for view in [v for v in known if any(v.buffer == w.buffer for w in written)]:
                del known[view]  # type: ignore[attr-defined]
        return op

    # ---- operands ----

    def at(self, view: View) -> int:
        return self.memory.address(view)

    def stride(self, view: View) -> int:
        return self.memory.stride(view.buffer)

    def weight(self, name: str) -> Word:
        """Looked up again at every bind: residency moves it."""
        return lambda: int(np.asarray(self.weights[name].data).ctypes.data)

    def kernel(self, name: str) -> Word:
        self.extra.add(name)
        return lambda: self.addresses[name]

    def bytes_stride(self, width: int) -> int:
        return (width * 15 // 8 + 63) // 64 * 64

    def bytes_of(self, view: View) -> int:
        """Address of the quantised form of a view; made by the op that made the view, or by an op of its own."""
        if view in self.quantised:
            return self.quantised[view]
        area = f"{view.buffer.name}[{view.start}:{view.start + view.width}] bytes"
        to, stride = self.memory.area(area, self.limits.chunk * self.bytes_stride(view.width)), self.bytes_stride(view.width)
        if view in self.fusable:
            op, to_word, stride_word = self.fusable[view]
            op.words |= {to_word: to, stride_word: stride}
        else:
            words: dict[int, Word] = {8: self.at(view), 16: self.stride(view), 24: view.width, 32: to, 40: stride, 48: 0}
            self.ops.append(LoweredOp("activations.quantise_rows", words, counter=0))
        self.quantised[view] = to
        return to

    def angles(self, rope: RopeSpec) -> int:
        """The cos and sin table of a rotation, made once a step."""
        if rope not in self.angle_tables:
            pairs = len(rope.frequencies)
            frequencies = aligned(8 * pairs, np.float64)
            frequencies[:] = rope.frequencies
            self.memory.kept[f"frequencies {len(self.angle_tables)}"] = frequencies
            table = self.memory.area(f"angles {len(self.angle_tables)}", self.limits.chunk * 8 * pairs)
            words: dict[int, Word] = {0: int(frequencies.ctypes.data), 8: pairs, 16: double_word(rope.magnitude), 24: table}
            self.ops.insert(0, LoweredOp("heads.angles", words, barrier=False))
            self.angle_tables[rope] = table
        return self.angle_tables[rope]

    # ---- a rule for each kind of op ----

    def lower_Embed(self, op: ops.Embed, rest: tuple[Op, ...]) -> None:
        weight = self.weights[op.weight]
        width, kinds = op.out.width, kernels_of(weight.quant)
        words: dict[int, Word] = {0: self.weight(op.weight), 8: weight.quant.row_bytes(width), 16: width, 24: self.at(op.out)}
        words |= {32: self.stride(op.out), 40: float_word(op.scale)}
        quant = weight.quant
        blocks: dict[int, Word] = {56: width // quant.block_elements, 64: quant.block_bytes, 72: quant.block_elements}
        if isinstance(kinds, TileKernels):
            words |= blocks | {48: self.kernel(kinds.unpack), 80: kinds.sub_block, 88: -1 if kinds.shift is None else kinds.shift}
            self.emit(LoweredOp("embed.embed_tiles", words), op.out)
        elif "." in kinds:
            self.emit(LoweredOp("embed.embed_generic", words | blocks | {48: self.kernel(kinds)}), op.out)
        else:
            self.emit(LoweredOp(f"embed.embed_{kinds}", words), op.out)

    def lower_Norm(self, op: ops.Norm, rest: tuple[Op, ...]) -> None:
        if self.heads.takes_norm(op, rest):
            return
        self.heads.flush()
        weight = self.memory.vector(self.weights, op.weight, op.weight_offset) if op.weight else 0
        words: dict[int, Word] = {0: self.at(op.x), 8: self.stride(op.x), 16: self.at(op.out), 24: self.stride(op.out)}
        words |= {32: op.x.width // op.heads, 40: op.heads, 48: weight, 56: float_word(op.eps), 80: 0, 88: 0}
        words |= {64: self.at(op.add), 72: self.stride(op.add)} if op.add else {64: 0, 72: 0}
        made = self.emit(LoweredOp("norm.norm", words), op.out, *([op.x] if op.add else []))
        if op.out.width % 32 == 0:
            self.fusable[op.out] = (made, 80, 88)

    def lower_Linear(self, op: ops.Linear, rest: tuple[Op, ...]) -> None:
        biases = op.biases or (None,) * len(op.weights)
        x_bytes = self.bytes_of(op.x) if any(self.tiled(name) for name in op.weights) else 0
        for index, (name, out, bias) in enumerate(zip(op.weights, op.outs, biases, strict=True)):
            words = self.linear_words(name, op.x, x_bytes, self.at(out), self.stride(out), bias)
            self.emit(self.linear_op(name, words, barrier=index == 0), out)

    def tiled(self, name: str) -> bool:
        """Whether a weight runs on tiles: the others, and those with fewer rows than lanes, run in float32."""
        weight = self.weights[name]
        return isinstance(kernels_of(weight.quant), TileKernels) and weight.shape[0] >= host_isa().lanes

    def linear_op(self, name: str, words: dict[int, Word], barrier: bool) -> LoweredOp:
        kinds = kernels_of(self.weights[name].quant)
        if self.tiled(name):
            kernel = "linear.linear"
        elif isinstance(kinds, TileKernels):
            kernel = "rows.linear_f32"
        else:
            kernel = "rows.linear_generic" if "." in kinds else f"rows.linear_{kinds}"
        return LoweredOp(kernel, words, barrier, counter=0)

    def linear_words(
        self, name: str, x: View, x_bytes: int, out: int, out_stride: int, bias: str | None, outputs: int = 0
    ) -> dict[int, Word]:
        """Arguments of `linear.linear` or of a `rows.linear_*`; with `outputs`, x is already gathered at x_bytes."""
        weight = self.weights[name]
        rows, width = weight.shape
        quant, kinds = weight.quant, kernels_of(weight.quant)
        shift = self.memory.vector(self.weights, bias) if bias else 0
        if self.tiled(name) and isinstance(kinds, TileKernels):
            return {
                8: self.weight(name), 16: rows, 24: quant.row_bytes(width), 32: width // quant.block_elements, 40: quant.block_bytes,
                48: quant.block_elements, 56: self.kernel(kinds.unpack), 64: self.kernel(kinds.dot), 72: kinds.shift or 0,
                80: x_bytes, 88: self.bytes_stride(width), 96: width, 104: int(width * kinds.sums_at), 112: kinds.sum_bytes,
                120: out, 128: out_stride, 136: shift, 144: outputs, 152: 0,
            }  # fmt: skip
        source, row_bytes = self.weight(name), quant.row_bytes(width)
        if isinstance(kinds, TileKernels):
            source, row_bytes = self.memory.vector(self.weights, name), 4 * width
        at, stride = (x_bytes, self.memory.stride(x.buffer)) if outputs else (self.at(x), self.stride(x))
        dequantise: Word = self.kernel(kinds) if isinstance(kinds, str) and "." in kinds else 0
        if dequantise and width > MAX_GENERIC_WIDTH:
            raise UnsupportedModelError(
                f"the CPU backend takes {quant} rows of up to {MAX_GENERIC_WIDTH} values; {name} has {width}"
            )
        return {
            8: source, 16: rows, 24: row_bytes, 32: width, 40: at, 48: stride, 56: out, 64: out_stride, 72: shift, 80: outputs,
            88: max(4, min(64, rows // 32 // 4 * 4)), 96: dequantise, 104: width // quant.block_elements,
        }  # fmt: skip

    def lower_Rope(self, op: ops.Rope, rest: tuple[Op, ...]) -> None:
        self.heads.rope(op)

    def lower_WriteKeysValues(self, op: ops.WriteKeysValues, rest: tuple[Op, ...]) -> None:
        self.heads.write(op)

    def lower_Attention(self, op: ops.Attention, rest: tuple[Op, ...]) -> None:
        layer = self.program.layers[op.layer]
        if layer.key_width + layer.value_width > MAX_HEAD_WIDTHS:
            raise UnsupportedModelError(f"the CPU backend takes heads of up to {MAX_HEAD_WIDTHS // 2} values, not {layer}")
        group = op.heads // op.key_heads
        group = max(d for d in range(1, min(group, MAX_QUERIES) + 1) if group % d == 0)
        words: dict[int, Word] = {
            8: self.at(op.q), 16: self.stride(op.q), 24: self.at(op.out), 32: self.stride(op.out), 40: op.heads, 48: op.key_heads,
            56: layer.key_width, 64: layer.value_width, 72: int(self.keys[op.layer].ctypes.data),
            80: int(self.values[op.layer].ctypes.data), 88: float_word(op.scale), 96: float_word(op.softcap or 0.0),
            104: op.window or 2**30, 112: 0, 120: 0, 128: group,
        }  # fmt: skip
        made = self.emit(LoweredOp(f"attention.attention_{self.kind}", words, counter=0), op.out)
        if layer.value_width % 32 == 0:
            self.fusable[op.out] = (made, 112, 120)

    def lower_GatedActivation(self, op: ops.GatedActivation, rest: tuple[Op, ...]) -> None:
        words: dict[int, Word] = {8: self.at(op.gate), 16: self.stride(op.gate), 24: self.at(op.up), 32: self.stride(op.up)}
        words |= {40: self.at(op.out), 48: self.stride(op.out), 56: op.out.width, 64: 0, 72: 0}
        made = self.emit(LoweredOp(f"elementwise.gated_{op.activation}", words, counter=0), op.out)
        if op.out.width % 32 == 0:
            self.fusable[op.out] = (made, 64, 72)

    def lower_Logits(self, op: ops.Logits, rest: tuple[Op, ...]) -> None:
        vocab, width, chunk = self.program.vocab_size, op.x.width, self.limits.chunk
        out = self.memory.area("logits", 4 * chunk * vocab + 64 * host_isa().lanes)
        if self.tiled(op.weight):
            stride = self.bytes_stride(width)
            gathered = self.memory.area("output bytes", chunk * stride)
            words: dict[int, Word] = {8: self.at(op.x), 16: self.stride(op.x), 24: width, 32: gathered, 40: stride, 48: 1}
            self.emit(LoweredOp("activations.quantise_rows", words, counter=0))
        else:
            gathered = self.memory.area("output rows", chunk * self.stride(op.x))
            words = {0: self.at(op.x), 8: self.stride(op.x), 16: width, 24: gathered, 32: self.stride(op.x)}
            self.emit(LoweredOp("rows.gather", words))
        words = self.linear_words(op.weight, op.x, gathered, out, 4 * vocab, None, outputs=1)
        self.emit(self.linear_op(op.weight, words, barrier=True))
        if op.scale != 1.0 or op.softcap:
            words = {8: out, 16: vocab, 24: float_word(op.scale), 32: float_word(op.softcap or 0.0)}
            self.emit(LoweredOp("elementwise.scale_and_cap", words, counter=0))
