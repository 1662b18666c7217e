"""A checkpoint to a model: which architecture, its config, its program, and the weights that the program needs."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from lacewing.errors import OptionError, UnsupportedModelError, WeightError
from lacewing.formats.checkpoint import Checkpoint, TensorInfo
from lacewing.formats.files import shown
from lacewing.models import architectures
from lacewing.models.architecture import Architecture
from lacewing.models.blocks.decoder import build_program
from lacewing.models.config import ModelConfig, check_config
from lacewing.models.missing import DESCRIBED, missing_blocks
from lacewing.models.names import PREDICTION, in_the_words_of_a_directory, is_ignored, part_of, translate, usual_name
from lacewing.models.readers.gguf import ROPE_TENSORS, read_gguf
from lacewing.models.readers.huggingface import read_huggingface, text_config
from lacewing.models.readers.metadata import without_keys
from lacewing.models.reranking import CLASSIFIER, is_reranker
from lacewing.models.sizes import ModelSizes, measure
from lacewing.models.stacks import arrange, predicting_bytes
from lacewing.options import format_bytes
from lacewing.program.check import check_program
from lacewing.program.program import Program
from lacewing.program.states import Q8_BLOCK, PagedState

_MAX_WIDTH = 2**24  # of a buffer; the widest of real models have some 2**18
_WHOLE_NUMBERS = frozenset(("I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "BOOL"))


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
    sizes: ModelSizes
    uncounted: tuple[str, ...] = ()  # weights that are not among the active parameters
    notices: tuple[str, ...] = ()  # what a person should know, such as parts of the checkpoint that are left out

    @property
    def parameters(self) -> int:
        return self.sizes.parameters

    @property
    def active_parameters(self) -> int:
        return self.sizes.active_parameters

    @property
    def active_bytes(self) -> int:
        return self.sizes.active_bytes


def known_architectures() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(architectures.__path__))


def find_architecture(name: str, where: str) -> Architecture:
    """The row for a GGUF architecture or a Hugging Face model type. Raises UnsupportedModelError."""
    known = known_architectures()
    if name in known:
        return _row(name)
    for row in map(_row, known):
        if name in (row.name, *row.also):
            return row
    lacking = missing_blocks(name)
    needs = " and ".join(filter(None, (", ".join(lacking[:-1]), *lacking[-1:])))
    problem = f"is not here yet: it needs {needs}" if lacking else "is not known"
    problem += " (docs/next-architectures.md describes them)" if name in DESCRIBED else ""
    raise UnsupportedModelError(f"{where}: architecture '{shown(name)}' {problem}; this version runs {', '.join(known)}")


def _row(file: str) -> Architecture:
    row: Architecture = importlib.import_module(f"{architectures.__name__}.{file}").ARCHITECTURE
    return row


def open_model(
    checkpoint: Checkpoint,
    context: int | None = None,
    most: int | None = None,
    kv_type: str | None = None,
    ignore_keys: Sequence[str] = (),
) -> ModelSpec:
    """The model in a checkpoint, for sessions of at most `context` positions.

    Without a context the trained one is taken, `most` at most; with longrope the original one, as up to there the short factors
    hold. The KV cache is stored as `kv_type`, by default as precisely as the weights. `ignore_keys`: of the metadata or of
    config.json, treated as absent. Reads metadata, tensor headers and samples of an output that should be the embedding.
    Raises UnsupportedModelError, WeightError, OptionError for a `kv_type` that does not suit the model.
    """
    checkpoint = _without(checkpoint, ignore_keys)
    architecture = _architecture(checkpoint)
    try:
        return _open(checkpoint, architecture, context, most, kv_type)
    except WeightError as error:
        if checkpoint.format == "gguf":
            raise
        raise WeightError(in_the_words_of_a_directory(str(error), architecture.names, checkpoint.tensors)) from None


def _open(
    checkpoint: Checkpoint, architecture: Architecture, context: int | None, most: int | None, kv_type: str | None
) -> ModelSpec:
    where = checkpoint.path.name
    read = _read_gguf if checkpoint.format == "gguf" else _read_huggingface
    config, tensors, notices = read(checkpoint, architecture)
    check_config(config, where)
    if ahead := predicting_bytes(tensors, config):
        notices = [*notices, *_notices({PREDICTION: ahead})]
    tensors = arrange(tensors, config, where)
    if context is None:
        context = config.trained_context
        if config.rope.kind == "longrope":
            context = min(context, config.rope.original_context)
        context = min(context, most or context)
    program = build_program(config, context, architecture.block, architecture.begin, architecture.end)
    _check_widths(program, where)
    check_program(program)
    _check_weights(program, tensors, where)
    used = {name: tensors[name] for name in program.weights}
    scales = {tensor.scales: tensors[tensor.scales] for tensor in used.values() if tensor.scales is not None}
    return ModelSpec(
        architecture=config.architecture,
        name=_name(checkpoint),
        config=config,
        program=_with_kv_type(program, kv_type, used, where),
        tensors=used | scales,
        vocab_size=config.vocab_size,
        trained_context=config.trained_context,
        context=context,
        sizes=measure(program, used | scales, architecture.uncounted),
        uncounted=architecture.uncounted if config.mixture is not None else (),
        notices=tuple(notices),
    )


def _without(checkpoint: Checkpoint, ignored: Sequence[str]) -> Checkpoint:
    """With the metadata but for those keys, as far as the model reads them."""
    if not ignored:
        return checkpoint
    if checkpoint.format == "gguf":
        return replace(checkpoint, metadata=without_keys(checkpoint.metadata, ignored))
    config = checkpoint.metadata.get("config.json")
    if not isinstance(config, Mapping):
        return checkpoint
    config = without_keys(config, ignored)
    if isinstance(config.get("text_config"), Mapping):
        config["text_config"] = without_keys(config["text_config"], ignored)
    return replace(checkpoint, metadata={"config.json": config})


def _architecture(checkpoint: Checkpoint) -> Architecture:
    """Raises UnsupportedModelError."""
    where = checkpoint.path.name
    if checkpoint.format == "gguf":
        name, problem = checkpoint.metadata.get("general.architecture"), "general.architecture is missing"
    else:
        name, problem = text_config(checkpoint).get("model_type"), "config.json has no model_type"
    if not isinstance(name, str):
        raise UnsupportedModelError(f"{where}: {problem}, so the model is unknown")
    found = find_architecture(name, where)
    return replace(found, name=name) if checkpoint.format == "gguf" else found  # the prefix of its keys


_Read = tuple[ModelConfig, Mapping[str, TensorInfo], list[str]]  # config, weights under our names, notices


def _named(checkpoint: Checkpoint, name_of: Callable[[str], str | None]) -> tuple[dict[str, TensorInfo], dict[str, int]]:
    """The weights of the language model by our names, but those without one; and the bytes of each other part."""
    found: dict[str, TensorInfo] = {}
    left_out: dict[str, int] = {}
    ranks = is_reranker(checkpoint)
    for name, tensor in checkpoint.tensors.items():
        if ranks and name == CLASSIFIER:  # is for those who rank (`assistant.ranking`)
            continue
        part = part_of(name)
        if part is not None:
            left_out[part] = left_out.get(part, 0) + tensor.nbytes
        elif (ours := name_of(name)) is not None:
            if ours in found:
                raise WeightError(f"{checkpoint.path.name}: two weights are {ours}; the second is {name}")
            found[ours] = tensor
    return found, left_out


def _read_gguf(checkpoint: Checkpoint, architecture: Architecture) -> _Read:
    named, left_out = _named(checkpoint, lambda name: usual_name(name, architecture.gguf_names))
    config, notices = read_gguf(replace(checkpoint, tensors=named), architecture)
    return config, {name: tensor for name, tensor in named.items() if name not in ROPE_TENSORS}, _notices(left_out) + notices


def _read_huggingface(checkpoint: Checkpoint, architecture: Architecture) -> _Read:
    def name_of(name: str) -> str | None:
        """An unknown one is left over and reported with the others."""
        return None if is_ignored(name) else translate(name, architecture.names) or name

    tensors, left_out = _named(checkpoint, name_of)
    config, notices = read_huggingface(checkpoint, architecture, tensors)
    if architecture.numbers:
        tensors = {
            name: tensor for name, tensor in tensors.items() if name.partition(".")[2].partition(".")[2] not in architecture.numbers
        }
    if config.tied_output and "token_embd.weight" not in tensors and "output.weight" in tensors:
        tensors["token_embd.weight"] = replace(tensors.pop("output.weight"), name="token_embd.weight")
    return config, tensors, _notices(left_out) + notices


def _notices(left_out: Mapping[str, int]) -> list[str]:
    """`left_out`: bytes of parts of the checkpoint that are no language model."""
    why = {PREDICTION: "no tokens are predicted ahead"}
    return [
        f"the {part} part of this checkpoint ({format_bytes(nbytes)}) is left out: {why.get(part, 'text only')}"
        for part, nbytes in left_out.items()
    ]


def _check_widths(program: Program, where: str) -> None:
    """Sizes that are sound one by one may multiply to what no memory holds."""
    for op in program.ops:
        for buffer in (view.buffer for view in op.views):
            if buffer.width > _MAX_WIDTH:
                problem = f"needs {buffer.width} values a token for {buffer.name}; this version knows up to {_MAX_WIDTH}"
                raise UnsupportedModelError(f"{where}: the model {problem}")


def _check_weights(program: Program, tensors: Mapping[str, TensorInfo], where: str) -> None:
    """The program's weights and the checkpoint's must be the same set, of the same shapes."""
    missing = [name for name in program.weights if name not in tensors]
    if missing:
        raise WeightError(f"{where}: {len(missing)} weights are missing: {_some(missing)}")
    for name, shape in program.weights.items():
        kind = tensors[name].quant
        if kind.name in _WHOLE_NUMBERS:  # codes of some quantisation: as numbers they would compute nonsense
            raise UnsupportedModelError(f"{where}: weight {name} holds whole numbers ({kind}), whose meaning is not known here")
        if tensors[name].shape != tuple(shape):
            raise WeightError(f"{where}: weight {name} has shape {tensors[name].shape}; the model needs {tuple(shape)}")
    scales = {tensors[name].scales for name in program.weights}
    left_over = [name for name in tensors if name not in program.weights and name not in scales]
    if left_over:
        raise WeightError(f"{where}: {len(left_over)} weights have no place in the model: {_some(left_over)}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _with_kv_type(program: Program, kv_type: str | None, tensors: Mapping[str, TensorInfo], where: str) -> Program:
    """By default the KV cache is as precise as the weights: values of bfloat16 could exceed the range of float16.

    Raises OptionError for heads that are not whole blocks of q8_0.
    """
    if kv_type == "q8_0":
        parts = [part for state in program.states if isinstance(state, PagedState) for part in state.parts]
        odd = sorted({part.width for part in parts if part.width % Q8_BLOCK})
        if odd:
            raise OptionError(
                f"{where}: `kv_type='q8_0'` stores blocks of {Q8_BLOCK} values, but heads have {odd[0]}; use f16 or f32"
            )
    quants = {tensor.quant.name for tensor in tensors.values() if len(tensor.shape) > 1}
    precise = quants <= {"F64", "F32", "BF16", "F8_E4M3", "F4_E2M1"}
    return program.with_kv_type(kv_type or ("f32" if precise else "f16"))


def _name(checkpoint: Checkpoint) -> str:
    name = checkpoint.metadata.get("general.name")
    if not isinstance(name, str) or not name:
        name = checkpoint.path.stem if checkpoint.path.is_file() else checkpoint.path.resolve().name
    return shown(name[:200])  # it comes to terminals
