"""The files that are measured: two real models, and others made of random numbers, dense ones and mixtures of experts.

    python -m benchmarks.models NAME ...

fetches or makes them where they are not there, and prints their paths; a file is its own path.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES

from benchmarks.families import F32, Q4_K, Q5_0, Q6_K, FalconH1, Gemma4, KimiLinear, Lfm2Moe, Tensors
from lacewing.hub import cache_dir
from lacewing.hub import path_of as fetched

REAL = ("smollm2", "gemma3-270m")
SYNTHETIC = "llama-1b"
MIXTURE = "qwen3moe-tiny"
NAMES = (*REAL, SYNTHETIC, MIXTURE)
HYBRID, HYBRID_MIXTURE = "qwen35-0.8b", "qwen3next-tiny"  # measured where they are asked for
LARGE, LARGE_MIXTURE = "llama-8b", "qwen3moe-30b-a3b"  # of benchmarks/h100.sh
DELTA_WIDTH = 128  # of the heads of delta nets


class Described(Protocol):
    """What a file is made from: a `Geometry`, or one of `benchmarks.families`."""

    @property
    def architecture(self) -> str: ...

    @property
    def blocks(self) -> int: ...

    def keys(self) -> dict[str, Any]:
        """Metadata behind the prefix of the architecture, but for the number of blocks."""

    def tensors(self, vocab_size: int) -> Tensors:
        """Name: shape (out, in) and type, in the order of the file."""


@dataclass(frozen=True)
class Geometry:
    """A Llama, with experts a Qwen3, or a hybrid of gated delta nets; the defaults are those of Llama 3.2 1B, but for the
    vocabulary, which is SmolLM2's."""

    architecture: str = "llama"
    blocks: int = 16
    width: int = 2048
    heads: int = 32
    key_heads: int = 8
    head_width: int = 64
    feed_forward: int = 8192
    context: int = 8192
    rope_base: float = 500_000.0
    experts: int = 0  # 0: dense
    active: int = 0
    expert_width: int = 0
    delta_heads: int = 0  # of values, in three of four layers; 0: no such layers
    delta_key_heads: int = 0

    def keys(self) -> dict[str, Any]:
        """Metadata behind the prefix of the architecture, but for the number of blocks."""
        found: dict[str, Any] = {}
        if self.experts:
            found |= {"expert_count": self.experts, "expert_used_count": self.active}
            found |= {"expert_feed_forward_length": self.expert_width}
            if self.delta_heads:
                found["expert_shared_feed_forward_length"] = self.expert_width
        found |= {
            "context_length": self.context, "embedding_length": self.width, "feed_forward_length": self.feed_forward,
            "attention.head_count": self.heads, "attention.head_count_kv": self.key_heads,
            "attention.key_length": self.head_width, "attention.value_length": self.head_width,
            "attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": self.rope_base,
            "rope.dimension_count": self.head_width // (4 if self.delta_heads else 1),
        }  # fmt: skip
        if self.delta_heads:
            found |= {
                "rope.dimension_sections": [11, 11, 10, 0], "full_attention_interval": 4, "ssm.conv_kernel": 4,
                "ssm.state_size": DELTA_WIDTH, "ssm.group_count": self.delta_key_heads, "ssm.time_step_rank": self.delta_heads,
                "ssm.inner_size": self.delta_heads * DELTA_WIDTH,
            }  # fmt: skip
        return found

    def tensors(self, vocab_size: int) -> Tensors:
        """Name: shape (out, in) and type, in the order of the file."""
        width, queries, keys = self.width, self.heads * self.head_width, self.key_heads * self.head_width
        found: Tensors = {"token_embd.weight": ((vocab_size, width), Q4_K)}
        block: Tensors = {
            "attn_norm": ((width,), F32),
            "attn_q": ((queries, width), Q4_K),
            "attn_k": ((keys, width), Q4_K),
            "attn_v": ((keys, width), Q4_K),
            "attn_output": ((width, queries), Q4_K),
            "ffn_norm": ((width,), F32),
        }
        if self.experts:
            wide = (self.experts, self.expert_width, width)
            block |= {
                "attn_q_norm": ((self.head_width,), F32),
                "attn_k_norm": ((self.head_width,), F32),
                "ffn_gate_inp": ((self.experts, width), F32),
                "ffn_gate_exps": (wide, Q4_K),
                "ffn_up_exps": (wide, Q4_K),
                "ffn_down_exps": ((self.experts, width, self.expert_width), Q4_K),
            }
        else:
            up, down = (self.feed_forward, width), (width, self.feed_forward)
            block |= {"ffn_gate": (up, Q4_K), "ffn_up": (up, Q4_K), "ffn_down": (down, Q4_K)}
        for index in range(self.blocks):
            layer = block if not self.delta_heads else self._hybrid(block, index)
            found |= {
                f"blk.{index}.{name}" if "ssm_" in name else f"blk.{index}.{name}.weight": each for name, each in layer.items()
            }
        return found | {"output_norm.weight": ((width,), F32), "output.weight": ((vocab_size, width), Q6_K)}

    def _hybrid(self, block: Tensors, index: int) -> Tensors:
        """A layer of Qwen3-Next or Qwen 3.5, of a block of attention."""
        width, heads, wide = self.width, self.delta_heads, self.expert_width
        keys, values = self.delta_key_heads * DELTA_WIDTH, heads * DELTA_WIDTH
        found = {name: tensor for name, tensor in block.items() if not name.startswith(("attn_", "ffn_norm"))}
        found |= {"attn_norm": ((width,), F32), "post_attention_norm": ((width,), F32)}
        if self.experts:
            found |= {
                "ffn_gate_inp_shexp": ((width,), F32), "ffn_gate_shexp": ((wide, width), Q4_K),
                "ffn_up_shexp": ((wide, width), Q4_K), "ffn_down_shexp": ((width, wide), Q4_K),
            }  # fmt: skip
        if index % 4 == 3:
            norms = {"attn_q_norm": ((self.head_width,), F32), "attn_k_norm": ((self.head_width,), F32)}
            mixer = {name: block[name] for name in ("attn_k", "attn_v", "attn_output")}
            return found | norms | mixer | {"attn_q": ((2 * self.heads * self.head_width, width), Q4_K)}
        gates = {"ssm_ba.weight": ((2 * heads, width), Q4_K)}
        if self.architecture == "qwen35":
            gates = {f"ssm_{name}.weight": ((heads, width), Q4_K) for name in ("alpha", "beta")}
        return found | gates | {
            "attn_qkv": ((2 * keys + values, width), Q4_K), "attn_gate": ((values, width), Q4_K), "ssm_a": ((heads,), F32),
            "ssm_dt.bias": ((heads,), F32), "ssm_conv1d.weight": ((2 * keys + values, 4), F32),
            "ssm_norm.weight": ((DELTA_WIDTH,), F32), "ssm_out.weight": ((width, values), Q4_K),
        }  # fmt: skip


GEOMETRIES: dict[str, Described] = {
    SYNTHETIC: Geometry(),
    LARGE: Geometry(blocks=32, width=4096, heads=32, key_heads=8, head_width=128, feed_forward=14336),
    LARGE_MIXTURE: Geometry("qwen3moe", 48, 2048, 32, 4, 128, 6144, 32768, 1_000_000.0, experts=128, active=8, expert_width=768),
    HYBRID: Geometry("qwen35", 24, 1024, 8, 2, 256, 3584, 32768, 1e7, delta_heads=16, delta_key_heads=16),
    HYBRID_MIXTURE: Geometry("qwen3next", 12, 1024, 8, 2, 256, 3072, 32768, 1e7, 64, 8, 512, 16, 8),
    MIXTURE: Geometry("qwen3moe", 12, 1024, 16, 4, 128, 3072, 32768, 1_000_000.0, experts=64, active=8, expert_width=512),
    "falcon-h1-0.5b": FalconH1(),
    "kimi-linear-tiny": KimiLinear(),
    "gemma4-tiny": Gemma4(),
    "lfm2moe-tiny": Lfm2Moe(),
}


def path_of(name: str) -> Path:
    """The file of a measured model, fetched or made into the user's cache if it is not there."""
    if name in REAL:
        return fetched(name)
    path = cache_dir() / "benchmarks" / f"{name}-q4_k.gguf"
    if not path.exists():
        write_random(path, fetched(REAL[0]), GEOMETRIES[name])
    return path


def write_random(path: Path, vocabulary_of: Path, geometry: Described) -> None:
    """A model of that geometry with random weights. Its tokenizer is copied from the file `vocabulary_of`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    writer = GGUFWriter(partial, geometry.architecture)
    vocab_size = _write_metadata(writer, geometry, vocabulary_of)
    tensors = geometry.tensors(vocab_size)
    for name, (shape, kind) in tensors.items():
        stored = stored_shape(shape, kind)
        dtype = np.dtype(np.float32 if kind == F32 else np.uint8)
        writer.add_tensor_info(name, stored, dtype, int(np.prod(stored)) * dtype.itemsize, None if kind == F32 else kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.Generator(np.random.PCG64(1))
    for name, (shape, kind) in tensors.items():
        writer.write_tensor_data(_values(random, name, shape, kind))
    writer.close()
    os.replace(partial, path)


def _write_metadata(writer: GGUFWriter, geometry: Described, vocabulary_of: Path) -> int:
    writer.add_name(f"random-{geometry.architecture}")
    writer.add_block_count(geometry.blocks)
    for name, value in geometry.keys().items():
        key = f"{geometry.architecture}.{name}"
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            writer.add_key_value(key, value, GGUFValueType.FLOAT32 if isinstance(value, float) else GGUFValueType.UINT32)
    vocab_size = 0
    for key, field in GGUFReader(vocabulary_of).fields.items():
        if key.startswith("tokenizer."):
            value, kind = field.contents(), field.types[0]
            writer.add_key_value(key, value, kind, field.types[-1] if kind == GGUFValueType.ARRAY else None)
            vocab_size = len(value) if key == "tokenizer.ggml.tokens" else vocab_size
    return vocab_size


def stored_shape(shape: tuple[int, ...], kind: GGMLQuantizationType) -> tuple[int, ...]:
    """Rows as bytes for a quant, as they are for floats."""
    if kind == F32:
        return shape
    elements, nbytes = GGML_QUANT_SIZES[kind]
    return (*shape[:-1], shape[-1] // elements * nbytes)


def _values(random: np.random.Generator, name: str, shape: tuple[int, ...], kind: GGMLQuantizationType) -> np.ndarray:
    if name.endswith("ssm_a"):  # rates of decay
        return np.full(shape, -1, np.float32)
    values = random_blocks(random, shape, kind)
    if name == "rope_freqs.weight":  # Gemma 4 turns a quarter of a head
        values[len(values) // 4 :] = 1e30
    return values


def random_blocks(random: np.random.Generator, shape: tuple[int, ...], kind: GGMLQuantizationType) -> np.ndarray:
    """Ones for a norm, small numbers for a router.

    Else random digits under constant scales, so that a row times a unit vector has a length near 1.
    """
    if kind == F32:
        return np.ones(shape, np.float32) if len(shape) == 1 else random.standard_normal(shape, np.float32) * np.float32(0.05)
    stored = stored_shape(shape, kind)
    nbytes = GGML_QUANT_SIZES[kind][1]
    blocks = np.frombuffer(random.bytes(int(np.prod(stored))), np.uint8).reshape(-1, nbytes).copy()
    spread = shape[-1] ** -0.5
    if kind == Q4_K:  # d, dmin, 12 bytes of 6-bit scales and minima, 256 digits of 4 bits
        d = spread / (32 * 4.61)  # 4.61: standard deviation of a digit from 0 to 15
        blocks[:, :4] = np.array([d, 7.5 * d], np.float16).view(np.uint8)
        blocks[:, 4:12], blocks[:, 12:16] = 0b10_100000, 0  # all scales and minima are 32
    elif kind == Q5_0:  # d, 32 digits of 5 bits
        blocks[:, :2] = np.array([spread / 9.23], np.float16).view(np.uint8)
    else:  # Q6_K: 256 digits of 6 bits, 16 scales of 8 bits, d
        blocks[:, 192:208] = 16
        blocks[:, 208:] = np.array([spread / (16 * 18.5)], np.float16).view(np.uint8)
    return blocks.reshape(stored)


if __name__ == "__main__":
    if "--help" in sys.argv:
        print(__doc__)
        sys.exit()
    for each in sys.argv[1:]:
        if each not in (*REAL, *GEOMETRIES) and not Path(each).exists():
            sys.exit(f"{each} is none of {', '.join((*REAL, *GEOMETRIES))}, nor a file")
        print(path_of(each) if each in (*REAL, *GEOMETRIES) else Path(each).resolve(), flush=True)
