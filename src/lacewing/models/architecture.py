"""The row that describes an architecture; each file of `architectures/` holds one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lacewing.models.blocks.decoder import BlockOf, Edge, final_norm, nothing, standard_block
from lacewing.models.config import ModelConfig
from lacewing.models.names import STANDARD_NAMES
from lacewing.models.readers.metadata import MetadataReader

Adjust = Callable[[MetadataReader, ModelConfig], ModelConfig]  # the last word over what the standard readers made


Usual = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def _unchanged(keys: MetadataReader, config: ModelConfig) -> ModelConfig:
    return config


def _as_it_is(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return values


@dataclass(frozen=True)
class Architecture:
    """Data first. Where both formats disagree, `huggingface` and `gguf` have the last word over the config."""

    name: str  # general.architecture of GGUF; the file's own name
    models: str = ""  # that people know by name, for docs/architectures.md
    also: tuple[str, ...] = ()  # Hugging Face model types, and other names of GGUF files, that this row describes as well
    names: Mapping[str, str] = field(default_factory=lambda: STANDARD_NAMES)
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # model_type: config.json values left out by it
    synonyms: Mapping[str, str] = field(default_factory=dict)  # of config.json: usual keys, and what this maker calls them
    usual: Usual = _as_it_is  # config.json in the usual form, where not only names of keys differ; what is odd is left as it is
    gguf_defaults: Mapping[str, Any] = field(default_factory=dict)
    switches: Mapping[str, Any] = field(default_factory=dict)  # fields of ModelConfig that never vary
    gguf_switches: Mapping[str, Any] = field(default_factory=dict)  # that GGUF alone has
    huggingface_switches: Mapping[str, Any] = field(default_factory=dict)
    gguf_presence: Mapping[str, str] = field(default_factory=dict)  # switches that a weight of the file turns on
    mixture_presence: Mapping[str, str] = field(default_factory=dict)  # the same of MixtureConfig
    biases: frozenset[str] = frozenset()  # linear layers that always have a bias
    mixture: Mapping[str, Any] | None = None  # fields of MixtureConfig that never vary; None: no mixtures of experts
    packed_experts: bool = False  # in MXFP4, as Hugging Face stores it: values and powers of two apart
    latent: bool = False  # multi-head latent attention
    gguf_names: Mapping[str, str] = field(
        default_factory=dict
    )  # where the file's are not the usual ones; * is the number of a layer
    numbers: tuple[str, ...] = ()  # weights of a layer that are read when it is opened: numbers of the program
    uncounted: tuple[str, ...] = ()  # weights that the makers leave out when they count the active parameters of a mixture
    hybrid: bool = False  # not all layers have attention; a GGUF file gives the others 0 key heads
    attention_free: bool = False  # no layer has attention or a feed-forward; a GGUF file gives both sizes as 0
    block: BlockOf = standard_block  # of each layer
    begin: Edge = nothing
    end: Edge = final_norm
    per_layer: bool = False  # tokens may have embeddings for each layer
    local_heads: bool = False  # layers with a window may have other heads than those that see everything
    mixture_key: str = ""  # of config.json: the switch that says whether a model has a mixture of experts
    huggingface: Adjust = _unchanged
    gguf: Adjust = _unchanged
