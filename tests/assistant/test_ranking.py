"""Documents are ranked by the probability of "yes" against "no" behind the prompt that the model was trained with."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import lacewing
from lacewing.assistant import ranking
from lacewing.assistant.ranking import Ranker
from lacewing.errors import OptionError, UnsupportedModelError
from lacewing.models.reranking import CLASSIFIER
from lacewing.options import LoadOptions
from lacewing.placement.info import ModelInfo
from tests.assistant.rerankers import NO, YES, reranker
from tests.checkpoints import tiny


def probability(logits: np.ndarray, yes: int, no: int) -> float:
    weights = np.exp(logits[[yes, no]].astype(np.float64) - logits.max())
    return float(weights[0] / weights.sum())


def scored(model, ranker: Ranker, query: str, document: str) -> tuple[float, np.ndarray]:
    """The score, and the logits behind the same prompt."""
    ids = ranker.ids(query, document)
    return ranker.score(model.engine.embed([ids], "last")[0]), model.logits(ids)[-1]


@pytest.mark.parametrize("labels", [("yes", "no"), ("no", "yes")])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_file_with_the_rows_apart(labels, backend, tmp_path):
    with lacewing.load(reranker(tmp_path / "r.gguf", labels), backend=backend) as model:
        ranker, scores = Ranker(model.info), []
        for document in ("about it", "something else, and longer than the others are", "x"):
            score, logits = scored(model, ranker, "what is it?", document)
            assert score == pytest.approx(probability(logits, YES, NO), abs=2e-4)
            scores.append(score)
        assert len(set(scores)) == 3 and all(0 < score < 1 for score in scores)


@pytest.mark.parametrize("format", ["gguf", "huggingface"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_that_is_named_so(format, tied, tmp_path, monkeypatch):
    """Its head has the rows; those of quantised files are read as they are computed with."""
    monkeypatch.setattr(ranking, "LABELS", ("y", "n"))  # the tiny vocabulary has no longer ones
    path = tiny("qwen3", format, tmp_path, max_position_embeddings=2048, tie_word_embeddings=tied)
    info = ModelInfo(path, LoadOptions("reference"))
    with pytest.raises(UnsupportedModelError, match="cannot rank documents"):
        Ranker(info)
    if format == "gguf":
        monkeypatch.setitem(info.checkpoint.metadata, "general.name", "Qwen3 Reranker 0.6B")
    else:
        monkeypatch.setitem(info.checkpoint.metadata["config.json"], "_name_or_path", "/models/Qwen3-Reranker-4B")
    with lacewing.Model(info) as model:
        yes, no = (model.tokenizer.encode(label)[0] for label in "yn")
        score, logits = scored(model, Ranker(model.info), "a question", "a text")
        assert score == pytest.approx(probability(logits, yes, no), abs=1e-5)


def test_the_prompt(tmp_path):
    """The file's own template or the model card's; what users write is text, whatever it spells."""
    info = ModelInfo(reranker(tmp_path / "r.gguf"), LoadOptions("reference"))
    tokenizer, ranker = info.tokenizer.result(), Ranker(info)
    text = tokenizer.decode(ranker.ids("{document}<|im_end|>", "{query}"), special=True)
    assert text == ranking.TEMPLATE.replace("{document}", "{}").replace("{query}", "{document}<|im_end|>").replace("{}", "{query}")
    ends = tokenizer.encode_markup("<|im_end|>")
    assert len(ends) == 1 and ranker.ids("<|im_end|>", "<|im_end|>").count(ends[0]) == 2  # those of the template
    asked = tokenizer.decode(ranker.ids("q", "d", "Find <|im_end|> it"), special=True)
    assert "<Instruct>: Find <|im_end|> it\n<Query>: q\n<Document>: d<|im_end|>" in asked
    info.checkpoint.metadata["tokenizer.chat_template.rerank"] = "Q {query} D {document}<|im_end|>"
    assert tokenizer.decode(Ranker(info).ids("1", "2"), special=True) == "Q 1 D 2<|im_end|>"
    with pytest.raises(OptionError, match="no place for an instruction"):
        Ranker(info).ids("1", "2", "Find it")
    info.checkpoint.metadata["tokenizer.chat_template.rerank"] = "Q {query}"
    with pytest.raises(UnsupportedModelError, match=r"tokenizer\.chat_template\.rerank needs \{query\} and \{document\} once each"):
        Ranker(info)


def test_files_that_rank_in_another_way(tmp_path):
    info = ModelInfo(reranker(tmp_path / "r.gguf", ("a", "b", "c")), LoadOptions("reference"))
    with pytest.raises(UnsupportedModelError, match="ranks by a, b, c; yes and no are known"):
        Ranker(info)
    named = ModelInfo(tiny("qwen3", "gguf", tmp_path), LoadOptions("reference"))
    named.checkpoint.metadata["general.name"] = "qwen3-reranker"
    with pytest.raises(UnsupportedModelError, match="no token 'yes'"):
        Ranker(named)


def test_a_head_that_cannot_be_used(tmp_path, monkeypatch):
    """Before anything is computed."""
    path = reranker(tmp_path / "r.gguf")
    info = ModelInfo(path, LoadOptions("reference"))
    tensor = info.checkpoint.tensors[CLASSIFIER]
    monkeypatch.setitem(info.checkpoint.tensors, CLASSIFIER, dataclasses.replace(tensor, shape=(2, 32)))
    with pytest.raises(UnsupportedModelError, match=r"cls.output.weight is \(2, 32\) instead of \(2, 64\)"):
        Ranker(info)
    data, (part,) = bytearray(path.read_bytes()), tensor.ranges
    data[part.offset : part.offset + 4] = np.float32(np.nan).tobytes()
    path.write_bytes(data)
    with pytest.raises(UnsupportedModelError, match="not finite"):
        Ranker(ModelInfo(path, LoadOptions("reference")))
