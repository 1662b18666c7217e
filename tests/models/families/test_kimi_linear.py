"""Kimi Linear: what files say of its layers, the same bits after a rewind and behind a shared prefix, its size, refusals."""

import math
from dataclasses import replace

import numpy as np
import pytest

from lacewing.api import load
from lacewing.backends import init_backend
from lacewing.engine.engine import Request
from lacewing.errors import UnsupportedModelError, WeightError
from lacewing.formats import open_checkpoint
from lacewing.formats.checkpoint import ByteRange, TensorInfo
from lacewing.models import open_model
from lacewing.options import Sampling
from lacewing.program.ops import Attention, GatedActivation, GatedDelta, Rope, Route
from lacewing.program.states import FixedState
from lacewing.quants import by_name
from tests.checkpoints import prompt_of, tiny
from tests.families import kimi_linear
from tests.models.golden import TOLERANCE, VALUES
from tests.models.running import open_step, run
from tests.models.test_refusals import with_config, with_keys
from tests.paged import run_row

LINEAR = {"full_attn_layers": [4, 8, 12, 16, 20, 24, 27], "head_dim": 128, "num_heads": 32, "short_conv_kernel_size": 4,
          "kda_layers": [layer for layer in range(1, 27) if layer % 4]}  # fmt: skip
# config.json of moonshotai/Kimi-Linear-48B-A3B-Instruct, without what says nothing of the maths
PUBLISHED = {"model_type": "kimi_linear", "first_k_dense_replace": 1, "head_dim": 72, "hidden_act": "silu", "hidden_size": 2304,
             "intermediate_size": 9216, "kv_lora_rank": 512, "linear_attn_config": LINEAR, "mla_use_nope": True,
             "model_max_length": 1048576, "moe_intermediate_size": 1024, "moe_layer_freq": 1, "moe_renormalize": True,
             "moe_router_activation_func": "sigmoid", "num_attention_heads": 32, "num_expert_group": 1, "num_experts": 256,
             "num_experts_per_token": 8, "num_hidden_layers": 27, "num_key_value_heads": 32, "num_nextn_predict_layers": 0,
             "num_shared_experts": 1, "q_lora_rank": None, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-5,
             "rope_scaling": None, "rope_theta": 10000.0, "routed_scaling_factor": 2.446, "tie_word_embeddings": False,
             "topk_group": 1, "use_grouped_topk": True, "v_head_dim": 128, "vocab_size": 163840}  # fmt: skip


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kimi")
    found = {kind: open_checkpoint(tiny("kimi-linear", kind, folder)) for kind in ("gguf", "huggingface")}
    return found | {"groups": open_checkpoint(tiny("kimi-linear-groups", "huggingface", folder))}


@pytest.mark.parametrize("kind", ["gguf", "huggingface"])
def test_every_layer_has_the_states_of_its_kind(opened, kind):
    program = open_model(opened[kind]).program
    fixed = [state for state in program.states if isinstance(state, FixedState)]
    assert fixed == [FixedState((("conv", (3, 192)),)), FixedState((("delta", (4, 16, 16)),))] * 3
    assert [group.members for group in program.groups] == [(0, 2, 5), (1, 3, 6), (4,)]
    mixers = [op for op in program.ops if isinstance(op, GatedDelta | Attention)]
    assert [type(op) for op in mixers] == [GatedDelta, GatedDelta, Attention, GatedDelta]
    assert (mixers[0].by_row, mixers[0].decay.width, mixers[0].log_rate) == (True, 64, kind == "huggingface")
    assert mixers[2].scale == 24**-0.5 and not any(isinstance(op, Rope) for op in program.ops)
    gates = [op for op in program.ops if isinstance(op, GatedActivation) and op.activation == "sigmoid"]
    assert len(gates) == 3
    routes = [op for op in program.ops if isinstance(op, Route)]
    assert [op.layer for op in routes] == [1, 2, 3]
    assert {(op.gating, op.renormalise, round(op.scale, 6), op.bias is not None) for op in routes} == {
        ("sigmoid", True, 2.446, True)
    }


def test_the_words_of_the_makers_and_of_transformers_say_the_same(opened):
    checkpoint = opened["huggingface"]
    names = {"model_max_length": "max_position_embeddings", "moe_renormalize": "norm_topk_prob", "num_expert_group": "n_group",
             "num_experts": "num_local_experts", "num_experts_per_token": "num_experts_per_tok",
             "num_shared_experts": "n_shared_experts"}  # fmt: skip
    config = dict(checkpoint.metadata["config.json"])
    inner, config["mlp_layer_types"] = config.pop("linear_attn_config"), ["dense", "sparse", "sparse", "sparse"]
    config = {names.get(key, key): value for key, value in config.items() if key != "first_k_dense_replace"}
    config |= {ours: inner[theirs] for theirs, ours in kimi_linear.SIZES.items()}
    config["layer_types"] = ["full_attention" if layer == 3 else "linear_attention" for layer in (1, 2, 3, 4)]
    spec, expected = (open_model(each) for each in (replace(checkpoint, metadata={"config.json": config}), checkpoint))
    assert spec.program == expected.program and not spec.notices and not expected.notices


def test_groups_of_experts_and_the_latent_of_queries(opened):
    spec = open_model(opened["groups"])
    route = next(op for op in spec.program.ops if isinstance(op, Route))
    assert (route.groups, route.groups_used, route.renormalise) == (4, 2, False)
    assert "blk.1.attn_q_b.weight" in spec.program.weights and spec.config.mixture.shared_width == 64


def test_pieces_on_the_reference(tmp_path):
    _, step = open_step(tiny("kimi-linear", "huggingface", tmp_path))
    ids, found, start = prompt_of("kimi-linear"), [], 0
    for size in (1, 2, 5, 16):
        found.append(run(step, ids[start : start + size], start))
        start += size
    np.testing.assert_allclose(np.concatenate(found)[VALUES["rows"]], VALUES["kimi-linear.logits"], rtol=0, atol=TOLERANCE)


def test_any_chunks_and_residency_give_the_same_bits(tmp_path):
    """Of a folder; those of a file: tests/models/test_sessions.py."""
    path, ids = tiny("kimi-linear-groups", "huggingface", tmp_path), prompt_of("kimi-linear-groups", 150)
    _, step = open_step(path, 256, init_backend("cpu", 2))
    whole = run(step, ids)
    for sizes in ([1] * 9 + [141], [3, 127, 20], [128, 22]):
        starts = np.cumsum([0, *sizes])[:-1].tolist()
        found = [run_row(step, ids[at : at + size], at).copy() for at, size in zip(starts, sizes, strict=True)]
        assert np.array_equal(np.concatenate(found), whole)
    step.close()
    for residency in ("lazy", "eager", "streamed"):
        with load(path, backend="cpu", threads=1, residency=residency, context=256) as model:
            assert np.array_equal(model.logits(ids), whole)


def test_a_rewind_and_a_shared_prefix_give_the_bits_of_a_fresh_run(tmp_path):
    """A history that is cut anywhere, before and behind a page border; and prompts that share what another one has run."""
    path, ids, tail = tiny("kimi-linear", "gguf", tmp_path), prompt_of("kimi-linear", 300), prompt_of("llama", 20)
    options, prompts = Sampling(temperature=0, max_tokens=8, logprobs=3), [ids, [*ids[:200], *tail], [*ids[:140], *tail]]
    with load(path, backend="cpu", threads=2, context=512) as model:
        engine, fresh, alone = model.engine, {}, []
        for cut in (299, 256, 200, 128, 40, 1):
            engine.forget()
            engine.scheduler.last = []
            fresh[cut] = engine.extend([*ids[:cut], *tail]).copy()
        for prompt in prompts:
            engine.forget()
            alone.append(list(engine.generate(prompt, options)))
        engine.forget()
        for again in (False, True):  # the second time all is held
            streams = []
            for prompt, expected in zip(prompts, alone, strict=True):
                streams.append(engine.submit(Request(prompt, options, marks=(140, 256))))
                assert list(streams[-1]) == expected
            assert [stream.stats.reused_tokens >= 128 for stream in streams] == [again, True, True]
        for cut, row in fresh.items():
            engine.scheduler.last = ids[:cut]
            assert engine.held(ids[:cut]) == cut // 128 * 128
            assert np.array_equal(engine.extend(tail), row)


def test_published_size(opened):
    """48B, 3B active, as the name says; 49.1 and 3.0 by the weights. Headers alone are read."""
    quant, path = by_name("BF16"), opened["huggingface"].path
    tensors = {
        name: TensorInfo(name, shape, quant, (ByteRange(path, 0, 2 * math.prod(shape)),))
        for name, shape in kimi_linear.shapes(PUBLISHED).items()
    }
    spec = open_model(replace(opened["huggingface"], metadata={"config.json": PUBLISHED}, tensors=tensors, whole=False), 4096)
    assert spec.parameters == sum(math.prod(shape) for shape in kimi_linear.shapes(PUBLISHED).values())
    assert spec.parameters / 1e9 == pytest.approx(48, rel=0.03) and spec.active_parameters / 1e9 == pytest.approx(3, rel=0.05)
    assert not spec.notices and spec.trained_context == 2**20
    assert [layer + 1 for layer, delta in enumerate(spec.config.delta.layers) if not delta] == LINEAR["full_attn_layers"]


INNER = kimi_linear.LINEAR


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"linear_attn_config": INNER | {"kda_layers": [1, 2]}}, "kda_layers and full_attn_layers must name each of the 4 layers"),
        ({"linear_attn_config": INNER | {"kda_layers": [0, 1, 3]}}, "must name each of the 4 layers once"),
        ({"linear_attn_config": INNER | {"full_attn_layers": None}}, "must name each of the 4 layers once"),
        ({"linear_attn_config": INNER | {"kda_layers": [[1], 2, 4]}}, "must name each of the 4 layers once"),
        ({"linear_attn_config": INNER | {"gate_lower_bound": -5.0}}, "linear_attn_config: gate_lower_bound is -5.0"),
        ({"linear_attn_config": INNER | {"gate_lower_bound": -5.0}}, r"use `ignore_keys=\['linear_attn_config.gate_lower_bound'\]"),
        ({"linear_attn_config": INNER | {"use_full_rank_gate": True}}, "use_full_rank_gate is True"),
        ({"linear_attn_config": INNER | {"short_conv_kernel_size": 1}}, "short_conv_kernel_size is 1"),
        ({"linear_attn_config": INNER | {"head_dim": 32}}, "has shape"),
        ({"linear_attn_config": "kda"}, "linear_attn_config is 'kda'; it must be a dictionary"),
        ({"layer_types": ["linear_attention"] * 3}, "layer_types must name"),
        ({"layer_types": ["linear_attention"] * 4}, "self_attn.q_conv1d|are missing"),
        ({"mla_use_nope": False}, "mla_use_nope is false"),
        ({"attention_bias": True}, "attention_bias is true"),
        ({"hidden_act": "situ"}, "hidden_act is 'situ'"),
        ({"moe_layer_freq": 2}, "moe_layer_freq is 2"),
        ({"moe_router_activation_func": "softplus"}, "moe_router_activation_func is 'softplus'"),
        ({"num_experts": 9}, "lacks expert 8"),
    ],
)
def test_refused_configs(opened, changes, message):
    with pytest.raises((UnsupportedModelError, WeightError), match=message):
        open_model(with_config(opened["huggingface"], **changes))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("kda.head_dim", None, "kda.head_dim is missing"),
        ("kda.head_dim", 32, "has shape"),
        ("ssm.conv_kernel", 1, "ssm.conv_kernel is 1"),
        ("attention.head_count_kv", [0, 0, 1], "must be a number, or one for each of the 4 layers"),
        ("attention.head_count_kv", [0, 1, 1, 0], "are missing"),
        ("kda.gate_lower_bound", -5.0, "kda.gate_lower_bound is -5.0; this version does not know the key"),
    ],
)
def test_refused_keys(opened, key, value, message):
    with pytest.raises((UnsupportedModelError, WeightError), match=message):
        open_model(with_keys(opened["gguf"], **{f"kimi-linear.{key}": value}))


@pytest.mark.parametrize("change", [{"shape": (1, 64, 1, 3)}, {"quant": by_name("F16")}, None])
def test_convolutions_that_do_not_fit_together(opened, change):
    checkpoint = opened["gguf"]
    name, tensors = "blk.0.ssm_conv1d_k.weight", dict(checkpoint.tensors)
    tensor = tensors.pop(name)
    if change is not None:
        tensors[name] = replace(tensor, **change)
    with pytest.raises(WeightError, match=r"blk.0.ssm_conv1d_q, _k and _v are not three convolutions"):
        open_model(replace(checkpoint, tensors=tensors))
