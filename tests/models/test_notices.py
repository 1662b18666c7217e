"""Parts of a checkpoint that are no language model are left out, and a person is told so."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lacewing.api import load
from lacewing.errors import WeightError
from lacewing.formats import open_checkpoint
from lacewing.formats.checkpoint import TensorInfo
from lacewing.models import open_model
from tests.checkpoint_files import as_bytes
from tests.checkpoints import config_of, prompt_of, tiny, weights_of
from tests.models.test_fp8 import write
from tests.tolerance import assert_equal_up_to_rounding

PICTURE = np.ones((16, 64), np.float32)
NOTICE = "the vision part of this checkpoint (8.0 KiB) is left out: text only"
# prefix of the language model's names, the outer model type, names of weights of pictures
PARTS = {
    "llama4": (
        "language_model.",
        "llama4",
        ("vision_model.patch_embedding.linear.weight", "multi_modal_projector.linear_1.weight"),
    ),
    "mistral4": (
        "model.language_model.",
        "mistral3",
        ("model.vision_tower.ln_pre.weight", "model.multi_modal_projector.norm.weight"),
    ),
}


def multimodal(name, folder):
    """A directory with a vision part around the tiny checkpoint `name`."""
    prefix, outer, extra = PARTS[name]
    path = tiny(name, "huggingface", folder)
    weights = {(prefix + key if "lm_head" not in key else key).replace("language_model.model.", "language_model."): value
               for key, value in weights_of(config_of(name)).items()}  # fmt: skip
    weights |= dict.fromkeys(extra, PICTURE)
    write(path, {key: ("F32", value, as_bytes(value, "F32")) for key, value in weights.items()})
    config = {"model_type": outer, "text_config": config_of(name), "vision_config": {"model_type": "any"}, "image_token_index": 10}
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("name", PARTS)
def test_a_multimodal_directory(name, tmp_path):
    plain, folder = tiny(name, "huggingface", tmp_path / "plain"), multimodal(name, tmp_path / "whole")
    with load(plain, backend="reference") as alone, load(folder, backend="reference") as whole:
        assert alone.notices == ()
        assert whole.notices == (NOTICE,)
        assert_equal_up_to_rounding(whole.logits(prompt_of(name)), alone.logits(prompt_of(name)))
        assert whole.spec.sizes == alone.spec.sizes


def test_a_gguf_file_with_other_parts(tmp_path):
    """As Ollama makes them: pictures and sound beside the language model, with keys of their own."""
    checkpoint = open_checkpoint(tiny("llama4", "gguf", tmp_path))
    place = checkpoint.tensors["output.weight"]
    extra = {name: replace(place, name=name) for name in ("v.blk.0.attn_q.weight", "mm.linear_1.weight", "a.conv1d.1.weight")}
    metadata = dict(checkpoint.metadata) | {"llama4.vision.block_count": 34, "llama4.mm.tokens_per_image": 144}
    spec = open_model(replace(checkpoint, tensors={**checkpoint.tensors, **extra}, metadata=metadata))
    assert spec.notices == (
        "the vision part of this checkpoint (160.0 KiB) is left out: text only",
        "the audio part of this checkpoint (80.0 KiB) is left out: text only",
    )
    assert spec.sizes == open_model(checkpoint).sizes and open_model(checkpoint).notices == ()
    with pytest.raises(WeightError, match="have no place"):
        tensors: dict[str, TensorInfo] = {**checkpoint.tensors, "other.weight": replace(place, name="other.weight")}
        open_model(replace(checkpoint, tensors=tensors))
