"""Models that do not fit a GPU, or are said not to: the CPU has the rest, and everything else is as ever."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import lacewing
from lacewing.api import Model
from lacewing.backends import init_backend
from lacewing.backends.webgpu.backend import WebGPUBackend
from lacewing.cli import main
from lacewing.errors import BackendError, Cancelled, OptionError, OutOfMemoryError
from lacewing.offload.plan import OffloadLevel, OffloadPlanner
from lacewing.offload.step import OffloadBackend, OffloadStep
from lacewing.options import CPU, GPU, LoadOptions, Sampling, parse_layers
from lacewing.placement.info import ModelInfo
from lacewing.placement.place import place
from lacewing.placement.requirements import model_requirements, target_on
from lacewing.weights import Machine
from tests.checkpoints import tiny

pytestmark = pytest.mark.gpu

IDS = [7, 300, 12, 55, 256, 9, 81, 4, 200, 33, 17]


@pytest.fixture(autouse=True)
def _floats(monkeypatch):
    """Activations as floats, so that logits can be compared; shaders with checks; short runs, whose buffers are small."""
    monkeypatch.setattr("lacewing.placement.requirements.CHUNK", 16)
    monkeypatch.setenv("LACEWING_WEBGPU", "subgroups")
    monkeypatch.setenv("LACEWING_WEBGPU_CHECKS", "1")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("placing")
    return {name: tiny(name, "gguf", folder) for name in ("llama", "gemma2", "qwen3moe")}


@pytest.fixture(scope="module")
def wanted(paths):
    found = {}
    for name, path in paths.items():
        with lacewing.load(path, backend="reference", context=64) as model:
            found[name] = model.logits(IDS)
    return found


def load(path: Path, context: int = 64, **options: object) -> Model:
    return lacewing.load(path, backend="webgpu", context=context, threads=1, **options)  # type: ignore[arg-type]


def device_of(model: Model):
    backend = model.backend
    return (backend.backends[0] if isinstance(backend, OffloadBackend) else backend).device


def levels(path: Path) -> list[tuple[OffloadLevel, int]]:
    """Each way to share a model out that saves anything, and the bytes that the GPU needs for it, as the plan reckons."""
    opened = ModelInfo(path, LoadOptions(context=64), warm=False)
    sharing = OffloadPlanner(opened.spec.program, target_on(opened, init_backend("webgpu")))
    found = [(level, sharing.load(level).nbytes) for level in sharing.levels()]
    return [found[0], *(each for each in found[1:] if each[1] < found[0][1])]  # tiny experts are less than the buffers of sharing


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3moe"])
def test_every_size_of_memory(name, paths, wanted):
    """From a byte less than everything needs down to one layer."""
    whole, *others = levels(paths[name])
    with load(paths[name], gpu_memory=whole[1]) as model:
        assert not isinstance(model.step, OffloadStep) and model.weights.residency == "lazy"
        device = device_of(model)
    held = device.allocated
    for level, nbytes in others:
        with load(paths[name], gpu_memory=nbytes) as model:
            share = model._placement.offload
            assert share is not None and share.level == level
            np.testing.assert_allclose(model.logits(IDS), wanted[name], rtol=0, atol=1e-3 if name == "gemma2" else 1e-4)
            rows = {row.name: row for row in model.plan.rows}
            assert rows["on the GPU"].nbytes == share.gpu.nbytes <= rows["GPU budget"].nbytes == nbytes
            assert rows["weights"].nbytes < model.weights.nbytes and "`gpu_memory`" in model.plan.reasons[0]
            assert model.notices[: len(share.reasons)] == share.reasons  # which run and chat print
        assert device.allocated == held
    with pytest.raises(OutOfMemoryError, match="not even one layer"):
        load(paths[name], gpu_memory=others[-1][1] - 1)


def test_as_many_layers_as_asked_for(paths, wanted):
    for layers in ("0", 1, "2", "auto"):
        with load(paths["llama"], gpu_layers=layers) as model:
            assert isinstance(model.step, OffloadStep) == (layers in ("0", 1))
            np.testing.assert_allclose(model.logits(IDS), wanted["llama"], rtol=0, atol=1e-4)
    with load(paths["qwen3moe"], gpu_layers=1) as model:
        assert model.plan.rows[0].note == "everything but the experts of 1 of 2 layers"
        np.testing.assert_allclose(model.logits(IDS), wanted["qwen3moe"], rtol=0, atol=1e-4)
        assert "asked for" in model.notices[0]


def test_prefixes_states_and_residency(paths):
    """A shared model is like any other: texts go on, its state can be kept, its part in memory be lazy or eager, bitwise alike."""
    with load(paths["llama"], gpu_layers=1) as model:
        assert model.weights.residency == "eager" and 0 < model.weights.anonymous_bytes < model.weights.nbytes
        assert model.memory_bytes == model.weights.anonymous_bytes + model.step.host_bytes
        first = model.generate("Hello world", max_tokens=12, temperature=0)
        assert model.generate("Hello world", max_tokens=12, temperature=0) == first and model.stats["reused_tokens"] > 0
        logits = model.logits(IDS)
        model.set_residency("lazy")
        assert model.weights.anonymous_bytes == 0 and np.array_equal(model.logits(IDS), logits)
        model.set_residency("eager")
        assert np.array_equal(model.logits(IDS), logits)
        model.generate("Hello world", max_tokens=4, temperature=0)
        state = model.read_state()
        model.logits(IDS)
        model.write_state(*state)
        assert model.generate("Hello world", max_tokens=12, temperature=0) == first and model.stats["reused_tokens"] > 0
        model.close()
        model.return_to_device()
        assert model.generate("Hello world", max_tokens=12, temperature=0) == first


def room_for(path: Path, shared: int, held: int) -> int:
    """Bytes for so many layers that share their experts."""
    return next(nbytes for level, nbytes in levels(path) if (level.shared, level.resident) == (shared, held))


def test_shared_experts(paths, wanted):
    """What is used more becomes resident, from request to request; the logits stay, and so do lazy, eager, closing, coming back."""
    path = paths["qwen3moe"]
    with load(path, gpu_memory=room_for(path, 2, 3)) as model:
        assert "everything but 5 of 8 experts of all layers" in model.plan.reasons[0]
        assert any("as routers choose them" in notice for notice in model.notices)
        device, shares, running = device_of(model), [], 0
        allocated = device.allocated
        for _ in range(3):
            model.engine.forget()
            model.generate("Hello world", max_tokens=12, temperature=0)
            shares.append(model.step.cache_statistics.hit_rate)
            np.testing.assert_allclose(model.logits(IDS), wanted["qwen3moe"], rtol=0, atol=1e-4)
            running = running or device.allocated  # pages and results come with the first run
        assert shares[2] > shares[0] and device.allocated == running
        model.set_residency("lazy" if model.weights.residency == "eager" else "eager")
        model.generate("And now for something else", max_tokens=4, temperature=0)
        np.testing.assert_allclose(model.logits(IDS), wanted["qwen3moe"], rtol=0, atol=1e-4)
        model.close()
        assert device.allocated == 0 or device.allocated < allocated
        model.return_to_device()
        assert device.allocated == allocated and model.step.cache_statistics.hit_rate is None
        np.testing.assert_allclose(model.logits(IDS), wanted["qwen3moe"], rtol=0, atol=1e-4)


def test_answers_that_are_cancelled_or_taken_in_turns(paths):
    """Of a model that shares its experts: what a cancelled one has run stays, and two at once get what each gets alone."""
    path = paths["qwen3moe"]
    with load(path, gpu_memory=room_for(path, 2, 4)) as model:
        alone = [
            [token.id for token in model.engine.generate(ids, Sampling(temperature=0, max_tokens=6))] for ids in (IDS, IDS[3:])
        ]
        both = [model.engine.generate(ids, Sampling(temperature=0, max_tokens=6)) for ids in (IDS, IDS[3:])]
        turns = list(zip(*both, strict=True))
        assert [[token.id for token in tokens] for tokens in zip(*turns, strict=True)] == alone
        stopped = model.engine.generate([*IDS, 5], Sampling(temperature=0), cancelled=lambda: stopped.stats.generated_tokens == 3)
        tokens = [token.id for token in stopped]
        assert len(tokens) == 3 and stopped.finish_reason == "cancelled"
        assert model.engine.held([*IDS, 5, *tokens, 7]) == len(IDS) + 3  # the last one was chosen, but not run
        assert [token.id for token in model.engine.generate(IDS, Sampling(temperature=0, max_tokens=6))] == alone[0]


@contextlib.contextmanager
def short_of_memory(device, nbytes: int) -> Iterator[list[str]]:
    """The device gives no more than that; what was refused."""
    make, refused = device.buffer, []

    def buffer(size, label, usage=None):
        if device.allocated + size > nbytes:
            refused.append(label)
            raise OutOfMemoryError(f"{label}: the GPU has no memory left")
        return make(size, label, usage)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "buffer", buffer)
        yield refused


def test_less_is_tried_where_memory_ends(paths, wanted):
    """The plan was too hopeful: fewer layers then, and nothing of the first try stays."""
    context = 1024
    device, most = init_backend(GPU).device, []
    with pytest.MonkeyPatch.context() as patch:
        make = device.buffer
        patch.setattr(device, "buffer", lambda *arguments: (make(*arguments), most.append(device.allocated))[0])
        with load(paths["llama"], context) as model:
            assert not isinstance(model.step, OffloadStep)
    with short_of_memory(device, max(most) - 1) as refused:
        model = load(paths["llama"], context)
    with model:
        assert refused and isinstance(model.step, OffloadStep) and "what it has after all" in " ".join(model.notices)
        np.testing.assert_allclose(model.logits(IDS), wanted["llama"], rtol=0, atol=1e-4)
    before = device.allocated
    for options in ({"gpu_layers": 1}, {"gpu_memory": "1GiB"}):  # what a person asks for is not changed
        with short_of_memory(device, before + 4096), pytest.raises(OutOfMemoryError, match="no memory left"):
            load(paths["llama"], context, **options)
        assert device.allocated == before
    with short_of_memory(device, before + 4096), pytest.raises(OutOfMemoryError, match="no memory left"):  # three tries are all
        load(paths["llama"], context)
    assert device.allocated == before


def test_long_runs_and_shorter_ones_where_memory_ends(paths, wanted, monkeypatch):
    """A device that would have more tokens in a run; the model stays whole with fewer."""
    monkeypatch.setattr(WebGPUBackend, "run_tokens", lambda backend, program: 1024)
    device = init_backend(GPU).device
    with load(paths["llama"], 1024) as model:
        assert model.engine.chunk == 1024
        np.testing.assert_allclose(model.logits(IDS), wanted["llama"], rtol=0, atol=1e-4)
        held = device.allocated
    with short_of_memory(device, held - 1) as refused, load(paths["llama"], 1024) as model:
        assert refused and model.engine.chunk == 16 and not isinstance(model.step, OffloadStep)
        np.testing.assert_allclose(model.logits(IDS), wanted["llama"], rtol=0, atol=1e-4)
    with load(paths["llama"], 1024, gpu_memory=held - 2**20) as model:
        assert model.engine.chunk == 16 and not isinstance(model.step, OffloadStep)


@pytest.mark.parametrize(("name", "shared"), [("llama", None), ("qwen3moe", (2, 3))])
@pytest.mark.parametrize("error", [OutOfMemoryError, BackendError, Cancelled, KeyboardInterrupt])
def test_building_that_ends_half_way(name, shared, error, paths, monkeypatch):
    """Wherever it ends, the GPU has what it had, a model beside it works, and the next try works."""
    options = {"gpu_layers": 1} if shared is None else {"gpu_memory": room_for(paths[name], *shared)}
    with load(paths["llama"]) as beside:
        device, first = device_of(beside), beside.logits(IDS)
        held, make, left = device.allocated, device.buffer, [10**6]

        def ending(size, label, usage=None):
            left[0] -= 1
            if left[0] < 0:
                raise error("it ends here")
            return make(size, label, usage)

        monkeypatch.setattr(device, "buffer", ending)
        load(paths[name], **options).close()
        made = 10**6 - left[0]
        for count in range(0, made, max(1, made // 6)):
            left[0] = count
            with pytest.raises(error, match="it ends here"):
                load(paths[name], **options)
            assert device.allocated == held
            left[0] = 10**6
            assert np.array_equal(beside.logits(IDS), first)
        with load(paths[name], **options) as model:
            assert isinstance(model.step, OffloadStep)


def test_what_auto_is_told(paths):
    """Of a mixture a GPU must take all but the experts, of a dense model everything, with options for a GPU any part."""

    def told(name: str, **options: object):
        opened = ModelInfo(paths[name], LoadOptions(context=64, **options), warm=False)  # type: ignore[arg-type]
        return model_requirements(opened, opened.options)

    dense, mixture = told("llama"), told("qwen3moe")
    assert dense.min_nbytes == dense.nbytes or dense.nbytes - dense.min_nbytes < 2**20
    assert mixture.min_nbytes < mixture.nbytes
    assert told("llama", gpu_layers=1).min_nbytes == 0 == told("qwen3moe", gpu_memory_bytes=2**20).min_nbytes


def info_of(path: Path, **options: object) -> ModelInfo:
    return ModelInfo(path, LoadOptions(GPU, context=64, **options), warm=False)  # type: ignore[arg-type]


def test_where_a_model_goes(paths, monkeypatch):
    """Told without bringing it anywhere; the words are those of /model's table."""
    device = init_backend(GPU).device
    before = device.allocated
    whole = place(info_of(paths["llama"]))
    assert whole.summary == "GPU" and not whole.on_host and whole.cpu is None and whole.device_bytes == whole.plan.needed_bytes
    some = place(info_of(paths["llama"], gpu_layers=1))
    assert some.summary == "GPU and CPU, eager" and some.on_host and 0 < some.device_bytes < whole.device_bytes
    assert some.plan.kv_bytes == whole.plan.kv_bytes and some.host_weights
    none = place(ModelInfo(paths["llama"], LoadOptions(CPU, context=64, residency="lazy"), warm=False))
    assert none.summary == "lazy" and none.gpu is None and none.device_bytes == 0
    assert device.allocated == before


def test_a_model_on_the_gpu_needs_no_ram(paths, monkeypatch):
    monkeypatch.setattr("lacewing.weights.this_machine", lambda: Machine(2**30, 1000, "a small machine"))
    assert place(info_of(paths["llama"])).summary == "GPU"
    with pytest.raises(OutOfMemoryError, match="a small machine"):
        place(info_of(paths["llama"], gpu_layers=1))
    told = place(ModelInfo(paths["llama"], LoadOptions(CPU, context=64), warm=False), tell=True)
    assert told.plan.residency == "none" and "it does not fit" in told.plan.reasons[0]


def test_what_leaves_the_gpu_is_counted_as_free(paths, monkeypatch):
    needed = place(info_of(paths["llama"])).device_bytes
    monkeypatch.setattr(type(init_backend(GPU)), "room_bytes", lambda backend: needed)  # of which not all may be filled
    assert place(info_of(paths["llama"])).summary.startswith("GPU and CPU")
    assert place(info_of(paths["llama"]), freed=needed).summary == "GPU"


def test_eager_weights_on_a_gpu_read_nothing(paths, monkeypatch):
    """All weights are copies there: reading the file into RAM would only take memory."""
    with load(paths["llama"]) as model:
        before = model.logits(IDS)
        monkeypatch.setattr("lacewing.weights.store.read_weights", lambda *_: pytest.fail("the file is read"))
        for force in (False, True):
            with pytest.raises(OptionError, match=r"the weights are on .*; eager is about weights in RAM"):
                model.set_residency("eager", force=force)
        model.set_residency("lazy")  # as ever
        assert model.weights.anonymous_bytes == 0 and not model.weights_on_host and "GPU" in repr(model)
        assert np.array_equal(model.logits(IDS), before)


def test_options_that_mean_nothing(paths):
    for backend in ("cpu", "reference"):
        with pytest.raises(OptionError, match=rf"`gpu_layers` is for a GPU, and the backend is {backend}"):
            lacewing.load(paths["llama"], backend=backend, gpu_layers=1)
    with pytest.raises(OptionError, match="`gpu_memory` is for a GPU"):
        lacewing.load(paths["llama"], backend="cpu", gpu_memory="1GiB")
    with pytest.raises(OptionError, match="auto found none for this model"):  # it takes no software adapter
        lacewing.load(paths["llama"], gpu_layers=1)


def test_memory_of_the_machine_that_ends(paths, monkeypatch):
    """It is not taken for the GPU's: nothing else is tried."""
    tries = []

    def full(store, residency, *rest):
        tries.append(residency)
        raise OutOfMemoryError("no memory for the weights")

    monkeypatch.setattr("lacewing.weights.WeightStore.set_residency", full)
    with pytest.raises(OutOfMemoryError, match="no memory for the weights"):
        load(paths["llama"])
    assert len(tries) == 1
    with pytest.raises(OutOfMemoryError, match="KV cache"):
        load(paths["llama"], gpu_layers=1, memory=4096)


def test_numbers_of_layers():
    assert [parse_layers(value) for value in (None, "auto", 0, "7")] == [None, None, 0, 7]
    for value in ("seven", "-1", "", True, "1.5", "1" * 6):
        with pytest.raises(OptionError, match="number of layers, or auto"):
            parse_layers(value)
    with pytest.raises(OptionError, match="gpu_layers"):
        LoadOptions(gpu_layers=-1)
    with pytest.raises(OptionError, match="gpu_memory"):
        LoadOptions(gpu_memory_bytes=0)


def test_commands_show_the_plan(paths, monkeypatch, capsys, tmp_path):
    def call(*words: object):
        monkeypatch.setattr(sys, "argv", ["lacewing", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    shared = ("--backend", "webgpu", "--context", 64, "--gpu-layers", 1)
    code, out, _ = call("info", paths["llama"], *shared)
    assert code == 0 and "layer 1 of 2 and the output" in out and "the CPU computes the rest: asked for" in out
    facts = json.loads(call("info", paths["llama"], *shared, "--json")[1])
    assert facts["plan"]["rows"][0]["name"] == "on the GPU"
    assert "only the output" in call("info", paths["llama"], *shared[:-1], 0)[1]
    code, _, err = call("run", paths["llama"], "Hi", *shared, "--max-tokens", 2)
    assert code == 0 and "lacewing: on the GPU is layer 1 of 2" in err
    assert "auto found none for this model" in call("info", paths["llama"], "--context", 64, "--gpu-layers", 1)[2]  # as `run` says
    assert "is for a GPU" in call("info", paths["llama"], "--backend", "cpu", "--gpu-memory", "1GiB")[2]
    code, _, err = call("info", paths["llama"], "--gpu-layers", "many")
    assert code and "number of layers, or auto" in err
    mixture = ("--backend", "webgpu", "--context", 64, "--gpu-memory", room_for(paths["qwen3moe"], 2, 4))
    code, out, _ = call("info", paths["qwen3moe"], *mixture)
    assert code == 0 and "everything but 4 of 8 experts of all layers" in out
    code, out, _ = call("bench", paths["qwen3moe"], *mixture, "--prompt", 8, "--generate", 4, "--repeats", 1)
    assert code == 0 and "4 of 8 of a layer on the GPU, hit rate " in out
    (tmp_path / "text").write_text("some text, and more of it")
    code, out, _ = call("stats", paths["qwen3moe"], "--text", tmp_path / "text", *mixture, "--json")
    assert code == 0 and [layer["layer"] for layer in json.loads(out)["layers"]] == [0, 1]
    for value, problem in (("-1", "--gpu-memory"), ("0", "--gpu-memory"), ("lots", "lots"), ("1e30GiB", "--gpu-memory")):
        code, _, err = call("info", paths["qwen3moe"], "--backend", "webgpu", f"--gpu-memory={value}")
        assert code and problem in err and "Traceback" not in err, value
    code, _, err = call("run", paths["llama"], "Hi", "--backend", "webgpu", "--context", 64, "--gpu-memory", 1)
    assert code and "not even one layer of the model fits the GPU" in err
