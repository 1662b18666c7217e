"""What the headers of a checkpoint tell about a model, in memory or not, for lists of models."""

from __future__ import annotations

import math
import numbers
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lacewing.errors import LacewingError, UnsupportedModelError
from lacewing.models.pooling import pooling_of
from lacewing.models.reranking import is_reranker
from lacewing.options import LoadOptions
from lacewing.placement.info import ModelInfo
from lacewing.text.effort import EffortVariables
from lacewing.text.fill import fill_marks
from lacewing.text.reasoning import CHANNEL, TAGS

if TYPE_CHECKING:
    from lacewing.api import Model
    from lacewing.server.models.names import Source
    from lacewing.text.template import ChatTemplate
    from lacewing.text.tokenizer import Tokenizer

_LIST = 16  # values of a list of the metadata that are shown


@dataclass(frozen=True)
class Experts:
    """Of a mixture: layers that have experts, how many each, how many of them a token uses."""

    layers: int
    count: int
    active: int


@dataclass(frozen=True)
class Facts:
    """`context`: in tokens, as it would be loaded now; `template`: the name of its own, None without one; `nbytes` of the files.

    `capabilities` as Ollama names them, and "rerank". `metadata`: of a GGUF file, without long lists.
    """

    path: Path
    name: str
    architecture: str
    format: str
    quant: str
    parameters: int
    vocabulary: int
    width: int
    trained_context: int
    context: int
    nbytes: int
    template: str | None
    template_source: str
    capabilities: tuple[str, ...]
    experts: Experts | None
    metadata: Mapping[str, Any]

    @classmethod
    def of(cls, info: ModelInfo) -> Facts:
        """Reads tokenizer and template if nobody has yet, which may take a second."""
        spec, checkpoint = info.spec, info.checkpoint
        template, tokenizer = _result(info.template.result), _result(info.tokenizer.result)
        return cls(
            path=checkpoint.path,
            name=spec.name,
            architecture=spec.architecture,
            format=checkpoint.format,
            quant=info.quant,
            parameters=spec.parameters,
            vocabulary=spec.vocab_size,
            width=spec.config.width,
            trained_context=spec.trained_context,
            context=spec.context,
            nbytes=checkpoint.nbytes,
            template=None if template is None else template.name,
            template_source="" if template is None else template.source,
            capabilities=tuple(_capabilities(info, template, tokenizer)),
            experts=_experts(info),
            metadata=_shown(checkpoint.metadata) if checkpoint.format == "gguf" else {},
        )


class KnownFacts:
    """Facts of files, read once for as long as a file stays as it is."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[object, Facts | None]] = {}
        self._loaded: weakref.WeakKeyDictionary[Model, Facts] = weakref.WeakKeyDictionary()

    def of(self, model: Model) -> Facts:
        """Of one in memory."""
        found = self._loaded.get(model)
        if found is None:
            found = self._loaded[model] = Facts.of(model.info)
        return found

    def get(self, source: Source, options: LoadOptions) -> Facts | None:
        """For a thread of its own. None: the model is not here yet, or its file cannot be read."""
        path = source.here()
        if path is None:
            return None
        try:
            stat = path.stat()
        except OSError:
            return None
        version = (stat.st_mtime_ns, stat.st_size, stat.st_ino, options)
        found = self._known.get(path)
        if found is None or found[0] != version:
            found = self._known[path] = version, _result(lambda: Facts.of(ModelInfo(path, options, warm=False)))
        return found[1]


def _result(work: Any) -> Any:
    try:
        return work()
    except LacewingError:
        return None


def _experts(info: ModelInfo) -> Experts | None:
    mixture = info.spec.config.mixture
    if mixture is None:
        return None
    return Experts(sum(mixture.layers), mixture.experts, mixture.active)


def _capabilities(info: ModelInfo, template: ChatTemplate | None, tokenizer: Tokenizer | None) -> list[str]:
    """Of a model that was trained for embeddings, or to rank, just this."""
    if is_reranker(info.checkpoint):
        return ["rerank"]
    try:
        if pooling_of(info.checkpoint) is not None:
            return ["embedding"]
    except UnsupportedModelError:
        return ["embedding"]
    found = ["completion"]
    if template is not None:
        whole = template.variants.get("tool_use", template).source
        found += ["tools"] if "tools" in whole else []
        found += ["thinking"] if thinks(template) else []
    if tokenizer is not None and fill_marks(info.checkpoint.metadata, tokenizer) is not None:
        found.append("insert")
    return found


def thinks(template: ChatTemplate) -> bool:
    """Whether a template has to do with thoughts."""
    return any(tag in template.source for tag in (*TAGS, CHANNEL)) or EffortVariables(template).can_be_off


def _can_be_told(value: Any) -> bool:
    """Whether JSON has it."""
    return isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))


def _shown(metadata: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in metadata.items():
        if key.startswith("tokenizer.chat_template"):
            continue
        if isinstance(value, (str, bool)):
            found[key] = value
        elif isinstance(value, numbers.Integral):
            found[key] = int(value)
        elif isinstance(value, numbers.Real):
            found[key] = float(value) if math.isfinite(value) else None
        elif hasattr(value, "__len__") and len(value) <= _LIST:
            values = value.tolist() if hasattr(value, "tolist") else list(value)
            found[key] = values if all(map(_can_be_told, values)) else None
        else:
            found[key] = None  # too long to show
    return found
