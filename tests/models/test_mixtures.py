"""How mixtures of experts are opened: the forms in which files hold experts, and what must not open."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest

from lacewing.backends import init_backend
from lacewing.backends.batch import StepLimits
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.errors import LacewingError, UnsupportedModelError, WeightError
from lacewing.formats import open_checkpoint
from lacewing.formats.checkpoint import ByteRange, TensorInfo
from lacewing.models import open_model
from lacewing.program.ops import Attention, ExpertLinear, Route, ScaleByPosition
from lacewing.weights.store import WeightStore
from tests.checkpoints import config_of, prompt_of, tiny
from tests.models.running import run
from tests.models.test_refusals import with_config, with_keys
from tests.paged import with_pages
from tests.tolerance import SAME, assert_equal_up_to_rounding


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixtures")
    names = ("mixtral", "qwen3moe", "olmoe", "deepseek3", "deepseek2", "gpt-oss", "llama4", "glm4moe", "glm4moe-lite", "mistral4")
    return {(name, kind): open_checkpoint(tiny(name, kind, folder)) for name in names for kind in ("gguf", "huggingface")}


def logits(checkpoint, residency="lazy", backend="reference"):
    spec = open_model(checkpoint)
    store = WeightStore(spec.tensors)
    store.set_residency(residency)
    step = with_pages(init_backend(backend, 2).compile(spec.program, store, StepLimits(spec.context)))
    return run(step, prompt_of("mixtral"))


def route_of(checkpoint):
    return next(op for op in open_model(checkpoint).program.ops if isinstance(op, Route))


@pytest.mark.parametrize(("backend", "kind"), [("reference", "gguf"), ("reference", "huggingface"), ("cpu", "huggingface")])
@pytest.mark.parametrize("name", ["mixtral", "qwen3moe", "olmoe", "deepseek3", "deepseek2", "gpt-oss", "llama4", "glm4moe",
                                  "glm4moe-lite", "mistral4"])  # fmt: skip
def test_lazy_and_eager_are_equal(opened, name, kind, backend):
    """Lazy weights are those that the golden values are compared with. GGUF files on the CPU: test_sessions.py."""
    SAME[backend](logits(opened[name, kind], "eager", backend), logits(opened[name, kind], "lazy", backend))


@pytest.mark.parametrize("name", ["gpt-oss", "llama4", "mistral4"])
def test_eager_weights_are_in_ram_whatever_the_file_calls_them(opened, name):
    """Stacks that stand in the file as they are once kept its names, and eager weights were then looked for in vain."""
    store = WeightStore(open_model(opened[name, "huggingface"]).tensors)
    store.set_residency("eager")
    assert all(weight._owned is not None and weight.name == name for name, weight in store.items())
    store.close()


def test_an_expert_is_a_byte_range(opened):
    """Nothing is copied: single tensors become ranges of a stack, and one matrix becomes ranges of two."""
    checkpoint = opened["deepseek3", "huggingface"]
    tensors = open_model(checkpoint).tensors
    stack = tensors["blk.1.ffn_up_exps.weight"]
    assert stack.shape == (8, 32, 64)
    singles = [checkpoint.tensors[f"model.layers.1.mlp.experts.{expert}.up_proj.weight"] for expert in range(8)]
    assert stack.ranges == tuple(single.ranges[0] for single in singles)
    whole = checkpoint.tensors["model.layers.1.self_attn.kv_b_proj.weight"].ranges[0]
    keys, values = tensors["blk.1.attn_k_b.weight"], tensors["blk.1.attn_v_b.weight"]
    assert (keys.shape, values.shape) == ((4, 16, 32), (4, 24, 32))
    assert keys.ranges[1] == ByteRange(whole.path, whole.offset + 4 * 40 * 32, 4 * 16 * 32)
    assert values.ranges[1] == ByteRange(whole.path, whole.offset + 4 * 56 * 32, 4 * 24 * 32)
    assert sum(part.nbytes for part in (*keys.ranges, *values.ranges)) == whole.nbytes


def test_experts_of_old_files_stand_alone(opened):
    checkpoint = opened["mixtral", "gguf"]
    tensors = dict(checkpoint.tensors)
    for name in [name for name in tensors if "_exps" in name]:
        stack = tensors.pop(name)
        place, size = stack.ranges[0], stack.ranges[0].nbytes // 6
        for expert in range(6):
            single = name.replace("_exps.weight", f".{expert}.weight")
            part = ByteRange(place.path, place.offset + expert * size, size)
            tensors[single] = TensorInfo(single, stack.shape[1:], stack.quant, (part,))
    assert_equal_up_to_rounding(logits(replace(checkpoint, tensors=tensors)), logits(checkpoint))


def test_gate_and_up_in_one_stack(tmp_path):
    """As newer transformers and a flag of llama.cpp's converter store them."""
    plain = open_checkpoint(tiny("mistral4", "huggingface", tmp_path))
    spec = open_model(plain)
    assert spec.program.weights["blk.0.ffn_gate_exps.weight"] == (8, 32, 64)
    assert len(spec.tensors["blk.0.ffn_gate_exps.weight"].ranges) == 8
    tensors = dict(plain.tensors)
    first = tensors["model.layers.0.mlp.experts.gate_up_proj"]
    tensors["model.layers.0.mlp.experts.gate_up_proj"] = replace(first, shape=(8, 32, 128))
    with pytest.raises(
        WeightError, match=r"layers.0.mlp.experts.gate_up_proj has shape \(8, 32, 128\); the model needs 8 times 64 rows"
    ):
        open_model(replace(plain, tensors=tensors))


def test_predicting_layers_are_left_out(opened):
    checkpoint = opened["deepseek3", "gguf"]
    extra = {f"blk.3.{part}": checkpoint.tensors["blk.1.attn_norm.weight"] for part in ("attn_norm.weight", "nextn.eh_proj.weight")}
    longer = replace(checkpoint, tensors={**checkpoint.tensors, **extra})
    longer = with_keys(longer, deepseek2__block_count=4, deepseek2__nextn_predict_layers=1)
    assert open_model(longer).program == open_model(checkpoint).program
    checkpoint = opened["glm4moe", "huggingface"]
    extra = {f"model.layers.3.{part}.weight": checkpoint.tensors["model.norm.weight"] for part in ("enorm", "input_layernorm")}
    longer = with_config(replace(checkpoint, tensors={**checkpoint.tensors, **extra}), num_nextn_predict_layers=1)
    assert open_model(longer).program == open_model(checkpoint).program
    with pytest.raises(WeightError, match="2 weights have no place"):
        open_model(replace(checkpoint, tensors={**checkpoint.tensors, **extra}))


@pytest.mark.parametrize("quant", ["Q8_0", "Q4_0", "F16"])
@pytest.mark.parametrize("name", ["qwen3moe", "olmoe"])
def test_quantised_experts(name, quant, tmp_path):
    exact = logits(open_checkpoint(tiny(name, "gguf", tmp_path)))
    found = logits(open_checkpoint(tiny(name, "gguf", tmp_path, quant)))
    error = np.sqrt(((found - exact) ** 2).mean()) / exact.std()
    assert 0 < error < {"Q8_0": 0.1, "Q4_0": 0.8, "F16": 0.01}[quant]


def test_what_old_files_left_out(opened):
    """DeepSeek V3 without its groups, Mistral Large 3 without its temperature, and the switch over its scale."""
    keys = {"deepseek2.attention.key_length_mla": 192}
    checkpoint = opened["deepseek3", "gguf"]
    assert keys.keys() <= checkpoint.metadata.keys()
    assert route_of(checkpoint).groups == 4
    m = open_model(opened["deepseek2", "gguf"]).config.mixture
    assert (m.groups, m.groups_used, m.group_best, m.scale) == (4, 2, 1, 1.5)
    cooled = open_model(
        with_keys(checkpoint, deepseek2__attention__temperature_scale=0.2, deepseek2__attention__temperature_length=32)
    )
    op = next(op for op in cooled.program.ops if isinstance(op, ScaleByPosition))
    assert (op.beta, op.length, op.offset) == (0.2, 32, 0)
    scales = [next(op for op in spec.program.ops if isinstance(op, Attention)).scale for spec in (cooled, open_model(checkpoint))]
    assert scales == pytest.approx([24**-0.5, 24**-0.5 * (1 + 0.1 * np.log(4)) ** 2])


# ---- what must not open ----


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("mixtral", {"num_experts_per_tok": 7}, "7 active of 6 experts"),
        ("mixtral", {"num_experts_per_tok": 0}, "num_experts_per_tok is 0"),
        ("mixtral", {"num_local_experts": 7}, "lacks expert 6; there should be 7"),
        ("mixtral", {"num_local_experts": 5}, "has an expert 5; there should be 5"),
        ("mixtral", {"num_experts": 4}, "must give one number of experts"),
        ("mixtral", {"num_local_experts": "8"}, "num_local_experts is '8'"),
        ("mixtral", {"intermediate_size": 50}, "has shape"),
        ("deepseek3", {"n_group": 3}, "8 experts do not divide over 3 groups"),
        ("deepseek3", {"topk_group": 5}, "5 of 4 groups"),
        ("deepseek3", {"topk_group": 1}, "3 active experts do not fit in 1 groups of 2"),
        ("deepseek3", {"n_group": 8, "topk_group": 4}, "groups of 1 expert"),
        ("deepseek3", {"scoring_func": "tanh"}, "scoring_func is 'tanh'"),
        ("deepseek3", {"topk_method": "other"}, "topk_method is 'other'"),
        ("deepseek3", {"kv_lora_rank": None}, "kv_lora_rank is missing"),
        ("deepseek3", {"qk_rope_head_dim": 7}, "7 rotated values"),
        ("deepseek3", {"v_head_dim": 20}, "the model needs 4 times 36 rows"),
        ("qwen3moe", {"mlp_only_layers": "x"}, "mlp_only_layers must be a list of layers"),
        ("qwen3moe", {"mlp_only_layers": [1]}, "have no place|are missing"),
        ("llama4", {"layer_types": ["full_attention"]}, "layer_types"),
        ("llama4", {"no_rope_layers": [1, 0]}, "no_rope_layers must be a list of 4 flags"),
        ("llama4", {"attn_temperature_tuning": "no"}, "attn_temperature_tuning is 'no'; it must be true, false or a number"),
        ("gpt-oss", {"swiglu_limit": 0}, "swiglu_limit is 0"),
        ("mixtral", {"quantization_config": {"quant_method": "mxfp4"}}, "'mxfp4'.*comes later"),
        ("deepseek3", {"quantization_config": {"quant_method": "fp8", "fmt": "e5m2"}}, "'fp8'.*comes later"),
        ("glm4moe", {"rope_parameters": {"rope_type": "yarn", "factor": 2, "llama_4_scaling_beta": 0.1}}, "llama_4_scaling_beta"),
    ],
)  # fmt: skip
def test_refused_configs(opened, name, changes, message):
    with pytest.raises((UnsupportedModelError, WeightError), match=message):
        open_model(with_config(opened[name, "huggingface"], **changes))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("mixtral", {"llama__expert_used_count": 7}, "7 active of 6 experts"),
        ("mixtral", {"llama__expert_used_count": None}, "expert_used_count is missing"),
        ("mixtral", {"llama__expert_count": 0}, "expert_count is missing, but there are weights of a router"),
        ("mixtral", {"llama__expert_count": 7}, "has shape"),
        ("mixtral", {"llama__expert_count": 2**40}, "expert_count"),
        ("mixtral", {"llama__expert_gating_func": 4}, "expert_gating_func is '4'; this version knows 1, 2, 3"),
        ("mixtral", {"llama__expert_group_count": 4}, "6 experts do not divide over 4 groups"),
        ("mixtral", {"general__architecture": "phi3"}, "phi3.expert_count is missing, but there are weights of a router"),
        ("deepseek3", {"deepseek2__attention__key_length_mla": 8}, "no more than the 8 values that are rotated"),
        ("deepseek3", {"deepseek2__leading_dense_block_count": 2}, "are missing"),
        ("deepseek3", {"deepseek2__nextn_predict_layers": 3}, "block_count"),
        ("gpt-oss", {"gpt-oss__attention__layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon is missing"),
        ("llama4", {"llama4__interleave_moe_layer_step": 2}, "are missing"),
    ],
)
def test_refused_keys(opened, name, changes, message):
    with pytest.raises((UnsupportedModelError, WeightError), match=message):
        open_model(with_keys(opened[name, "gguf"], **changes))


@pytest.mark.parametrize(("kind", "router"), [("gguf", "blk.1.ffn_gate_inp.weight"),
                                              ("huggingface", "model.layers.1.block_sparse_moe.gate.weight")])  # fmt: skip
def test_a_missing_router_and_wrong_stacks(opened, kind, router):
    checkpoint = opened["mixtral", kind]
    tensors = {name: info for name, info in checkpoint.tensors.items() if name != router}
    with pytest.raises(WeightError, match=f"1 weights are missing: {router}"):
        open_model(replace(checkpoint, tensors=tensors))
    wrong = next(name for name in checkpoint.tensors if "ffn_up_exps" in name or "experts.3.w1" in name)
    info = checkpoint.tensors[wrong]
    turned = replace(info, shape=(*info.shape[:-2], *info.shape[:-3:-1]))
    with pytest.raises(WeightError, match=r"has shape|all must be alike"):
        open_model(replace(checkpoint, tensors={**checkpoint.tensors, wrong: turned}))


@pytest.mark.parametrize(
    ("name", "weight"), [("deepseek3", "self_attn.kv_b_proj.weight"), ("mistral4", "mlp.experts.gate_up_proj")]
)
@pytest.mark.parametrize("shape", [(), (0,), (1, 0)])
def test_weights_that_are_divided_and_have_no_rows(opened, name, weight, shape):
    checkpoint, weight = opened[name, "huggingface"], f"model.layers.1.{weight}"
    tensors = {**checkpoint.tensors, weight: replace(checkpoint.tensors[weight], shape=shape)}
    with pytest.raises(WeightError, match="has shape"):
        open_model(replace(checkpoint, tensors=tensors))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("changes", [{"attention_chunk_size": 2**31}, {"floor_scale": 2**31}])
def test_lengths_beyond_every_position(opened, changes, backend):
    checkpoint = opened["llama4", "huggingface"]
    found, expected = (
        logits(with_config(checkpoint, **{name: each for name in changes}), "lazy", backend) for each in (2**31, 2**20)
    )
    SAME[backend](found, expected)


def test_a_stack_must_not_be_there_twice(opened):
    checkpoint = opened["mixtral", "gguf"]
    one = replace(checkpoint.tensors["blk.0.ffn_up_exps.weight"], shape=(48, 64))
    with pytest.raises(WeightError, match="as a whole and as single experts"):
        open_model(replace(checkpoint, tensors={**checkpoint.tensors, "blk.0.ffn_up.0.weight": one}))


def test_a_broken_router_shows_in_the_logits(opened, tmp_path):
    """NaN scores give NaN logits, which the engine refuses; other tokens are untouched."""
    spec = open_model(opened["mixtral", "gguf"])
    step = with_pages(ReferenceBackend().compile(spec.program, WeightStore(spec.tensors), StepLimits(spec.context)))
    router = np.full((6, 64), np.nan, np.float32)
    step.state.weights.kept["blk.1.ffn_gate_inp.weight"] = router
    assert np.isnan(run(step, [1, 2])).all()


def test_hostile_values_never_escape_as_other_errors(opened):
    hostile = [-1, 0, 2**63, 1e308, "", [], [1, 2], {}, True]
    for (name, kind), checkpoint in opened.items():
        if name not in ("deepseek3", "gpt-oss", "llama4", "mixtral"):
            continue
        gguf = kind == "gguf"
        keys = (
            [k for k in checkpoint.metadata if "expert" in k or "attention" in k]
            if gguf
            else list(checkpoint.metadata["config.json"])
        )
        for key in keys:
            for value in hostile:
                with contextlib.suppress(LacewingError):
                    open_model(with_keys(checkpoint, **{key: value}) if gguf else with_config(checkpoint, **{key: value}))


def test_experts_read_by_a_token(opened):
    spec = open_model(opened["mixtral", "gguf"])
    expert = 3 * 48 * 64
    assert spec.parameters - spec.active_parameters == 2 * 4 * expert  # 2 layers, 4 of 6 experts idle
    assert config_of("mixtral")["num_experts_per_tok"] == 2
    linears = [op for op in spec.program.ops if isinstance(op, ExpertLinear)]
    assert [len(op.weights) for op in linears] == [2, 1, 2, 1]
