"""Gemma 4 and 3n: a shared KV cache, tables that stay in their files, what configs and files say of heads, real sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lacewing
from lacewing.backends.batch import Batch
from lacewing.backends.cpu import CpuBackend
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.errors import UnsupportedModelError, WeightError
from lacewing.formats import open_checkpoint
from lacewing.formats.checkpoint import Checkpoint, TensorInfo
from lacewing.models import open_model
from lacewing.models.blocks.decoder import build_program
from lacewing.models.opening import find_architecture
from lacewing.models.readers.huggingface import read_huggingface
from lacewing.models.sizes import measure
from lacewing.offload.cut import cut_program
from lacewing.offload.plan import HOST, DeviceLoad, OffloadLevel, OffloadPlanner, Target
from lacewing.program.check import check_program
from lacewing.program.ops import Attention, Rope, WriteKeysValues
from lacewing.program.states import Window
from lacewing.program.stream_ops import Lookup
from lacewing.quants import by_name
from tests.checkpoints import prompt_of, tiny
from tests.models.golden import VALUES
from tests.models.running import open_step, run
from tests.models.test_refusals import with_config, with_keys
from tests.offload.splits import IDS, open_split

NAMES = ("gemma4", "gemma4-edge", "gemma4-moe", "gemma3n")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    folder = tmp_path_factory.mktemp("gemma")
    return {(name, kind): open_checkpoint(tiny(name, kind, folder)) for name in NAMES for kind in ("gguf", "huggingface")}


@pytest.mark.parametrize("kind", ["gguf", "huggingface"])
def test_the_last_layers_read_the_states_of_earlier_ones(opened: Any, kind: str) -> None:
    program = open_model(opened["gemma4-edge", kind]).program
    assert [op.state for op in program.ops if isinstance(op, Attention)] == [0, 1, 2, 1, 1, 2]
    assert [op.state for op in program.ops if isinstance(op, WriteKeysValues)] == [0, 1, 2]
    states = program.states
    assert [state.reach for state in states] == [Window(8), Window(8), None]  # type: ignore[union-attr]
    assert [state.parts[0].width for state in states] == [16, 16, 32]  # type: ignore[union-attr, attr-defined]


@pytest.mark.parametrize("name", NAMES)
def test_both_formats_make_one_program(opened: Any, name: str) -> None:
    """But for float32 in a file."""
    first, second = (open_model(opened[name, kind]) for kind in ("gguf", "huggingface"))
    one, other = ([(op.kind, op.views, op.weight_names, op.state_ids) for op in spec.program.ops] for spec in (first, second))
    assert one == other and first.program.states == second.program.states and first.sizes == second.sizes
    ropes = [[op.rope for op in spec.program.ops if isinstance(op, Rope)] for spec in (first, second)]
    assert ropes[0] == ropes[1]


def test_layers_that_are_cut_from_their_states_stay_with_them(opened: Any) -> None:
    """Attention that reads keys and values of an earlier layer, on whatever device these are; tables are the CPU's."""
    program = open_model(opened["gemma4-edge", "gguf"]).program
    planner = OffloadPlanner(program, Target(lambda part: DeviceLoad(1, 0, 0)))
    for layers in range(1, 6):
        made, devices = planner.assign(OffloadLevel(layers))
        cut_program(made, devices)
        assert all(device == HOST for op, device in zip(made.ops, devices, strict=True) if isinstance(op, Lookup))
    assert set(planner.assign(OffloadLevel())[1]) == {0}


@pytest.mark.parametrize("layers", [2, 4])
def test_a_model_that_is_shared_out_says_the_same(tmp_path: Path, layers: int) -> None:
    path = tiny("gemma4-edge", "gguf", tmp_path)
    spec, whole = open_step(path, 32)
    _, devices = OffloadPlanner(spec.program, Target(lambda part: DeviceLoad(1, 0, 0))).assign(OffloadLevel(layers))
    step = open_split(path, spec, [ReferenceBackend(), CpuBackend(2)], list(devices))
    np.testing.assert_allclose(run(step, IDS), run(whole, IDS), rtol=0, atol=1e-4)
    step.close()


@pytest.mark.parametrize("name", ["gemma4-edge", "gemma3n"])
def test_the_table_is_never_read_into_memory(tmp_path: Path, name: str) -> None:
    """Eager weights are all others; files are looked at all the same; the plan says what the table takes."""
    path = tiny(name, "gguf", tmp_path)
    with lacewing.load(path, backend="cpu", context=128, residency="eager") as model:
        table = model.spec.tensors["per_layer_token_embd.weight"].nbytes
        assert model.weights.residency == "eager"
        assert model.weights.anonymous_bytes == model.weights.nbytes - table
        assert model.weights["per_layer_token_embd.weight"]._owned is None
        eager = [token.id for token in model.engine.generate(prompt_of(name), lacewing.Sampling(temperature=0, max_tokens=8))]
        assert eager == VALUES[f"{name}.greedy"].tolist()[:8]
        rows = {row.name: row for row in model.plan.rows}
        assert rows["tables"].nbytes == table == model.spec.sizes.table_bytes
        assert rows["weights"].nbytes == model.weights.nbytes - table
        path.write_bytes(path.read_bytes() + b"\0")
        with pytest.raises(lacewing.LacewingError, match="changed"):
            model.weights.check_files()


def test_a_token_that_comes_as_an_embedding_takes_the_row_of_padding(tmp_path: Path) -> None:
    """As transformers has it: the embedding of token 7, given, beside row 0 of the table."""
    path = tiny("gemma4-edge", "gguf", tmp_path)
    rows = np.zeros((1, 64), np.float32)
    found = []
    for backend in (None, CpuBackend(2)):
        _, step = open_step(path, None, backend)
        batch = replace(Batch.of([-1, 5], 0, [0, 1]), embeddings=rows)
        found.append(step.run(batch).copy())
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gemma4", {"global_head_dim": 64}, "has shape"),
        ("gemma4", {"num_global_key_value_heads": 3}, "do not divide"),
        ("gemma4", {"use_bidirectional_attention": "all"}, "use_bidirectional_attention"),
        ("gemma4", {"per_layer_config": {"0": {"head_dim": 32}}}, "per_layer_config must be the same"),
        ("gemma4", {"per_layer_config": {"1": {"sliding_window": 4}}}, "must give head_dim"),
        ("gemma4", {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 8}, "missing"),
        ("gemma4-edge", {"num_kv_shared_layers": 6}, "must have one of their own"),
        ("gemma4-edge", {"num_kv_shared_layers": 4}, "none of the first 2 layers"),
        ("gemma4-edge", {"hidden_size_per_layer_input": 16}, "has shape"),
        ("gemma4-edge", {"vocab_size_per_layer_input": 8}, "has shape"),
        ("gemma3n", {"activation_sparsity_pattern": [0.5]}, "must be 6 numbers"),
        ("gemma3n", {"activation_sparsity_pattern": [1.0] * 6}, "must be 6 numbers"),
        ("gemma3n", {"altup_num_inputs": 1}, "need two"),
        ("gemma3n", {"altup_active_idx": 4}, "stream 4 of 4"),
        ("gemma3n", {"intermediate_size": [96, 96]}, "6 of them"),
    ],
)
def test_refused_configs(opened: Any, name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((UnsupportedModelError, WeightError), match=message):
        open_model(with_config(opened[name, "huggingface"], **changes))


def test_heads_by_layer_as_transformers_5_writes_them(opened: Any) -> None:
    checkpoint = opened["gemma4", "huggingface"]
    whole = {"head_dim": 32, "num_key_value_heads": 1}
    listed = with_config(
        checkpoint, global_head_dim=None, num_global_key_value_heads=None, per_layer_config={"1": whole, "3": whole}
    )
    assert open_model(listed).program == open_model(checkpoint).program


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gemma4", {"attention__head_count_kv": [2, 1, 2, 2]}, "differs between layers of one kind"),
        ("gemma4", {"attention__head_count_kv": [2, 1]}, "4 of them"),
        ("gemma4", {"attention__value_length": 16}, "differs from the width of keys"),
        ("gemma4-edge", {"feed_forward_length": [96] * 6}, "has shape"),
        ("gemma4-edge", {"attention__shared_kv_layers": 7}, "shared_kv_layers is 7"),
        ("gemma3n", {"activation_sparsity_scale": [1.0]}, "must be 6 numbers"),
        ("gemma3n", {"altup__num_inputs": 3}, "has shape"),
    ],
)
def test_refused_keys(opened: Any, name: str, changes: dict[str, Any], message: str) -> None:
    kind = name.partition("-")[0]
    with pytest.raises((UnsupportedModelError, WeightError), match=message):
        open_model(with_keys(opened[name, "gguf"], **{f"{kind}__{key}": value for key, value in changes.items()}))


def test_the_size_of_gemma_3n_e4b() -> None:
    """The defaults of transformers' class, which are those of E4B. Google counts 8 billion with vision (0.3) and audio (0.7), and
    an "effective" 4 billion without the embeddings for each layer."""
    checkpoint = Checkpoint(Path("model"), "safetensors", {"config.json": {"model_type": "gemma3n_text"}}, {})
    row = find_architecture("gemma3n_text", "model")
    program = build_program(read_huggingface(checkpoint, row, {})[0], 1024, row.block, row.begin, row.end)
    check_program(program)
    sizes = {name: int(np.prod(shape)) for name, shape in program.weights.items()}
    unused = 15 * 2 * 512 * 2048  # keys and values of layers that read others', which files have all the same
    assert round((sum(sizes.values()) + unused) / 1e9, 2) == 6.87
    assert round((sum(sizes.values()) - sizes["per_layer_token_embd.weight"]) / 1e9, 2) == 4.49
    assert [len(group.members) for group in program.groups] == [16, 4]


# config.json of 31B as public repositories quote it; of the others the sizes in tests and documentation of other engines, and for
# 26B-A4B the keys of Ollama's file. No config of 12B was within reach. Billions of parameters that Google and Meta's fairseq2 say
# of the text part: in all, and what a token needs: of its experts, or without the embeddings for each layer ("effective").
_LARGE = {"hidden_size_per_layer_input": 0, "sliding_window": 1024, "attention_k_eq_v": True, "max_position_embeddings": 262144}
_EDGE = {"num_attention_heads": 8, "sliding_window": 512}
PUBLISHED = {
    "31B": (30.7, 30.7, _LARGE | {"hidden_size": 5376, "intermediate_size": 21504, "num_hidden_layers": 60,
                                  "num_attention_heads": 32, "num_key_value_heads": 16, "num_global_key_value_heads": 4}),
    "26B-A4B": (25.2, 3.8, _LARGE | {"hidden_size": 2816, "intermediate_size": 2112, "num_hidden_layers": 30,
                                     "num_attention_heads": 16, "num_key_value_heads": 8, "num_global_key_value_heads": 2,
                                     "enable_moe_block": True, "num_experts": 128, "top_k_experts": 8,
                                     "moe_intermediate_size": 704}),
    "E2B": (None, 2.3, _EDGE | {"hidden_size": 1536, "intermediate_size": 6144, "num_hidden_layers": 35, "num_key_value_heads": 1,
                               "num_kv_shared_layers": 20, "use_double_wide_mlp": True,
                               "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 7}),
    "E4B": (7.5, 4.5, _EDGE | {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 42, "num_key_value_heads": 2,
                               "num_kv_shared_layers": 18}),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_as_published(name: str) -> None:
    billions, part, config = PUBLISHED[name]
    checkpoint = Checkpoint(Path("model"), "safetensors", {"config.json": {"model_type": "gemma4_text"} | config}, {})
    row = find_architecture("gemma4_text", "model")
    program = build_program(read_huggingface(checkpoint, row, {})[0], 1024, row.block, row.begin, row.end)
    check_program(program)
    quant = by_name("BF16")
    sizes = measure(program, {each: TensorInfo(each, shape, quant, ()) for each, shape in program.weights.items()}, row.uncounted)
    assert billions is None or sizes.parameters / 1e9 == pytest.approx(billions, rel=0.005)
    assert sizes.active_parameters / 1e9 == pytest.approx(part, rel=0.035)
