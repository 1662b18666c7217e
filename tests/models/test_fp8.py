"""Checkpoints in FP8 with a factor for each block of rows and columns, as DeepSeek publishes them."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import lacewing
from lacewing.backends import init_backend
from lacewing.backends.batch import StepLimits
from lacewing.errors import NumericError, UnsupportedModelError, WeightError
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from lacewing.quants.fp8 import VALUES
from lacewing.weights.store import WeightStore
from tests.checkpoint_files import as_bytes
from tests.checkpoints import config_of, prompt_of, tiny, weights_of
from tests.models.running import open_step, run
from tests.models.test_refusals import with_config
from tests.paged import with_pages

BLOCK = (8, 16)
KEPT = ("embed", "norm", "lm_head", "mlp.gate.", "moe.gate.", "bias", "weights_proj")  # what stays in BF16 or F32
POSITIVE = VALUES[:0x7F]


def factors(values, block=BLOCK):
    """float32 (rows / R, columns / C) rounded up: the largest value of each block becomes 448."""
    rows, columns = (-(-size // part) for size, part in zip(values.shape, block, strict=True))
    padded = np.zeros((rows * block[0], columns * block[1]), np.float32)
    padded[: values.shape[0], : values.shape[1]] = np.abs(values)
    return padded.reshape(rows, block[0], columns, block[1]).max(axis=(1, 3)) / np.float32(448)


def spread(scales, shape, block=BLOCK):
    return scales.repeat(block[0], 0)[: shape[0]].repeat(block[1], 1)[:, : shape[1]]


def quantised(values, scales, block=BLOCK):
    """Nearest FP8 numbers, uint8."""
    scaled = values / spread(scales, values.shape, block)
    nearest = np.searchsorted((POSITIVE[1:] + POSITIVE[:-1]) / 2, np.abs(scaled))
    return (nearest + 0x80 * (scaled < 0)).astype(np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return both_forms(tmp_path_factory.mktemp("fp8"), BLOCK)


def both_forms(folder, block, name="deepseek3"):
    """The same numbers in FP8 and in F32."""
    config = config_of(name)
    exact, small = (tiny(name, "huggingface", folder / form) for form in ("exact", "small"))
    entries, plain = {}, {}
    for name, value in weights_of(config).items():
        if any(part in name for part in KEPT):
            entries[name], plain[name] = ("F32", value, as_bytes(value, "F32")), value
            continue
        members = value.reshape(-1, *value.shape[-2:])  # of a stack, else one
        scales = np.stack([factors(member, block) for member in members])
        data = np.stack([quantised(*pair, block) for pair in zip(members, scales, strict=True)])
        values = np.stack([VALUES[codes] * spread(each, codes.shape, block) for codes, each in zip(data, scales, strict=True)])
        scales = scales.reshape(*value.shape[:-2], *scales.shape[1:])
        entries[name] = ("F8_E4M3", value, data.tobytes())
        entries[f"{name}_scale_inv"] = ("F32", scales, as_bytes(scales, "F32"))
        plain[name] = values.reshape(value.shape)
    write(exact, {name: ("F32", value, as_bytes(value, "F32")) for name, value in plain.items()})
    write(small, entries)
    quantisation = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": list(block), "activation_scheme": "dynamic"}
    (small / "config.json").write_text(json.dumps(config | {"quantization_config": quantisation}))
    return exact, small


def write(folder, entries):
    header, offset = {}, 0
    for name, (dtype, value, data) in entries.items():
        header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    whole = len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in entries.values())
    (folder / "model.safetensors").write_bytes(whole)


def check_reference(folders, residency, case):
    """The logits of both, which are alike."""
    found = []
    for folder in folders:
        spec = open_model(open_checkpoint(folder))
        store = WeightStore(spec.tensors)
        store.set_residency(residency)
        step = with_pages(init_backend("reference").compile(spec.program, store, StepLimits(spec.context)))
        found.append(run(step, prompt_of(case)))
    assert found[0].std() > 0.1
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)


@pytest.mark.parametrize("residency", ["lazy", "eager"])
def test_logits_are_those_of_the_same_numbers_in_f32(folders, residency):
    check_reference(folders, residency, "deepseek3")


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_stacked_experts_have_stacked_factors(backend, tmp_path):
    """As Step 3.5 is published."""
    found = []
    for folder in both_forms(tmp_path, BLOCK, "step35"):
        spec, step = open_step(folder, None, init_backend(backend, 2))
        assert (spec.tensors["blk.1.ffn_up_exps.weight"].scales is not None) == bool(found)
        found.append(run(step, prompt_of("step35")))
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)


def test_an_indexer_has_factors_too(tmp_path):
    """As DeepSeek publishes V3.2."""
    found = []
    for folder in both_forms(tmp_path, BLOCK, "deepseek32"):
        spec = open_model(open_checkpoint(folder))
        step = with_pages(init_backend("reference").compile(spec.program, WeightStore(spec.tensors), StepLimits(64)))
        found.append(run(step, prompt_of("deepseek32")))
    assert spec.tensors["blk.0.indexer.attn_q_b.weight"].quant.name == "F8_E4M3"
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)
    check_cpu(folder, "deepseek32")


@pytest.mark.parametrize("block", [(32, 16), (64, 128), (3, 5)])
def test_blocks_that_do_not_end_where_heads_do(block, tmp_path):
    """A head of kv_b has 16 rows of keys and 24 of values; GLM-4.7-Flash has 192 and 256 in blocks of 128."""
    exact, small = both_forms(tmp_path, block)
    stores = [WeightStore(open_model(open_checkpoint(folder)).tensors) for folder in (exact, small)]
    for layer in range(3):
        for part in ("attn_k_b", "attn_v_b"):
            found, expected = (store[f"blk.{layer}.{part}.weight"] for store in stores[::-1])
            assert found.quant.name == "F8_E4M3"
            np.testing.assert_array_equal(found.dequantise(), expected.dequantise())
    found = []
    for folder in (exact, small):
        spec = open_model(open_checkpoint(folder))
        step = with_pages(init_backend("reference").compile(spec.program, WeightStore(spec.tensors), StepLimits(64)))
        found.append(run(step, prompt_of("deepseek3")))
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)
    check_cpu(small, "deepseek3")


def test_sizes_and_values(folders):
    exact, small = (open_model(open_checkpoint(folder)) for folder in folders)
    assert exact.parameters == small.parameters
    assert exact.program == small.program
    stores = WeightStore(exact.tensors), WeightStore(small.tensors)
    for name in ("blk.1.ffn_up_exps.weight", "blk.0.attn_k_b.weight", "blk.2.attn_output.weight"):
        assert stores[1][name].quant.name == "F8_E4M3"
        np.testing.assert_array_equal(stores[1][name].dequantise(), stores[0][name].dequantise())


def test_the_cpu_backend_equals_the_reference_and_itself(folders):
    check_cpu(folders[1], "deepseek3")


def check_cpu(folder, name):
    """Near the reference backend; the same bits however the work is cut and wherever the weights are."""
    spec, ids = open_model(open_checkpoint(folder)), prompt_of(name, 40)
    store, limits = WeightStore(spec.tensors), StepLimits(64)
    expected = run(with_pages(init_backend("reference").compile(spec.program, store, limits)), ids)
    step = with_pages(init_backend("cpu", 2).compile(spec.program, store, limits))
    found = run(step, ids)
    np.testing.assert_allclose(found, expected, atol=5e-5)
    assert np.array_equal(found.argmax(axis=1), expected.argmax(axis=1))
    for threads, sizes in ((1, (40,)), (2, (1, 2, 7, 17, 13)), (3, (1,) * 40)):
        parted = with_pages(init_backend("cpu", threads).compile(spec.program, store, limits))
        starts = np.cumsum((0, *sizes)).tolist()
        parts = [run(parted, ids[start : start + size], start) for start, size in zip(starts, sizes, strict=False)]
        np.testing.assert_array_equal(np.concatenate(parts), found)
        parted.close()
    for residency in ("eager", "lazy"):
        store.set_residency(residency)
        step.rebind()
        np.testing.assert_array_equal(run(step, ids), found)
    step.close()


def test_factors_that_are_powers_of_two_in_a_byte(folders, tmp_path):
    config, entries, plain = config_of("deepseek3"), {}, {}
    for name, value in weights_of(config).items():
        entries[name] = plain[name] = ("F32", value, as_bytes(value, "F32"))
        if not any(part in name for part in KEPT):
            exponents = np.ceil(np.log2(factors(value))).astype(np.int64)
            scales = np.exp2(exponents).astype(np.float32)
            data, bytes_ = quantised(value, scales), (exponents + 127).astype(np.uint8)
            entries[name] = ("F8_E4M3", value, data.tobytes())
            entries[f"{name}_scale_inv"] = ("F8_E8M0", bytes_, bytes_.tobytes())
            numbers = VALUES[data] * spread(scales, value.shape)
            plain[name] = ("F32", value, as_bytes(numbers, "F32"))
    found = []
    for source, contents in zip(folders, (plain, entries), strict=True):
        folder = tmp_path / source.parent.name
        shutil.copytree(source, folder)
        write(folder, contents)
        spec = open_model(open_checkpoint(folder))
        step = with_pages(init_backend("reference").compile(spec.program, WeightStore(spec.tensors), StepLimits(64)))
        found.append(run(step, prompt_of("deepseek3")))
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)
    check_cpu(folder, "deepseek3")


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("byte", [0x7F, 0xFF])
def test_values_that_are_no_numbers_are_an_error(folders, tmp_path, backend, byte):
    folder = tmp_path / "broken"
    shutil.copytree(folders[1], folder)
    part = open_checkpoint(folder).tensors["model.layers.0.self_attn.o_proj.weight"].ranges[0]
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(part.offset + 17)
        file.write(bytes([byte]))
    for path, broken in ((folders[1], False), (folder, True)):
        with lacewing.load(path, backend=backend) as model:
            if not broken:
                assert np.isfinite(model.logits([1, 2, 3])).all()
                continue
            with pytest.raises(NumericError, match="NaN"):
                model.logits([1, 2, 3])
            with pytest.raises(NumericError):
                model.generate("Hello", max_tokens=2, temperature=0)


# ---- factors of whole weights and of rows ----


def one_factor(values):
    return np.float32(np.abs(values).max() / np.float32(448))


def by_rows(values):
    return np.abs(values).max(axis=-1, keepdims=True).astype(np.float32) / np.float32(448)


def to_fp8(values, scale):
    scaled = values / scale
    nearest = np.searchsorted((POSITIVE[1:] + POSITIVE[:-1]) / 2, np.abs(scaled))
    return (nearest + 0x80 * (scaled < 0)).astype(np.uint8)


FORMS = {
    "static": ({"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None}, "weight_scale_inv", one_factor),
    "mistral": ({"quant_method": "fp8", "weight_block_size": None}, "qscale_weight", one_factor),
    "plain": ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "weight_scale", one_factor),
    "rows": ({"quant_method": "fbgemm_fp8"}, "weight_scale", by_rows),
    "compressed": (
        {
            "quant_method": "compressed-tensors",
            "format": "float-quantized",
            "config_groups": {"group_0": {"weights": {"type": "float", "num_bits": 8, "strategy": "channel"}}},
            "ignore": ["lm_head"],
        },
        "weight_scale",
        by_rows,
    ),
}
CASES = [("llama", "static"), ("llama", "plain"), ("llama", "rows"), ("deepseek3", "mistral"), ("deepseek3", "compressed"),
         ("mistral4", "static"), ("mixtral", "plain"), ("qwen3moe", "compressed"), ("llama4", "compressed")]  # fmt: skip


def weights_in(config, name, form):
    """Pairs of entries, in FP8 and in F32; Llama 4's experts apart, as these checkpoints have them."""
    _, kind, factor = FORMS[form]
    small, exact = {}, {}
    for weight, value in weights_of(config).items():
        exact[weight] = value
        if any(part in weight for part in (*KEPT, "router", "shared_head", "block_sparse_moe.gate.")) or value.ndim < 2:
            small[weight] = ("F32", value, as_bytes(value, "F32"))
            continue
        members = [(weight, value)]
        if name == "llama4" and value.ndim == 3:
            stem, down = weight.rpartition(".")[0], weight.endswith("down_proj")
            halves = [("down_proj", value)] if down else zip(("gate_proj", "up_proj"), np.split(value, 2, axis=2), strict=True)
            members = [(f"{stem}.{e}.{part}.weight", whole[e].T) for part, whole in halves for e in range(len(value))]
        numbers = []
        for each, values in members:
            stacked = values.ndim == 3
            scale = np.stack([factor(one) for one in values]).reshape(-1, 1, 1) if stacked else factor(values)
            if np.ndim(scale) == 0 or stacked:  # in BF16, which keeps fewer digits
                scale = (np.asarray(scale, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
            data = to_fp8(values, scale)
            where = f"{each}_scale_inv" if stacked else each.replace(".weight", f".{kind}")
            dtype = "BF16" if scale.size == 1 or stacked else "F32"
            small |= {each: ("F8_E4M3", values, data.tobytes()), where: (dtype, scale, as_bytes(scale, dtype))}
            if form == "static":
                extra = np.array(0.5, np.float32)
                acts = f"{each}_activation_scale" if stacked else each.replace(".weight", ".activation_scale")
                small[acts] = ("F32", extra, as_bytes(extra, "F32"))
            numbers.append(VALUES[data] * scale)
        if len(numbers) > 1:
            turned = np.stack([one.T for one in numbers])
            half = len(turned) // 2
            exact[weight] = turned if weight.endswith("down_proj") else np.concatenate([turned[:half], turned[half:]], axis=2)
        else:
            exact[weight] = numbers[0]
    return small, {key: ("F32", value, as_bytes(np.ascontiguousarray(value), "F32")) for key, value in exact.items()}


@pytest.mark.parametrize(("name", "form"), CASES)
def test_one_factor_for_a_weight_or_a_row(name, form, tmp_path):
    config = config_of(name)
    small, exact = weights_in(config, name, form)
    paths = [tiny(name, "huggingface", tmp_path / kind) for kind in ("exact", "small")]
    for path, entries in zip(paths, (exact, small), strict=True):
        write(path, entries)
    (paths[1] / "config.json").write_text(json.dumps(config | {"quantization_config": FORMS[form][0]}))
    found = []
    for path in paths:
        spec = open_model(open_checkpoint(path))
        store = WeightStore(spec.tensors)
        found.append(run(with_pages(init_backend("reference").compile(spec.program, store, StepLimits(64))), prompt_of(name, 40)))
    assert any(tensor.quant.name == "F8_E4M3" for tensor in spec.tensors.values())
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)
    check_cpu(paths[1], name)


def test_factors_that_do_not_fit(folders):
    checkpoint = open_checkpoint(folders[1])
    name = "model.layers.1.mlp.experts.2.up_proj.weight_scale_inv"
    without = {key: value for key, value in checkpoint.tensors.items() if key != name}
    with pytest.raises(WeightError, match="lacks expert 2"):
        open_model(replace(checkpoint, tensors=without))
    name = "model.layers.1.self_attn.o_proj.weight_scale_inv"
    without = {key: value for key, value in checkpoint.tensors.items() if key != name}
    with pytest.raises(WeightError, match=r"self_attn\.o_proj\.weight is in F8_E4M3, but no weight_scale_inv"):
        open_model(replace(checkpoint, tensors=without))
    turned = replace(checkpoint.tensors[name], shape=checkpoint.tensors[name].shape[::-1])
    with pytest.raises(WeightError, match=r"in blocks of \(8, 16\) needs"):
        open_model(replace(checkpoint, tensors={**checkpoint.tensors, name: turned}))
    name = "model.layers.1.self_attn.kv_b_proj.weight_scale_inv"
    for shape in ((), (40,), (19, 2), (20, 1)):
        changed = replace(checkpoint.tensors[name], shape=shape)
        with pytest.raises(WeightError, match=r"weight_scale_inv has shape"):
            open_model(replace(checkpoint, tensors={**checkpoint.tensors, name: changed}))
    changed = checkpoint.metadata["config.json"]["quantization_config"] | {"weight_block_size": [32, 16]}
    with pytest.raises(WeightError, match="need 5 rows of factors"):
        open_model(with_config(checkpoint, quantization_config=changed))
    with pytest.raises(WeightError, match="the config does not tell of blocks"):
        open_model(with_config(checkpoint, quantization_config=None))
    changed = checkpoint.metadata["config.json"]["quantization_config"] | {"weight_block_size": None}
    with pytest.raises(WeightError, match="blocks"):
        open_model(with_config(checkpoint, quantization_config=changed))
    for problem in ({"weight_block_size": [0, 1]}, {"weight_block_size": 128}, {"fmt": "e5m2"}):
        changed = checkpoint.metadata["config.json"]["quantization_config"] | problem
        with pytest.raises(UnsupportedModelError, match="comes later"):
            open_model(with_config(checkpoint, quantization_config=changed))
