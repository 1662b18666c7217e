"""Apertus: Llama blocks with norms of heads and a feed-forward of xIELU without a gate. Reference: transformers apertus."""

import math
from dataclasses import replace

from lacewing.models.architecture import Architecture
from lacewing.models.config import ModelConfig
from lacewing.models.names import QK_NORM_NAMES, STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader
from lacewing.models.readers.numbers import numbers_of

PARTS = ("alpha_p", "alpha_n", "beta", "eps")
NAMES = {
    "attention_layernorm": "attn_norm",
    "feedforward_layernorm": "ffn_norm",
    **{f"mlp.act_fn.{part}": f"ffn_act_{part}.weight" for part in PARTS},
}
USUAL = {"beta": 0.5, "eps": -1e-6}  # where a checkpoint leaves them out


def huggingface(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """The constants stand as weights of one value."""

    def value(layer: int, part: str) -> float:
        info = keys.weights.get(f"blk.{layer}.ffn_act_{part}.weight")
        if info is None and part not in USUAL:
            raise keys.error("hidden_act", f"is xielu, but there is no {part} for layer {layer}")
        found = (USUAL[part],) if info is None else numbers_of(info, keys.whole)
        if len(found) != 1:
            raise keys.error("hidden_act", f"is xielu, but {part} of layer {layer} is not one number")
        return found[0]

    if config.activation != "xielu" and any(".ffn_act_" in name for name in keys.weights):
        raise keys.error("hidden_act", f"is {config.activation}, but there are the constants of xIELU")
    layers = range(config.layers) if config.activation == "xielu" else ()
    return _with_constants(config, [[value(layer, part) for part in PARTS] for layer in layers])


def gguf(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    """The keys stand outside of those of the architecture, a number for each layer or one for all."""
    outside, columns = MetadataReader(keys.values, keys.where), []
    for part in PARTS:
        name = f"xielu.{part}"
        values = outside.get(name, USUAL.get(part))
        values = values if isinstance(values, list) else [values] * config.layers
        if len(values) != config.layers or not all(isinstance(each, float | int) and abs(each) < 1e6 for each in values):
            raise outside.error(name, f"must be a number for each of the {config.layers} layers")
        columns.append([float(each) for each in values])
    return _with_constants(replace(config, activation="xielu"), [list(row) for row in zip(*columns, strict=True)])


def _with_constants(config: ModelConfig, rows: list[list[float]]) -> ModelConfig:
    """Both alphas are stored before softplus, which keeps them positive; beta is the least that the negative one may be."""
    made = [(_softplus(positive), beta + _softplus(negative), beta, eps) for positive, negative, beta, eps in rows]
    return replace(config, xielu=tuple(made))


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


ARCHITECTURE = Architecture(
    name="apertus",
    models="Apertus 8B and 70B",
    names=STANDARD_NAMES | QK_NORM_NAMES | NAMES,
    numbers=tuple(f"ffn_act_{part}.weight" for part in PARTS),
    switches={"qk_norm": True, "gated": False, "fused_gate_up": False},
    defaults={
        "apertus": {
            "rms_norm_eps": 1e-5,
            "hidden_act": "xielu",
            "activations": {"xielu": "xielu"},
            "max_position_embeddings": 65536,
            "vocab_size": 131072,
            "rope_theta": 12000000.0,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 12000000.0,
                "factor": 8.0,
                "original_max_position_embeddings": 8192,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
            },
        }
    },
    huggingface=huggingface,
    gguf=gguf,
)
