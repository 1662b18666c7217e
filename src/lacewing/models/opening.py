"""A checkpoint to a model: which architecture, its config, its program, and the weights that the program needs."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, replace

from lacewing.errors import UnsupportedModelError, WeightError
from lacewing.formats.checkpoint import Checkpoint, TensorInfo
from lacewing.models import architectures
from lacewing.models.architecture import Architecture
from lacewing.models.blocks import build_program
from lacewing.models.config import ModelConfig, check_config
from lacewing.models.gguf import ROPE_TENSORS, read_gguf
from lacewing.models.huggingface import read_huggingface, text_config
from lacewing.models.names import is_ignored, translate
from lacewing.models.stacks import arrange
from lacewing.program.check import check_program
from lacewing.program.ops import Embed, ExpertLinear, Logits
from lacewing.program.program import Program

# Hugging Face model types, and one architecture of GGUF, whose file has another name
MODEL_TYPES = {
    "mistral": "llama",
    "mixtral": "llama",
    "gemma3_text": "gemma3",
    "qwen3_moe": "qwen3moe",
    "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2",
    "kimi_k2": "deepseek2",
    "glm4_moe": "glm4moe",
    "llama4_text": "llama4",
    "gpt-oss": "gpt_oss",
}
_LATER = ("qwen2_moe", "qwen2moe", "phimoe", "granitemoe")  # mixtures of experts


@dataclass(frozen=True)
class ModelSpec:
    """An opened model: everything that the engine needs to compile and run it."""

    architecture: str
    name: str
    config: ModelConfig
    program: Program
    tensors: Mapping[str, TensorInfo]  # under our (GGUF's) names: just the ones that the program uses
    vocab_size: int
    trained_context: int
    context: int
    parameters: int
    active_parameters: int  # used for a token
    active_bytes: int  # weight bytes read for a token


def known_architectures() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(architectures.__path__))


def find_architecture(name: str, where: str) -> Architecture:
    """The row for a GGUF architecture or a Hugging Face model type. Raises UnsupportedModelError."""
    known, file = known_architectures(), MODEL_TYPES.get(name, name)
    if file not in known:
        later = "mixture-of-experts comes later" if name in _LATER else "not known"
        raise UnsupportedModelError(f"{where}: architecture {name!r} is {later}; this version runs {', '.join(known)}")
    row: Architecture = importlib.import_module(f"{architectures.__name__}.{file}").ARCHITECTURE
    return row


def open_model(checkpoint: Checkpoint, context: int | None = None) -> ModelSpec:
    """The model in a checkpoint, for sessions of at most `context` positions.

    Without a context the trained one is taken; with longrope the original one, as up to there the short factors hold.
    Reads metadata and tensor headers only. Raises UnsupportedModelError, WeightError.
    """
    where = checkpoint.path.name
    config, tensors = _read_gguf(checkpoint) if checkpoint.format == "gguf" else _read_huggingface(checkpoint)
    check_config(config, where)
    tensors = arrange(tensors, config, where)
    if context is None:
        context = config.trained_context
        if config.rope.kind == "longrope":
            context = min(context, config.rope.original_context)
    program = build_program(config, context)
    check_program(program)
    _check_weights(program, tensors, where)
    used = {name: tensors[name] for name in program.weights}
    parameters = sum(tensor.elements for tensor in used.values())
    scales = {tensor.scales: tensors[tensor.scales] for tensor in used.values() if tensor.scales is not None}
    return ModelSpec(
        architecture=config.architecture,
        name=_name(checkpoint),
        config=config,
        program=replace(program, kv_itemsize=_kv_itemsize(used)),
        tensors=used | scales,
        vocab_size=config.vocab_size,
        trained_context=config.trained_context,
        context=context,
        parameters=parameters,
        active_parameters=_active_parameters(program, used),
        active_bytes=_active_bytes(program, used | scales),
    )


def _read_gguf(checkpoint: Checkpoint) -> tuple[ModelConfig, Mapping[str, TensorInfo]]:
    name = checkpoint.metadata.get("general.architecture")
    if not isinstance(name, str):
        raise UnsupportedModelError(f"{checkpoint.path.name}: general.architecture is missing, so the model is unknown")
    config = read_gguf(checkpoint, find_architecture(name, checkpoint.path.name))
    return config, {name: tensor for name, tensor in checkpoint.tensors.items() if name not in ROPE_TENSORS}


def _read_huggingface(checkpoint: Checkpoint) -> tuple[ModelConfig, Mapping[str, TensorInfo]]:
    model_type = text_config(checkpoint).get("model_type")
    if not isinstance(model_type, str):
        raise UnsupportedModelError(f"{checkpoint.path.name}: config.json has no model_type, so the model is unknown")
    architecture = find_architecture(model_type, checkpoint.path.name)
    tensors: dict[str, TensorInfo] = {}
    for name, tensor in checkpoint.tensors.items():
        if is_ignored(name):
            continue
        ours = translate(name, architecture.names) or name  # an unknown one is left over and reported with the others
        if ours in tensors:
            raise WeightError(f"{checkpoint.path.name}: two weights are {ours}; the second is {name}")
        tensors[ours] = tensor
    embedding = tensors.get("token_embd.weight")
    config = read_huggingface(checkpoint, architecture, embedding is not None and embedding.quant.name == "BF16")
    if config.tied_output:
        tensors.pop("output.weight", None)  # a copy of the embedding, which transformers ignores as well
    return config, tensors


def _check_weights(program: Program, tensors: Mapping[str, TensorInfo], where: str) -> None:
    """The program's weights and the checkpoint's must be the same set, of the same shapes."""
    missing = [name for name in program.weights if name not in tensors]
    if missing:
        raise WeightError(f"{where}: {len(missing)} weights are missing: {_some(missing)}")
    for name, shape in program.weights.items():
        if tensors[name].shape != tuple(shape):
            raise WeightError(f"{where}: weight {name} has shape {tensors[name].shape}; the model needs {tuple(shape)}")
    scales = {tensors[name].scales for name in program.weights}
    left_over = [name for name in tensors if name not in program.weights and name not in scales]
    if left_over:
        raise WeightError(f"{where}: {len(left_over)} weights have no place in the model: {_some(left_over)}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _kv_itemsize(tensors: Mapping[str, TensorInfo]) -> int:
    """Keys and values are as precise as the weights. Those of bfloat16 could exceed the range of float16."""
    quants = {tensor.quant.name for tensor in tensors.values() if len(tensor.shape) > 1}
    return 4 if quants <= {"F32", "BF16", "F8_E4M3", "F4_E2M1"} else 2


def _active_parameters(program: Program, tensors: Mapping[str, TensorInfo]) -> int:
    """All of a dense model. Of a mixture those that a token is multiplied by, as most makers count: without the embedding."""
    used = {name: tensor.elements for name, tensor in tensors.items()}
    for op in program.ops:
        if isinstance(op, ExpertLinear):
            for name in (*op.weights, *filter(None, op.biases)):
                used[name] = tensors[name].elements // tensors[name].shape[0] * op.ids.width
    embedding, output = _embedding_and_output(program)
    if embedding != output and any(isinstance(op, ExpertLinear) for op in program.ops):
        used[embedding] = 0
    return sum(used.values())


def _active_bytes(program: Program, tensors: Mapping[str, TensorInfo]) -> int:
    """All weights once, but the active experts only, and one row of an embedding that is not the output, too."""
    read = {name: tensors[name].nbytes for name in program.weights}
    for op in program.ops:
        if isinstance(op, ExpertLinear):
            for name in (*op.weights, *filter(None, op.biases)):
                read[name] = tensors[name].nbytes // tensors[name].shape[0] * op.ids.width
    embedding, output = _embedding_and_output(program)
    if embedding != output:
        read[embedding] = tensors[embedding].nbytes // tensors[embedding].shape[0]
    total = sum(read.values())
    for name, nbytes in read.items():  # and the same share of their factors
        scales = tensors[name].scales
        if scales is not None:
            total += tensors[scales].nbytes * nbytes // tensors[name].nbytes
    return total


def _embedding_and_output(program: Program) -> tuple[str, ...]:
    return tuple(op.weight for kind in (Embed, Logits) for op in program.ops if isinstance(op, kind))


def _name(checkpoint: Checkpoint) -> str:
    name = checkpoint.metadata.get("general.name")
    if not isinstance(name, str) or not name:
        name = checkpoint.path.stem if checkpoint.path.is_file() else checkpoint.path.resolve().name
    return name[:200]
