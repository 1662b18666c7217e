"""The relevance of a document to a query: the probability that a model trained for it answers "yes" rather than "no"."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from lacewing.errors import OptionError, UnsupportedModelError
from lacewing.formats.read import mapped
from lacewing.models.reranking import CLASSIFIER, LABELS, is_reranker, labels_of

if TYPE_CHECKING:
    from lacewing.formats.checkpoint import TensorInfo
    from lacewing.placement.info import ModelInfo

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
# As the model card of Qwen3-Reranker has it; GGUF files have the same as their template "rerank".
TEMPLATE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. Note that "
    'the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: ' + INSTRUCTION + "\n<Query>: {query}\n"
    "<Document>: {document}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
_KEY = "tokenizer.chat_template.rerank"
_PLACES = ("{query}", "{document}")


class Ranker:
    """Prompts and scores of a model. Raises UnsupportedModelError for one that was not trained for it, or whose head or template
    cannot be used."""

    def __init__(self, info: ModelInfo):
        if not is_reranker(info.checkpoint):
            raise self.refusal(info.spec.name)
        self._info = info
        self._template = self._template_of(info)
        self._rows = self._head()

    @staticmethod
    def _template_of(info: ModelInfo) -> str:
        """The file's own, or the model card's."""
        own = info.checkpoint.metadata.get(_KEY, TEMPLATE)
        if not isinstance(own, str) or any(own.count(place) != 1 for place in _PLACES):
            raise UnsupportedModelError(f"{info.spec.name}: {_KEY} needs {' and '.join(_PLACES)} once each, to rank documents")
        return own

    @staticmethod
    def refusal(name: str) -> UnsupportedModelError:
        """Of a model that was not trained for it."""
        return UnsupportedModelError(
            f"{name} cannot rank documents: that takes a model trained for it, such as Qwen3-Reranker. Vectors of /v1/embeddings, "
            "compared by their cosine, find similar texts, but not answers to a query"
        )

    def ids(self, query: str, document: str, instruction: str | None = None) -> list[int]:
        """The prompt whose last hidden state `score` takes. Spellings of control tokens in the texts stay text. Raises OptionError
        for an instruction if the template has no place for one."""
        if instruction is not None and INSTRUCTION not in self._template:
            raise OptionError(f"the template of {self._info.spec.name} has no place for an instruction; leave `instruct` out")
        segments: list[tuple[str, bool]] = []
        rest = self._template
        given = {INSTRUCTION: instruction or INSTRUCTION, "{query}": query, "{document}": document}
        while (found := min((place for place in given if place in rest), key=rest.index, default=None)) is not None:
            before, _, rest = rest.partition(found)
            segments += [(before, True), (given.pop(found), False)]
        return self._info.tokenizer.result().encode_segments([*segments, (rest, True)])

    def score(self, hidden: np.ndarray) -> float:
        """From 0 to 1, of a prompt's hidden state after the final norm, float32 (D,)."""
        yes, no = (self._rows @ hidden.astype(np.float64)).tolist()
        return 1.0 / (1.0 + math.exp(min(no - yes, 700.0)))

    def _head(self) -> np.ndarray:
        """float64 (2, D): of the head those of "yes" and "no"."""
        tensors = self._info.checkpoint.tensors
        if CLASSIFIER in tensors:
            labels = labels_of(self._info.checkpoint)
            if sorted(labels) != sorted(LABELS):
                raise UnsupportedModelError(
                    f"{self._info.spec.name} ranks by {', '.join(labels)}; {' and '.join(LABELS)} are known"
                )
            if tensors[CLASSIFIER].shape != (wanted := (len(LABELS), self._info.spec.config.width)):
                raise UnsupportedModelError(
                    f"{self._info.spec.name}: {CLASSIFIER} is {tensors[CLASSIFIER].shape} instead of {wanted}; fetch the file again"
                )
            return self._of(tensors[CLASSIFIER], [labels.index(label) for label in LABELS])
        head = self._info.spec.tensors.get("output.weight") or self._info.spec.tensors["token_embd.weight"]
        return self._of(head, [self._token(label) for label in LABELS])

    def _of(self, tensor: TensorInfo, rows: list[int]) -> np.ndarray:
        if len(tensor.ranges) != 1 or tensor.scales is not None:
            raise UnsupportedModelError(f"{self._info.spec.name}: the head is stored in a way that single rows are not read from")
        (part,) = tensor.ranges
        data = mapped(part, self._info.checkpoint.identities.get(part.path))
        size = tensor.quant.row_bytes(tensor.shape[-1])
        found = np.stack([tensor.quant.dequantise(data[row * size : (row + 1) * size]) for row in rows]).astype(np.float64)
        if not np.isfinite(found).all():
            raise UnsupportedModelError(f"{self._info.spec.name}: the head has values that are not finite; fetch the file again")
        return found

    def _token(self, text: str) -> int:
        ids = self._info.tokenizer.result().encode(text)
        if len(ids) != 1:
            raise UnsupportedModelError(f"{self._info.spec.name} has no token {text!r}, whose probability would rank documents")
        return ids[0]
