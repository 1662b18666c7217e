"""Keys, values and attention."""

from __future__ import annotations

from dataclasses import dataclass

from lacewing.backends.webgpu.compiler import Compiler, lowers
from lacewing.program import ops


@dataclass(frozen=True)
class Stored:
    """How a layer's keys and values stand in their buffer; `words` of 32 bits."""

    key_heads: int
    key_width: int
    value_width: int
    context: int
    half: bool
    values_in_keys: bool
    key_words: int
    value_words: int
    values_from: int


def stored(compiler: Compiler, layer: int) -> Stored:
    shape, half = compiler.program.layers[layer], compiler.program.kv_itemsize == 2
    key_words, value_words = (width // 2 if half else width for width in (shape.key_width, shape.value_width))
    before = compiler.limits.slots * shape.key_heads * compiler.limits.context * key_words
    return Stored(
        shape.key_heads, shape.key_width, shape.value_width, compiler.limits.context, half, shape.values_in_keys,
        key_words, value_words, before,
    )  # fmt: skip


@lowers(ops.WriteKeysValues)
def write_keys_values(compiler: Compiler, op: ops.WriteKeysValues) -> None:
    kv = stored(compiler, op.layer)
    pairs = (op.k.width + (op.v.width if op.v is not None else 0)) // 2
    constants = {"kv": kv, "k": compiler.at(op.k), "v": compiler.at(op.v) if op.v is not None else None}
    compiler.dispatch("write_kv", constants, [compiler.keys_values[op.layer]], lambda run: (-(-pairs // 64), run.tokens, 1))


@lowers(ops.Attention)
def attention(compiler: Compiler, op: ops.Attention) -> None:
    kv = stored(compiler, op.layer)
    constants = {
        "kv": kv, "q": compiler.at(op.q), "out": compiler.at(op.out), "heads": op.heads, "scale": op.scale, "window": op.window,
        "softcap": op.softcap, "span": op.chunk, "sinks": op.sinks is not None, "threads": 64,
    }  # fmt: skip
    bindings = [compiler.keys_values[op.layer], *([compiler.vector(op.sinks)] if op.sinks else [])]
    compiler.dispatch("attention", constants, bindings, lambda run: (op.heads, run.tokens, 1))
    compiler.written(op.out)
