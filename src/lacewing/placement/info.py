"""What a checkpoint is: all that its headers tell, before a weight is touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lacewing.errors import LacewingError, ModelFormatError, TemplateError
from lacewing.options import LoadOptions
from lacewing.placement.background import Background

if TYPE_CHECKING:
    from lacewing.formats import Checkpoint
    from lacewing.models import ModelSpec
    from lacewing.placement.plan import MemoryPlan
    from lacewing.text.template import ChatTemplate
    from lacewing.text.tokenizer import Tokenizer

DEFAULT_CONTEXT = 8192  # tokens at most, when none is asked for: a KV cache costs memory
CHUNK = 512  # prompt tokens of one run
# llama.cpp's names of mixtures of quants, by `general.file_type`.
FILE_TYPES = {10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M",
              19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 26: "IQ3_S", 27: "IQ3_M",
              28: "IQ2_S", 29: "IQ2_M", 31: "IQ1_M"}  # fmt: skip


class ModelInfo:
    """A checkpoint whose headers have been read: what can be told and planned without touching a weight.

    `warm`: begin to read tokenizer and template at once, in the background, rather than when they are asked for.
    `whole` False: files may end behind their headers; then the model can be described, not run.
    """

    def __init__(self, path: Path, options: LoadOptions, *, warm: bool = True, whole: bool = True):
        from lacewing.formats import open_checkpoint
        from lacewing.models import open_model

        try:
            self.checkpoint: Checkpoint = open_checkpoint(path, whole=whole, follow_links=options.follow_links)
        except OSError as error:
            raise ModelFormatError(path, f"cannot be read: {error.strerror or error}") from error
        self.tokenizer = Background(self._open_tokenizer, warm)
        self.template = Background(self._open_template, warm)
        self.spec: ModelSpec = open_model(self.checkpoint, options.context, DEFAULT_CONTEXT, options.kv_type, options.ignore_keys)
        self.options = self.suited(options)
        self._not_streamed = self.options.residency != options.residency

    def suited(self, options: LoadOptions) -> LoadOptions:
        """The options for this model: streaming that was asked for in general is nothing to a dense one."""
        if options.residency == "streamed" and options.residency_is_default and not self._is_mixture:
            return replace(options, residency="auto")
        return options

    @property
    def _is_mixture(self) -> bool:
        from lacewing.weights.experts import stacks_of

        return bool(stacks_of(self.spec.program))

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know of the checkpoint, and of the context, look-ahead and streaming that are asked of it."""
        context, trained = self.spec.context, self.spec.trained_context
        beyond = f"a context of {context} tokens exceeds the {trained} that the model was trained on; answers get worse there"
        found = [*self.spec.notices, *([beyond] if context > trained else [])]
        if self.options.look_ahead and not self._is_mixture:
            found.append("`look_ahead` has no effect: it is for mixtures of experts, and this model is none")
        if self._not_streamed:
            found.append("this model is dense, so nothing of it is streamed; the memory decides where its weights are")
        return tuple(found)

    @property
    def quant(self) -> str:
        """The name of the mixture of quants that the file says it is; else the quant that most bytes of the weights are in."""
        file_type = self.checkpoint.metadata.get("general.file_type")
        if isinstance(file_type, int) and file_type in FILE_TYPES:
            return FILE_TYPES[file_type]
        sizes: dict[str, int] = {}
        for tensor in self.spec.tensors.values():
            sizes[tensor.quant.name] = sizes.get(tensor.quant.name, 0) + tensor.nbytes
        return max(sizes, key=lambda name: sizes[name])

    def describe(self, plan: MemoryPlan) -> dict[str, Any]:
        """All that is known, as plain values, for `lacewing info`."""
        spec, checkpoint = self.spec, self.checkpoint
        quants: dict[str, dict[str, int]] = {}
        for tensor in spec.tensors.values():
            row = quants.setdefault(tensor.quant.name, {"tensors": 0, "bytes": 0})
            row["tensors"] += 1
            row["bytes"] += tensor.nbytes
        return {
            "name": spec.name,
            "architecture": spec.architecture,
            "format": checkpoint.format,
            "files": [str(path) for path in checkpoint.files] or [str(checkpoint.path)],
            "bytes": checkpoint.nbytes,
            "missing_bytes": checkpoint.missing_bytes,
            "quants": quants,
            "parameters": spec.parameters,
            "active_parameters": spec.active_parameters,
            "uncounted": list(spec.uncounted),
            "notices": [*self.notices, *self.chat_notices],
            "active_bytes": spec.active_bytes,
            "vocabulary": spec.vocab_size,
            "trained_context": spec.trained_context,
            "context": spec.context,
            "tokenizer": self._describe_tokenizer(),
            "template": self._describe_template(),
            "plan": {
                "residency": plan.residency,
                "needed_bytes": plan.needed_bytes,
                "budget_bytes": plan.budget_bytes,
                "kv_bytes": plan.kv_bytes,
                "rows": [{"name": row.name, "bytes": row.nbytes, "note": row.note, "decides": row.decides} for row in plan.rows],
                "reasons": list(plan.reasons),
            },
        }

    @property
    def chat_notices(self) -> tuple[str, ...]:
        """What a person should know before they talk with it: that it has no template, and is then probably a base model."""
        try:
            notice = self.template.result().notice
        except TemplateError as error:
            notice = f"{error}; text goes to the model as it is"
        except LacewingError:  # without a tokenizer there is no text at all, which is told elsewhere
            notice = ""
        return (notice,) if notice else ()

    def _describe_tokenizer(self) -> dict[str, Any]:
        try:
            tokenizer = self.tokenizer.result()
        except LacewingError as error:
            return {"problem": str(error)}
        names = ("kind", "vocab_size", "bos_id", "eos_id", "add_bos")
        return {**{name: getattr(tokenizer, name) for name in names}, "stop_ids": sorted(tokenizer.stop_ids)}

    def _describe_template(self) -> dict[str, Any]:
        try:
            template = self.template.result()
        except LacewingError as error:
            return {"problem": str(error)}
        return {"name": template.name, "sha256": template.sha256, "variants": sorted(template.variants)}

    def _open_tokenizer(self) -> Tokenizer:
        from lacewing.text.tokenizer import Tokenizer

        tokenizer = Tokenizer.from_checkpoint(self.checkpoint)
        tokenizer.warm()
        return tokenizer

    def _open_template(self) -> ChatTemplate:
        from lacewing.text.template import ChatTemplate

        return ChatTemplate.from_checkpoint(self.checkpoint, self.tokenizer.result())


def open_headers(path: Path, options: LoadOptions, cancelled: Callable[[], bool], *, warm: bool = True) -> ModelInfo:
    """`ModelInfo`, for a caller who may cancel meanwhile: large vocabularies take their time. Raises Cancelled."""
    return Background(lambda: ModelInfo(path, options, warm=warm)).result(cancelled)
