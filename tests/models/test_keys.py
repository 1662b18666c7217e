"""Keys of other tools: read under their own names, known to change nothing, left alone with a notice, or refused with a way out."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf.constants import Keys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lacewing.api import load
from lacewing.cli.app import app
from lacewing.errors import LacewingError, OptionError, UnsupportedModelError
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from lacewing.models.readers.gguf import SYNONYMS
from tests.checkpoints import CASES, config_of, tiny
from tests.models.test_refusals import with_config, with_keys

DECLARED = json.loads((Path(__file__).parents[1] / "data" / "config_keys.json").read_text())
CASE_OF = {config_of(name)["model_type"]: name for name in reversed(CASES)}
LLAMA_CPP = sorted(
    name.replace("{dense}", "dense_2").removeprefix("{arch}.")
    for group in vars(Keys).values()
    for name in (vars(group).values() if isinstance(group, type) else ())
    if isinstance(name, str) and name.startswith("{arch}.")
)
# Of llama.cpp's keys, those that change the maths of some architecture and of none that runs here.
FOREIGN = """activation_sparsity_scale altup.active_idx altup.num_inputs attention.clamp_kqv attention.decay_lora_rank
attention.gate_lora_rank attention.iclr_lora_rank attention.max_alibi_bias attention.output_scale attention.relative_buckets_count
attention.shared_kv_layers attention.value_residual_mix_lora_rank convnext.block_count convnext.embedding_length
embedding_length_per_layer_input embedding_scale experts_per_group full_attention_interval kda.head_dim logit_scale
moe_every_n_layers moe_latent_size posnet.block_count posnet.embedding_length rescale_every_n_layers residual_scale
rope.scaling.alpha router_logit_softcapping ssm.conv_kernel ssm.dt_b_c_rms ssm.group_count ssm.inner_size ssm.state_size
ssm.time_step_rank swiglu_clamp_exp swiglu_clamp_shexp swin_norm time_decay_extra_dim time_mix_extra_dim token_shift_count
use_parallel_residual wkv.head_size""".split()  # noqa: SIM905
# and those that some architecture here knows, and llama does not
OTHERS = """attention.key_length_mla attention.kv_lora_rank attention.q_lora_rank attention.temperature_length
attention.temperature_scale attention.value_length_mla attn_logit_softcapping final_logit_softcapping
rope.scaling.yarn_attn_factor rope.scaling.yarn_ext_factor shortconv.l_cache""".split()  # noqa: SIM905
# What Ollama's converters write below an architecture's name, besides llama.cpp's keys (convert/*.go)
OLLAMA = {"image_token_index": 10, "mm.projector_bias": True, "mm.projector_hidden_act": "gelu", "mm.tokens_per_image": 256,
          "mm_tokens_per_image": 256, "rope.mrope_section": np.array([16, 24, 24]), "spatial_merge_size": 2,
          "attention.layer_norm_epsilon": 1e-5, "vision.attention.head_count": 16, "vision.block_count": 27,
          "vision.fullatt_block_indexes": np.array([7, 15]), "vision.image_size": 896, "vision.num_channels": 3,
          "vision.patch_size": 14, "vision.rope.freq_base": 1e4, "vision.window_size": 112}  # fmt: skip


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    names = {"llama", "gemma3", "llama4", "deepseek3", "gpt-oss", "lfm2", "olmoe", *CASE_OF.values()}
    return {name: {kind: tiny(name, kind, folder) for kind in ("gguf", "huggingface")} for name in names}


def gguf(opened, name):
    return open_checkpoint(opened[name]["gguf"])


def directory(opened, name):
    return open_checkpoint(opened[name]["huggingface"])


def test_every_key_of_llama_cpp_has_its_place(opened):
    """Read, ignored, or refused with its name: the list is the one of llama.cpp's converter."""
    checkpoint, refused = gguf(opened, "llama"), []
    for key in LLAMA_CPP:
        try:
            open_model(with_keys(checkpoint, **{f"llama.{key}": 3}))
        except LacewingError as error:
            if "does not know the key" in str(error):
                assert f"`ignore_keys=['llama.{key}']`" in str(error)
                assert open_model(with_keys(checkpoint, **{f"llama.{key}": 3}), ignore_keys=[f"llama.{key}"])
                refused.append(key)
    assert set(refused) == {*FOREIGN, *OTHERS} and len(LLAMA_CPP) > 100


@pytest.mark.parametrize("name", ["llama", "gemma3", "llama4", "deepseek3", "gpt-oss", "lfm2"])
def test_keys_that_ollama_writes_change_nothing(opened, name):
    checkpoint = gguf(opened, name)
    architecture = checkpoint.metadata["general.architecture"]
    spec = open_model(with_keys(checkpoint, **{f"{architecture}.{key}": value for key, value in OLLAMA.items()}))
    assert spec.program == open_model(checkpoint).program and spec.notices == ()


@pytest.mark.parametrize("key", ["logit_scale", "residual_scale", "embedding_scale", "attention.output_scale"])
def test_a_factor_of_one_is_none(opened, key):
    assert open_model(with_keys(gguf(opened, "llama"), **{f"llama.{key}": 1.0})).notices == ()


@pytest.mark.parametrize("synonym", SYNONYMS)
def test_a_synonym_is_read_as_the_key_it_stands_for(opened, synonym):
    """And gives way to it."""
    usual = SYNONYMS[synonym]
    name, value = {
        "expert_weights_norm": ("deepseek3", True),
        "attention.temperature_scale": ("deepseek3", 0.3),
        "attention.sliding_window": ("llama4", 4),
        "attention.key_length": ("llama", 8),
        "rope.scaling.yarn_ext_factor": ("llama-yarn", 1.0),
    }.get(usual, ("llama-yarn", 3.0))
    path = opened[name]["gguf"] if name in opened else tiny(name, "gguf", opened["llama"]["gguf"].parent)
    checkpoint = open_checkpoint(path)
    architecture = checkpoint.metadata["general.architecture"]
    bare = {key: each for key, each in checkpoint.metadata.items() if key != f"{architecture}.{usual}"}

    def config(**keys):
        metadata = bare | {f"{architecture}.{key}": each for key, each in keys.items()}
        try:
            return open_model(replace(checkpoint, metadata=metadata)).config
        except LacewingError as error:
            return str(error)

    assert config(**{synonym: value}) == config(**{usual: value})
    assert usual == "rope.scaling.yarn_ext_factor" or config(**{synonym: value}) != config()
    assert config(**{usual: value, synonym: 7}) == config(**{usual: value})


def test_keys_outside_the_architecture_are_a_notice(opened):
    metadata = {"general.anything": 1, "tokenizer.ggml.mystery": 1, "split.count": 1, "quantize.imatrix.file": "x"}
    assert open_model(with_keys(gguf(opened, "llama"), **metadata)).notices == ()
    spec = open_model(with_keys(gguf(opened, "llama"), **{f"tool\x1b.{at}": at for at in range(8)}))
    assert len(spec.notices) == 1 and "8 unknown keys ignored: tool\\x1b.0, tool\\x1b.1" in spec.notices[0]
    assert spec.notices[0].endswith("tool\\x1b.5 and 2 more")


@pytest.mark.parametrize("kind", DECLARED)
def test_every_key_that_transformers_declares_has_its_place(opened, kind):
    """Read, known to change nothing, or refused unless it asks for nothing; none is taken for a trainer's own."""
    checkpoint = directory(opened, CASE_OF[kind])
    before = open_model(checkpoint)
    for key in DECLARED[kind]:
        try:
            assert open_model(with_config(checkpoint, **{key: "odd"})).notices == before.notices, key
        except LacewingError as error:
            assert key in str(error) or key in ("model_type", "architectures")


@pytest.mark.parametrize(("kind", "key", "value"), [("olmoe", "clip_qkv", 8.0), ("llama", "is_encoder_decoder", True)])
def test_a_declared_key_that_is_not_read_is_refused_unless_it_is_ignored(opened, kind, key, value):
    checkpoint = directory(opened, CASE_OF[kind])
    assert open_model(with_config(checkpoint, **{key: None})).notices == ()
    changed = with_config(checkpoint, **{key: value})
    with pytest.raises(UnsupportedModelError, match=rf"config\.json: {key} is .* use `ignore_keys=\['{key}'\]`"):
        open_model(changed)
    assert open_model(changed, ignore_keys=[key]).program == open_model(checkpoint).program


def test_keys_of_trainers_are_a_notice(opened):
    """Undeclared ones, which transformers leaves alone."""
    checkpoint = directory(opened, "llama")
    left = {"_unsloth_version": "2025.1", "eos_token": "</s>", "fp16": True, "lora_r": 16, "logit_scale": 0.5, "clip_qkv": 8}
    spec = open_model(with_config(checkpoint, **left))
    assert spec.program == open_model(checkpoint).program
    assert spec.notices == ("llama-F32/config.json: 6 unknown keys ignored: " + ", ".join(left),)
    scaling = {"rope_type": "linear", "factor": 2, "mystery": 3}
    spec = open_model(with_config(checkpoint, rope_scaling=scaling))
    assert spec.notices == ("llama-F32/config.json: rope_scaling: 1 unknown key ignored: mystery",)


def test_keys_within_others_can_be_ignored(opened):
    checkpoint = directory(opened, "llama")
    changed = with_config(checkpoint, rope_scaling={"rope_type": "linear", "factor": "x"})
    with pytest.raises(LacewingError, match="factor is 'x'"):
        open_model(changed)
    assert open_model(
        with_config(checkpoint, rope_scaling={"rope_type": "default", "factor": "x"}), ignore_keys=["rope_scaling.factor"]
    )
    inner = dict(checkpoint.metadata["config.json"]) | {"is_encoder_decoder": True}
    outer = replace(checkpoint, metadata={"config.json": {"model_type": "any", "text_config": inner}})
    assert open_model(outer, ignore_keys=["is_encoder_decoder"]).program == open_model(checkpoint).program


def test_ignored_keys_from_the_interface_and_the_command_line(opened, tmp_path, capsys):
    folder = tiny("llama", "huggingface", tmp_path)
    config = json.loads((folder / "config.json").read_text()) | {"is_encoder_decoder": True}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModelError):
        load(folder, backend="reference")
    with load(folder, backend="reference", ignore_keys=["is_encoder_decoder", "not there"]) as model:
        assert len(model.logits([1, 2])) == 2
    for wrong in ("is_encoder_decoder", 5, [5]):
        with pytest.raises(OptionError, match="`ignore_keys` is"):
            load(folder, ignore_keys=wrong)
    with pytest.raises(SystemExit) as ended:
        app(["info", str(folder), "--ignore-key", "other", "--ignore-key", "is_encoder_decoder"])
    assert ended.value.code in (0, None) and "llama" in capsys.readouterr().out


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
VALUES = st.recursive(
    SCALARS | st.lists(st.integers(-3, 9), max_size=3).map(lambda entries: np.array(entries, np.int32)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_values_of_any_type_never_end_in_another_error(opened, data):
    """Arrays in arrays too: every key of every architecture opens, or raises an error of ours."""
    name = data.draw(st.sampled_from(sorted(opened)))
    kind = data.draw(st.sampled_from(["gguf", "huggingface"]))
    checkpoint, value = open_checkpoint(opened[name][kind]), data.draw(VALUES)
    if kind == "gguf":
        keys = [key for key in checkpoint.metadata if not key.startswith("tokenizer")]
        keys += [f"{checkpoint.metadata['general.architecture']}.{key}" for key in (*LLAMA_CPP, *SYNONYMS)]
        changed = with_keys(checkpoint, **{data.draw(st.sampled_from(keys)): value})
    else:
        keys = [*checkpoint.metadata["config.json"], *DECLARED.get(checkpoint.metadata["config.json"]["model_type"], ())]
        changed = with_config(checkpoint, **{data.draw(st.sampled_from(keys)): value})
    try:
        open_model(changed)
    except LacewingError as error:
        assert str(error).isprintable()


@pytest.mark.parametrize(
    "key", ["block_count", "attention.head_count", "attention.head_count_kv", "rope.freq_base", "rope.scaling.type"]
)
def test_nested_arrays(opened, key):
    for value in ([np.array([1, 2]), np.array([3, 4])], [np.array([2, 2]), np.array([2, 2])], [[np.array([2])]], [["a"]]):
        with pytest.raises(UnsupportedModelError, match=key):
            open_model(with_keys(gguf(opened, "llama"), **{f"llama.{key}": value}))
