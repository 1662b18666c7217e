"""What configs say of Mamba-2 layers. References: the ssm keys of GGUF; the configs of transformers' hybrids."""

from __future__ import annotations

import math
from dataclasses import replace

from lacewing.models.config import MambaConfig, ModelConfig
from lacewing.models.readers.metadata import MetadataReader

# keys that say how training began, how kernels work, or what follows from others
UNUSED = """chunk_size mamba_chunk_size expand mamba_expand residual_in_fp32 rescale_prenorm_residual time_step_rank time_step_min
time_step_max time_step_floor use_mamba_kernels mamba_ssm_cache_dtype num_logits_to_keep moe_shared_expert_overlap
mtp_layers_block_type mtp_hybrid_override_pattern""".split()  # noqa: SIM905


_LONGEST = 3.4028235e38  # of float32


def gguf_mamba(keys: MetadataReader, kinds: tuple[str, ...]) -> MambaConfig:
    """The time step's rank is the number of heads."""
    heads, width = keys.integer("ssm.time_step_rank", high=2**16), keys.integer("ssm.inner_size")
    if width % heads:
        raise keys.error("ssm.inner_size", f"is {width}, which {heads} heads do not divide")
    return MambaConfig(
        kinds=kinds,
        heads=heads,
        head_width=width // heads,
        states=keys.integer("ssm.state_size", high=2**11),
        groups=keys.integer("ssm.group_count", 1, low=0, high=2**16) or 1,
        kernel=keys.integer("ssm.conv_kernel", low=2, high=64),
    )


def heads_of(keys: MetadataReader, whole: int) -> tuple[int, int]:
    """How many, and their width; `whole`: the width of all."""
    heads = keys.integer("mamba_n_heads", high=2**16)
    width = whole // heads if keys.get("mamba_d_head") in (None, "auto") else keys.integer("mamba_d_head", high=2**16)
    if width * heads != whole:
        raise keys.error("mamba_n_heads", f"is {heads}; heads of {width} values do not fit the width {whole}")
    return heads, width


def huggingface_mamba(
    keys: MetadataReader, config: ModelConfig, kinds: tuple[str, ...], heads: int, width: int, names: tuple[str, str, str]
) -> ModelConfig:
    """`width`: of a head; `names`: of the keys for states, groups and the width of the convolution."""
    states, groups, kernel = names
    skip_unused(keys)
    mamba = MambaConfig(
        kinds=kinds,
        heads=heads,
        head_width=width,
        states=keys.integer(states, high=2**11),
        groups=keys.integer(groups, high=2**16),
        kernel=keys.integer(kernel, low=2, high=64),
        limits=time_limits(keys),
        log_decay=True,
    )
    return replace(config, mamba=mamba)


def with_biases(config: ModelConfig, convolution: bool, projections: bool) -> ModelConfig:
    found = ({"ssm_conv1d"} if convolution else set()) | ({"ssm_in", "ssm_out"} if projections else set())
    return replace(config, biases=config.biases | found)


def by_layer(keys: MetadataReader, name: str, layers: int) -> list[int]:
    """A number for each layer; behind them, those of layers that predict further ahead may follow."""
    value = keys.get(name)
    found = value if isinstance(value, list) else [value] * layers
    if len(found) < layers or not all(type(entry) is int and entry >= 0 for entry in found):
        raise keys.error(name, f"must be a number, or one for each of the {layers} layers")
    return found[:layers]


def time_limits(keys: MetadataReader) -> tuple[float, float]:
    """An infinite limit may stand as transformers writes it where JSON has no word for it."""
    value = keys.get("time_step_limit")
    if value is None:
        return 0.0, math.inf
    if isinstance(value, list):
        value = [math.inf if entry == {"__float__": "Infinity"} else entry for entry in value]
    known = isinstance(value, list | tuple) and len(value) == 2 and all(type(entry) in (int, float) for entry in value)
    if not known or not 0 <= value[0] <= value[1] or value[0] > _LONGEST or _LONGEST < value[1] < math.inf:
        raise keys.error("time_step_limit", "must be a least and a largest time step")
    return float(value[0]), float(value[1])


def skip_unused(keys: MetadataReader) -> None:
    for name in UNUSED:
        keys.get(name)
