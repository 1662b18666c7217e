"""The real geometries of large mixtures of experts, from sparse files with whole headers: what opens, how large it is, a step."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lacewing.api import load
from lacewing.formats import open_checkpoint
from lacewing.formats.checkpoint import Checkpoint
from lacewing.models import open_model
from lacewing.models.blocks.decoder import build_program
from lacewing.models.opening import find_architecture
from lacewing.models.readers.huggingface import read_huggingface, text_config
from lacewing.program.states import PAGE
from tests import geometries, sparse_files
from tests.models.readers.test_real_configs import REAL

GIB = 2**30
LARGEST = ("kimi-k2", "deepseek-r1")  # 140,000 and 90,000 tensors as directories: opened once, by the test of the command
ROUNDED = {"deepseek-v2-lite": 0.03, "olmoe-1b-7b": 0.03}  # published with two digits
# layers that are enough for every kind of layer that the model has
SHORT = {"deepseek-r1": 4, "mistral-large-3": 4, "llama-4-scout": 4, "gpt-oss-120b": 2, "qwen3-235b-a22b": 1, "glm-4.5": 4}
SLOW = ("mistral-large-3", "glm-4.5")  # of the architecture of DeepSeek R1, and of routers and attention that others have as well

# Runs a command from a small process: on Linux, the peak of a process that starts another becomes that of the other.
MEASURED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print([used.ru_maxrss, used.ru_utime + used.ru_stime])
"""


def opened(name, form, folder):
    return open_model(open_checkpoint(sparse_files.write(name, form, folder)), 4096)


@pytest.mark.parametrize("form", ["gguf", "huggingface"])
@pytest.mark.parametrize("name", geometries.CONFIGS)
def test_parameters_as_published(name, form, tmp_path):
    if (name, form) in [(largest, "huggingface") for largest in LARGEST]:
        return  # test_info_of_the_largest
    spec, (total, active) = opened(name, form, tmp_path), geometries.PUBLISHED[name]
    assert spec.parameters / 1e9 == pytest.approx(total, rel=0.02)
    assert spec.active_parameters / 1e9 == pytest.approx(active, rel=ROUNDED.get(name, 0.02))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak has another unit")
@pytest.mark.parametrize("form", ["gguf", "huggingface"])
@pytest.mark.parametrize("name", [LARGEST[0], pytest.param(LARGEST[1], marks=pytest.mark.slow)])
def test_info_of_the_largest(name, form, tmp_path):
    """The whole command, Python's start included, in a process of its own."""
    path = sparse_files.write(name, form, tmp_path)
    command = [sys.executable, "-c", MEASURED, sys.executable, "-m", "lacewing", "info", str(path), "--json"]
    facts, (peak, seconds) = map(json.loads, subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines())
    total, active = geometries.PUBLISHED[name]
    assert "problem" not in facts["tokenizer"]
    plan = {row["name"]: row["bytes"] for row in facts["plan"]["rows"]}
    assert plan["KV cache"] == 8192 * 61 * 576 * (2 if form == "gguf" else 4)  # FP8 may exceed the range of float16
    assert plan["experts"] > 0.95 * plan["weights"] and 4 * plan["active weights"] < plan["weights"]
    assert peak * 1024 < GIB
    assert seconds < 12, "5 s are promised; a busy processor is slower, also by its own clock"
    assert facts["parameters"] / 1e9 == pytest.approx(total, rel=0.02)
    assert facts["active_parameters"] / 1e9 == pytest.approx(active, rel=0.02)


def anonymous_bytes():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Anonymous:"))


def check_step(name, path, layers=None):
    """Two tokens through all layers; nothing is added to their embeddings on the way to the output."""
    config, before = geometries.config_of(name, layers), anonymous_bytes()
    with load(path, backend="cpu", residency="lazy", context=64) as model:
        found = model.logits([3, 5])[:, : sparse_files.WRITTEN]
        grown = anonymous_bytes() - before
        assert model.step.routes() == [] and len(model.spec.program.states) == config["num_hidden_layers"]
    expected = np.array([sparse_files.expected_logits(config, token) for token in (3, 5)])
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.01 * np.abs(expected).max())
    assert grown < GIB  # own memory; what is mapped goes when it is needed elsewhere


@pytest.mark.skipif(sys.platform != "linux", reason="holes in files and /proc are needed")
@pytest.mark.parametrize(("name", "form"), [*((name, "gguf") for name in SHORT if name not in SLOW),
                                            *(pytest.param(name, "gguf", marks=pytest.mark.slow) for name in SLOW),
                                            pytest.param("mistral-large-3", "gguf-naive", marks=pytest.mark.slow)])  # fmt: skip
def test_a_step_over_some_layers_of_full_width(name, form, tmp_path):
    """The last one as Ollama stores Mistral Large 3, in Q4_K."""
    check_step(name, sparse_files.write(name, form, tmp_path, SHORT[name]), SHORT[name])


@pytest.mark.skipif(sys.platform != "linux", reason="holes in files and /proc are needed")
@pytest.mark.parametrize(
    ("name", "quant"),
    [("gpt-oss-120b", "F4_E2M1"), ("deepseek-r1", "F8_E4M3")],  # paging in 3 and 5 GB
)
@pytest.mark.slow
def test_a_step_over_some_layers_as_the_makers_publish_them(name, quant, tmp_path):
    path = sparse_files.write(name, "huggingface", tmp_path, SHORT[name])
    assert quant in {tensor.quant.name for tensor in open_model(open_checkpoint(path), 64).tensors.values()}
    check_step(name, path, SHORT[name])


@pytest.mark.slow  # up to a minute each: the active experts of all layers are paged in, 23 GB of Mistral Large 3
@pytest.mark.skipif(sys.platform != "linux", reason="holes in files and /proc are needed")
@pytest.mark.parametrize(("name", "form"), [*((name, "gguf") for name in geometries.CONFIGS),
                                            *((name, "huggingface") for name in ("deepseek-r1", "llama-4-scout", "gpt-oss-120b",
                                                                                 "qwen3-30b-a3b", "mixtral-8x7b"))])  # fmt: skip
def test_a_step_over_the_whole_model(name, form, tmp_path):
    check_step(name, sparse_files.write(name, form, tmp_path))


@pytest.mark.parametrize(
    ("name", "values"),
    [("deepseek-v2", 60 * 576), ("mistral-large-3", 61 * 576), ("llama-4-scout", 48 * 2 * 8 * 128),
     ("gpt-oss-120b", 36 * 2 * 8 * 64), ("qwen3-235b-a22b", 94 * 2 * 4 * 128)],
)  # fmt: skip
def test_the_kv_cache_of_a_token(name, values, tmp_path):
    program = opened(name, "gguf", tmp_path).program
    assert sum(group.nbytes for group in program.groups) == PAGE * 2 * values


@pytest.mark.parametrize(
    ("config", "context", "most"),
    [(REAL["GEMMA3_270M"], 32768, 120 * 2**20), (geometries.config_of("gpt-oss-120b"), 131072, 4.7 * GIB),
     (geometries.config_of("llama-4-scout"), 131072, 7.4 * GIB)],
    ids=["gemma3-270m", "gpt-oss-120b", "llama-4-scout"],
)  # fmt: skip
def test_layers_that_see_a_part_hold_a_part(config, context, most):
    """What a sequence of the whole context needs, in float16, while 512 tokens run."""
    checkpoint = Checkpoint(Path("model"), "safetensors", {"config.json": config}, {})
    architecture = find_architecture(text_config(checkpoint)["model_type"], "model")
    program = build_program(read_huggingface(checkpoint, architecture, {})[0], context, architecture.block)
    assert 0.9 * most < sum(group.live(context, 512) * group.nbytes for group in program.groups) <= most


def test_bytes_that_a_token_reads(tmp_path):
    """Of a mixture in BF16: two for each active parameter and each of the output, and one row of the embedding."""
    spec = opened("gpt-oss-120b", "gguf", tmp_path)
    expert = 3 * 2880 * 2880 // 32 * 17 + 4 * (2 * 2880 + 2880)  # MXFP4, and biases in F32
    assert spec.sizes.active_expert_bytes == 36 * 4 * expert and spec.sizes.expert_bytes == 36 * 128 * expert
    rest = spec.sizes.weight_bytes - spec.sizes.expert_bytes - 201088 * 2880 // 32 * 34
    assert spec.active_bytes == spec.sizes.active_expert_bytes + rest + 2880 // 32 * 34
