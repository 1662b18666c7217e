"""DeepSeek V3.2 and GLM-5: what decides the choice of positions, files of all forms, bits, sessions, published sizes, refusals."""

from math import prod
from pathlib import Path

import numpy as np
import pytest

from lacewing.api import load
from lacewing.backends import init_backend
from lacewing.errors import UnsupportedModelError, WeightError
from lacewing.formats import open_checkpoint
from lacewing.formats.checkpoint import Checkpoint, TensorInfo
from lacewing.models import open_model
from lacewing.models.blocks.decoder import build_program
from lacewing.models.opening import find_architecture
from lacewing.models.readers.huggingface import read_huggingface
from lacewing.models.sizes import measure
from lacewing.program.ops import SelectKeys
from lacewing.program.states import PAGE
from lacewing.quants import by_name
from tests.checkpoint_files import safetensors_bytes
from tests.checkpoints import config_of, prompt_of, tiny, weights_of
from tests.models.golden import VALUES
from tests.models.readers.test_mixture_configs import NOISE, R1
from tests.models.running import open_step, run
from tests.models.test_refusals import with_config, with_keys
from tests.offload.splits import IDS, cuts, mixed_run, open_split

# config.json of deepseek-ai/DeepSeek-V3.2 and of zai-org/GLM-5.2, without what says nothing of the maths
V32 = R1 | {"model_type": "deepseek_v32", "index_head_dim": 128, "index_n_heads": 64, "index_topk": 2048}
V32 |= {"quantization_config": R1["quantization_config"] | {"scale_fmt": "ue8m0"}}
GLM_52 = {"model_type": "glm_moe_dsa", "first_k_dense_replace": 3, "head_dim": 192, "hidden_size": 6144, "index_head_dim": 128,
          "index_n_heads": 32, "index_share_for_mtp_iteration": True, "index_skip_topk_offset": 3, "index_topk": 2048,
          "index_topk_freq": 4, "index_topk_pattern": None, "indexer_rope_interleave": True, "intermediate_size": 12288,
          "kv_lora_rank": 512, "max_position_embeddings": 1048576, "mlp_layer_types": ["dense"] * 3 + ["sparse"] * 75,
          "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 1, "n_routed_experts": 256, "n_shared_experts": 1,
          "norm_topk_prob": True, "num_attention_heads": 64, "num_experts_per_tok": 8, "num_hidden_layers": 78,
          "num_key_value_heads": 64, "num_nextn_predict_layers": 1, "q_lora_rank": 2048, "qk_head_dim": 256,
          "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-5, "rope_interleave": True,
          "rope_parameters": {"rope_theta": 8000000, "rope_type": "default"}, "routed_scaling_factor": 2.5,
          "scoring_func": "sigmoid", "topk_group": 1, "topk_method": "noaux_tc", "v_head_dim": 256,
          "vocab_size": 154880}  # fmt: skip


def read(config):
    checkpoint = Checkpoint(Path("model"), "safetensors", {"config.json": NOISE | config}, {})
    return read_huggingface(checkpoint, find_architecture(config["model_type"], "model"), {})


def opened(name, folder, form="huggingface", **changes):
    return open_checkpoint(tiny(name, form, folder, **changes))


# billions of parameters in all and for a token, as the makers say. DeepSeek counts 671 for V3, to which the indexers add 0.6
@pytest.mark.parametrize(("config", "published"), [(V32, (671.5, 37.5)), (GLM_52, (744, 40))])
def test_parameters_as_published(config, published):
    found, notices = read(config)
    row, program = (
        find_architecture(config["model_type"], "model"),
        build_program(found, 4096, find_architecture(config["model_type"], "").block),
    )
    tensors = {name: TensorInfo(name, shape, by_name("BF16"), ()) for name, shape in program.weights.items()}
    sizes = measure(program, tensors, row.uncounted)
    assert notices == []
    assert sizes.parameters == sum(map(prod, program.weights.values())) and sizes.parameters / 1e9 == pytest.approx(
        published[0], rel=0.01
    )
    assert sizes.active_parameters / 1e9 == pytest.approx(published[1], rel=0.03)


def test_which_layers_of_glm_choose():
    """The schedule of GLM-5.2, however it is written."""
    indexer = read(GLM_52)[0].latent.indexer
    own = [layer < 3 or (layer - 2) % 4 == 0 for layer in range(78)]
    assert list(indexer.layers) == own and indexer.adjacent_rope
    listed = ["full" if full else "shared" for full in own]
    assert read(GLM_52 | {"indexer_types": listed, "index_topk_freq": 1})[0].latent.indexer == indexer
    for pattern in (listed, "".join(kind[0].upper() for kind in listed)):
        assert read(GLM_52 | {"index_topk_pattern": pattern, "index_topk_freq": 1})[0].latent.indexer == indexer
    assert all(read(GLM_52 | {"index_topk_freq": 1})[0].latent.indexer.layers)
    assert not read(V32)[0].latent.indexer.adjacent_rope


def test_older_files_do_not_say_which_layers_choose(tmp_path):
    """GLM-5 and 5.1: all; GLM-5.2, known by its context: some."""
    checkpoint = opened("glm-dsa", tmp_path, "gguf")
    del checkpoint.metadata["glm-dsa.attention.indexer.types"]  # type: ignore[attr-defined]
    with pytest.raises(WeightError, match=r"blk\.1\.indexer.*, blk\.2\.indexer"):
        open_model(checkpoint, 64)
    with pytest.raises(WeightError, match=r"10 weights are missing: (blk\.[12]\.indexer\.\w+\.\w+(, | and 4 more))+"):
        open_model(with_keys(checkpoint, **{"glm-dsa.context_length": 2**20}), 64)


def test_the_choice_matters(tmp_path):
    """Fewer positions give other logits from the first token on that sees more, and all positions those of dense attention."""
    ids, found = prompt_of("deepseek32"), {}
    for most in (8, 24, 4096):
        _, step = open_step(
            tiny("deepseek32", "huggingface", tmp_path / str(most), index_topk=most), backend=init_backend("cpu", 2)
        )
        found[most] = run(step, ids)
        step.close()
    assert np.array_equal(found[24], found[4096])
    assert np.array_equal(found[8][:8], found[24][:8])
    assert np.abs(found[8] - found[24])[8:].max(axis=1).min() > 1e-3


def test_a_session_is_saved_with_the_index(tmp_path):
    """And what follows is the same as if it had never been away; so it is after a prefix of another text."""
    path, ids, other = tiny("glm-dsa", "gguf", tmp_path), prompt_of("glm-dsa", 150), prompt_of("deepseek32", 20)
    with load(path, backend="cpu", threads=2, context=256) as model:
        model.engine.extend(ids)
        kept, data = model.read_state()
        assert kept == ids
        after = model.engine.extend([7]).copy()
        model.engine.scheduler.last = ids[:100]
        branched = model.engine.extend(other).copy()
    with load(path, backend="cpu", threads=1, context=256) as model:
        assert np.array_equal(model.engine.extend([*ids[:100], *other]), branched)
        model.write_state(kept, data)
        assert model.engine.held([*ids, 7]) == 150
        assert np.array_equal(model.engine.extend([7]), after)


def test_layers_on_another_device_see_what_was_chosen(tmp_path):
    """Of a program that is cut anywhere, within layers that share a choice too."""
    path = tiny("glm-dsa", "gguf", tmp_path, index_topk=4)
    spec, whole = open_step(path, 32)
    expected = run(whole, IDS)
    for cut in list(cuts(spec.program))[::8]:
        devices = [0] * cut + [1] * (len(spec.program.ops) - cut)
        step = open_split(path, spec, [init_backend("cpu", 2), init_backend("reference", 1)], devices)
        np.testing.assert_allclose(mixed_run(step), expected, rtol=0, atol=1e-4, err_msg=f"{cut}")
        step.close()


def test_the_plan_counts_the_index(tmp_path):
    spec = open_model(opened("glm-dsa", tmp_path), 128)
    (with_index, without) = spec.program.groups
    assert (len(with_index.members), len(without.members)) == (2, 3)
    assert with_index.nbytes == 2 * PAGE * 4 * (40 + 64) and without.nbytes == 3 * PAGE * 4 * 40
    assert sum(isinstance(op, SelectKeys) for op in spec.program.ops) == 2
    short = open_model(opened("glm-dsa", tmp_path, "gguf"), 128, kv_type="f16").program.groups
    assert 2 * short[0].nbytes == with_index.nbytes


def test_weights_that_are_not_used(tmp_path):
    """Layers for multi-token prediction, and indexers of layers that share, are left out."""
    config = config_of("glm-dsa")
    weights = weights_of(config)
    more = {
        name.replace("layers.0.", f"layers.{layer}."): value
        for name, value in weights.items()
        if "layers.0." in name
        for layer in (5,)
    }
    more |= {
        name.replace("layers.0.", "layers.1."): value for name, value in weights.items() if "layers.0.self_attn.indexer" in name
    }
    more |= {"model.layers.5.eh_proj.weight": np.zeros((64, 128), np.float32)}
    path = tiny("glm-dsa", "huggingface", tmp_path, num_nextn_predict_layers=1)
    (path / "model.safetensors").write_bytes(safetensors_bytes(weights | more, "F32"))
    _, step = open_step(path, backend=init_backend("cpu", 2))
    np.testing.assert_allclose(run(step, prompt_of("glm-dsa"))[VALUES["rows"]], VALUES["glm-dsa.logits"], rtol=0, atol=1e-4)
    step.close()


@pytest.mark.parametrize(
    ("name", "changes", "problem"),
    [
        ("deepseek32", {"index_topk": 0}, "index_topk is 0"),
        ("deepseek32", {"index_n_heads": "8"}, "index_n_heads is '8'"),
        ("deepseek32", {"index_head_dim": 4}, "8 rotated values in heads of 4 of the indexer"),
        ("deepseek32", {"q_lora_rank": None}, "q_lora_rank"),
        ("deepseek32", {"moe_layer_freq": 2}, "moe_layer_freq is 2"),
        ("glm-dsa", {"indexer_types": ["full"]}, "indexer_types must name full or shared for each of the 5 layers"),
        ("glm-dsa", {"indexer_types": ["shared", "full", "full", "full", "full"]}, "the first layer has no indexer"),
        ("glm-dsa", {"indexer_types": "FSSFS"}, "indexer_types must name"),
        ("glm-dsa", {"indexer_types": None, "index_topk_pattern": "FXXFX"}, "index_topk_pattern must name"),
        ("glm-dsa", {"indexer_types": [["full"]] * 5}, "indexer_types must name"),
        ("glm-dsa", {"indexer_types": None, "index_topk_freq": -1}, "index_topk_freq is -1"),
    ],
)
def test_refusals(name, changes, problem, tmp_path):
    with pytest.raises(UnsupportedModelError, match=problem):
        open_model(with_config(opened(name, tmp_path), **changes), 64)


def test_refusals_of_gguf_keys(tmp_path):
    checkpoint = opened("glm-dsa", tmp_path, "gguf")
    for key, value, problem in (
        ("top_k", 0, "top_k is 0"),
        ("types", [True], "must be a list of 5 flags"),
        ("types", [2] * 5, "must be a list of 5 flags"),
        ("key_length", "x", "key_length is 'x'"),
        ("block_size", 4, "does not know the key"),
    ):
        with pytest.raises(UnsupportedModelError, match=problem):
            open_model(with_keys(checkpoint, **{f"glm-dsa.attention.indexer.{key}": value}), 64)


def test_a_choice_of_more_than_the_context_takes_no_memory_for_it(tmp_path):
    program = open_model(opened("deepseek32", tmp_path, index_topk=2**24), 64).program
    assert {op.chosen.width for op in program.ops if isinstance(op, SelectKeys)} == {64}
