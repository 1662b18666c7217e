"""Qwen3-Next and Qwen 3.5: what files say of their layers, in every form; what is left out; real sizes."""

from dataclasses import replace

import numpy as np
import pytest

from lacewing.errors import UnsupportedModelError, WeightError
from lacewing.formats import open_checkpoint
from lacewing.formats.checkpoint import ByteRange, Checkpoint, TensorInfo
from lacewing.models import open_model
from lacewing.models.opening import find_architecture
from lacewing.program.ops import Attention, GatedActivation, GatedDelta
from lacewing.program.states import FixedState
from lacewing.quants import by_name
from tests import checkpoint_files
from tests.checkpoints import config_of, prompt_of, tiny, weights_of
from tests.families import delta
from tests.models.golden import TOLERANCE, VALUES
from tests.models.running import open_step, run
from tests.models.test_refusals import with_config, with_keys


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("delta")
    names = [(name, kind) for name in ("qwen35", "qwen3next", "qwen35moe") for kind in ("gguf", "huggingface")]
    return {(name, kind): open_checkpoint(tiny(name, kind, folder)) for name, kind in names}


def headers(checkpoint: Checkpoint, shapes: dict[str, tuple[int, ...]]) -> dict[str, TensorInfo]:
    """Tensors that are there by name and shape."""
    path, quant = checkpoint.path, by_name("BF16")
    return {name: TensorInfo(name, shape, quant, (ByteRange(path, 0, 2 * int(np.prod(shape))),)) for name, shape in shapes.items()}


@pytest.mark.parametrize("kind", ["gguf", "huggingface"])
def test_every_layer_has_the_states_of_its_kind(opened, kind):
    program = open_model(opened["qwen35moe", kind]).program
    fixed = [state for state in program.states if isinstance(state, FixedState)]
    assert fixed == [FixedState((("conv", (3, 128)),)), FixedState((("delta", (4, 16, 16)),))] * 3
    assert [group.members for group in program.groups] == [(0, 2, 4), (1, 3, 5), (6,)]
    mixers = [op for op in program.ops if isinstance(op, GatedDelta | Attention)]
    assert [type(op) for op in mixers] == [GatedDelta] * 3 + [Attention]
    assert (mixers[0].heads, mixers[0].key_heads, mixers[0].tiled) == (4, 2, kind == "gguf")
    assert mixers[3].q.width == 4 * 32 and len(mixers[3].reads) == 1
    shares = [op for op in program.ops if isinstance(op, GatedActivation) and op.gate.width == 1]
    assert len(shares) == 4


def test_what_configs_say_of_layers(opened):
    checkpoint = opened["qwen35", "huggingface"]
    expected = open_model(checkpoint)
    for same in (
        with_config(checkpoint, layer_types=None),
        with_config(checkpoint, layer_types=None, full_attention_interval=4),
        with_config(checkpoint, model_type="qwen3_5", attn_output_gate=True, output_gate_type="swish", mtp_num_hidden_layers=1,
                    mtp_use_dedicated_embeddings=False, mamba_ssm_dtype="float32"),
    ):  # fmt: skip
        spec = open_model(same)
        assert spec.program == expected.program and not spec.notices


def test_what_keys_say_of_layers(opened):
    """Flags, every so many, or 0 key heads as Ollama writes them."""
    checkpoint = opened["qwen35", "gguf"]
    expected = open_model(checkpoint).program
    for changes in (
        {"qwen35__full_attention_interval": None},
        {"qwen35__full_attention_interval": 4, "qwen35__attention__recurrent_layers": None},
        {"qwen35__attention__recurrent_layers": None, "qwen35__attention__head_count_kv": [0, 0, 0, 2]},
    ):
        assert open_model(with_keys(checkpoint, **changes)).program == expected


def test_older_files_of_qwen3next(tmp_path):
    """q, k, v and gates in one weight, as it is trained."""
    config = config_of("qwen3next")
    weights = weights_of(config)
    keys = checkpoint_files.metadata(config) | delta.metadata(config)
    found = delta.tensors(config, weights)
    for layer in range(3):
        del found[f"blk.{layer}.attn_qkv.weight"], found[f"blk.{layer}.attn_gate.weight"]
        found[f"blk.{layer}.ssm_in.weight"] = weights[f"model.layers.{layer}.linear_attn.in_proj_qkvz.weight"]
    path = checkpoint_files.write_gguf_tensors(tmp_path / "older.gguf", "qwen3next", keys, found, "F32")
    _, step = open_step(path)
    logits = run(step, prompt_of("qwen3next"))[VALUES["rows"]]
    np.testing.assert_allclose(logits, VALUES["qwen3next.logits"], rtol=0, atol=TOLERANCE)


def test_a_multimodal_folder_with_prediction(opened):
    """The language model is within; images and predicted tokens are left out."""
    checkpoint = opened["qwen35", "huggingface"]
    tensors = {name.replace("model.", "model.language_model.", 1): tensor for name, tensor in checkpoint.tensors.items()}
    more = {"model.visual.patch_embed.proj.weight": (8, 8), "mtp.fc.weight": (64, 128), "mtp.norm.weight": (64,),
            "mtp.layers.0.self_attn.q_proj.weight": (256, 64)}  # fmt: skip
    outer = {"model_type": "qwen3_5", "text_config": checkpoint.metadata["config.json"], "vision_config": {"depth": 1},
             "tie_word_embeddings": True, "video_token_id": 7}  # fmt: skip
    whole = replace(checkpoint, tensors=tensors | headers(checkpoint, more), metadata={"config.json": outer})
    spec = open_model(whole)
    assert spec.program == open_model(checkpoint).program
    assert [notice.partition(" (")[0] for notice in spec.notices] == [
        "the vision part of this checkpoint", "the multi-token prediction part of this checkpoint"]  # fmt: skip


@pytest.mark.parametrize("name", ["qwen35", "qwen3next", "qwen35moe"])
def test_a_layer_of_prediction_in_a_gguf_file(opened, name):
    checkpoint = opened[name, "gguf"]
    extra = headers(checkpoint, {f"blk.4.{part}.weight": (64,) for part in ("attn_norm", "nextn.enorm", "attn_q")})
    changes = {f"{name}__block_count": 5, f"{name}__nextn_predict_layers": 1}
    changes |= {f"{name}__attention__recurrent_layers": [True, True, True, False, False]}
    spec = open_model(with_keys(replace(checkpoint, tensors={**checkpoint.tensors, **extra}), **changes))
    assert spec.program == open_model(checkpoint).program
    assert any("the multi-token prediction part of this checkpoint (384 B) is left out" in notice for notice in spec.notices)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("qwen35", {"layer_types": ["linear_attention"] * 3 + ["mamba"]}, "layer_types must name"),
        ("qwen35", {"layer_types": ["linear_attention"]}, "each of the 4 layers"),
        ("qwen35", {"attn_output_gate": False}, "attn_output_gate is false"),
        ("qwen35", {"output_gate_type": "sigmoid"}, "output_gate_type is 'sigmoid'"),
        ("qwen35", {"hidden_act": "gelu_pytorch_tanh"}, "hidden_act is gelu_tanh"),
        ("qwen35", {"linear_num_value_heads": 3}, "linear_num_value_heads is 3, which 2 key heads do not divide"),
        ("qwen35", {"linear_conv_kernel_dim": 1}, "linear_conv_kernel_dim is 1"),
        ("qwen35", {"linear_key_head_dim": 32}, "in_proj_qkv.weight has shape"),
        ("qwen35", {"num_experts": 8}, "mixture"),
        ("qwen3next", {"shared_expert_intermediate_size": 0}, "no place in the model|has shape"),
        ("qwen3next", {"model_type": "qwen3_5_moe_text"}, "are missing"),
    ],
)
def test_refused_configs(opened, name, changes, message):
    with pytest.raises((UnsupportedModelError, WeightError), match=message):
        open_model(with_config(opened[name, "huggingface"], **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ssm__time_step_rank": 3}, "ssm.time_step_rank is 3, which 2 key heads do not divide"),
        ({"ssm__inner_size": 66}, "ssm.inner_size is 66, which 4 heads do not divide"),
        ({"ssm__state_size": 2**20}, "ssm.state_size is 1048576"),
        ({"ssm__conv_kernel": None}, "ssm.conv_kernel is missing"),
        ({"attention__recurrent_layers": [True]}, "flags, one a layer"),
        ({"attention__recurrent_layers": None, "attention__head_count_kv": [0, 2]}, "has 2 numbers; there are 4 layers"),
        ({"attention__recurrent_layers": [False] * 4}, "are missing"),
        ({"ssm__group_count": 4}, "has shape"),
    ],
)
def test_refused_keys(opened, changes, message):
    changes = {f"qwen35__{name}": value for name, value in changes.items()}
    with pytest.raises((UnsupportedModelError, WeightError), match=message):
        open_model(with_keys(opened["qwen35", "gguf"], **changes))


# The sizes of config.json as published (Qwen3-Next: its model card's config; Qwen 3.5: the defaults of transformers' classes, which
# are those of 9B and 35B-A3B, and the scripts of slime for 27B), with the parameters that the names tell, in billions: of the text
# part, without what predicts tokens ahead.
REAL = {
    "Qwen3-Next-80B-A3B": ({"model_type": "qwen3_next", "intermediate_size": 5120, "rope_theta": 1e7, "rope_scaling": None}, 80, 3),
    "Qwen3.5-35B-A3B": ({"model_type": "qwen3_5_moe_text"}, 35, 3),
    "Qwen3.5-9B": ({"model_type": "qwen3_5_text"}, 9, 9),
    "Qwen3.5-27B": (
        {"model_type": "qwen3_5_text", "hidden_size": 5120, "intermediate_size": 17408, "num_hidden_layers": 64,
         "num_attention_heads": 24, "linear_num_value_heads": 48},
        27,
        27,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_sizes(opened, name):
    """Only what differs from the defaults of the class is told."""
    given, parameters, active = REAL[name]
    defaults = find_architecture(given["model_type"], "here").defaults[given["model_type"]]
    config = {**defaults, "tie_word_embeddings": False} | given
    del config["layer_kinds"]
    checkpoint = opened["qwen35", "huggingface"]
    tensors = headers(checkpoint, delta.shapes(config))
    real = given | {"tie_word_embeddings": False}
    spec = open_model(replace(checkpoint, tensors=tensors, metadata={"config.json": real}, whole=False), 4096)
    assert spec.parameters / 1e9 == pytest.approx(parameters, rel=0.03)
    assert spec.active_parameters / 1e9 == pytest.approx(active, rel=0.3 if active < parameters else 0.03)
