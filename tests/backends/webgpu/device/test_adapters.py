"""Which GPU is taken, by whom, and what is said where there is none. Made-up GPUs stand for those this machine lacks."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import wgpu

from lacewing import init_backend
from lacewing.backends import base, choose_backend, webgpu
from lacewing.backends.webgpu.backend import shared
from lacewing.backends.webgpu.device import adapters as module
from lacewing.backends.webgpu.device.adapters import UNKNOWN_BYTES, adapters, candidates, choose_adapter
from lacewing.backends.webgpu.device.bindings import choice
from lacewing.backends.webgpu.device.device import MINIMUM
from lacewing.backends.webgpu.device.memory import GpuMemory, gpu_memories
from lacewing.errors import BackendError, OptionError, UnsupportedModelError
from lacewing.program.ops import Buffer, Embed, Logits, Op
from lacewing.program.program import Program
from lacewing.quants import by_name

GIB = 2**30


@dataclass
class Gpu:
    """As wgpu shows an adapter."""

    device: str
    adapter_type: str = "DiscreteGPU"
    backend_type: str = "Vulkan"
    vendor_id: int = 1
    device_id: int = 7
    limits: dict = field(default_factory=lambda: dict(MINIMUM))
    features: frozenset = frozenset({"subgroup"})

    @property
    def info(self):
        return {name: getattr(self, name) for name in ("device", "adapter_type", "backend_type", "vendor_id", "device_id")} | {
            "description": ""
        }

    @property
    def summary(self):
        return f"{self.device} ({self.adapter_type}) via {self.backend_type}"


@pytest.fixture
def machine(monkeypatch):
    """Makes a machine of GPUs and their memories."""
    for name in ("WGPU_BACKEND_TYPE", "WGPUPY_WGPU_ADAPTER_NAME", "LACEWING_WEBGPU"):
        monkeypatch.delenv(name, raising=False)

    def make(*gpus, memories=()):
        monkeypatch.setattr(wgpu.gpu, "enumerate_adapters_sync", lambda: list(gpus))
        monkeypatch.setattr(module, "gpu_memories", lambda: list(memories))
        monkeypatch.setattr(webgpu, "hardware", lambda: True)

    return make


def names():
    return [each.name for each in adapters()]


def judged(needed=None):
    return {each.facts.name.split(" (")[0]: (each.auto, each.reason) for each in candidates(needed)}


def test_the_best_kind_comes_first_and_each_once(machine):
    machine(
        Gpu("llvmpipe", "CPU", vendor_id=65541, device_id=0),
        Gpu("iris", "IntegratedGPU", vendor_id=2),
        Gpu("arc", backend_type="D3D12"),
        Gpu("arc"),
        Gpu("arc 4.6", "Unknown", "OpenGL", device_id=0),
        Gpu("virtual", "Unknown", vendor_id=9),
    )
    assert names() == ["arc", "iris", "virtual", "llvmpipe"]
    assert [each.index for each in adapters()] == [0, 1, 2, 3]
    assert adapters()[0].interface == "Vulkan"


def test_two_alike_stay_two(machine):
    memories = [GpuMemory(1, 7, 8 * GIB, 1 * GIB), GpuMemory(3, 7, 4 * GIB, None), GpuMemory(1, 7, 8 * GIB, 7 * GIB)]
    machine(Gpu("arc"), Gpu("arc"), memories=memories)
    assert [(each.memory_bytes, each.free_bytes) for each in adapters()] == [(8 * GIB, 1 * GIB), (8 * GIB, 7 * GIB)]
    assert [each.auto for each in candidates(2 * GIB)] == [False, True]


def test_auto_takes_gpus_that_the_model_fits(machine):
    memories = [GpuMemory(1, 7, 8 * GIB, 6 * GIB), GpuMemory(2, 7, 16 * GIB, None)]
    machine(
        Gpu("arc"),
        Gpu("iris", "IntegratedGPU", vendor_id=2),
        Gpu("radeon", vendor_id=4),
        Gpu("llvmpipe", "CPU", vendor_id=5),
        Gpu("virtual", "Unknown", vendor_id=6),
        memories=memories,
    )
    assert {name for name, (auto, _) in judged().items() if auto} == {"arc", "iris", "radeon"}
    found = judged(5 * GIB)
    assert found["arc"] == (True, "the model's 5.0 GiB fit in 90% of 6.0 GiB")
    assert found["iris"][0]
    assert found["radeon"] == (False, "the model takes 5.0 GiB, more than 90% of an unknown amount of memory, treated as 4.0 GiB")
    assert UNKNOWN_BYTES == 4 * GIB
    assert not judged(6 * GIB)["arc"][0] and judged(14 * GIB)["iris"][0] and not judged(15 * GIB)["iris"][0]
    assert "on the CPU" in found["llvmpipe"][1] and "does not say" in found["virtual"][1]


def test_limits_that_are_too_small(machine):
    machine(Gpu("old", limits={**MINIMUM, "max-storage-buffers-per-shader-stage": 4}))
    ((auto, reason),) = judged().values()
    assert not auto and reason == "its limit max-storage-buffers-per-shader-stage is 4, and the kernels need 8"
    with pytest.raises(BackendError, match=r"GPU old cannot be used: its limit max-storage-buffers-per-shader-stage is 4.*cpu"):
        shared(adapters()[0])


def test_an_adapter_by_index_or_name(machine):
    machine(Gpu("GeForce RTX"), Gpu("Iris Xe", "IntegratedGPU", vendor_id=2))
    assert choose_adapter().name == "GeForce RTX"
    for wanted in (1, "1", "iris", " XE ", "integrated"):
        assert choose_adapter(wanted).name == "Iris Xe"
    for wanted in (2, "2", "radeon", "", "-1"):
        with pytest.raises(OptionError, match=r"no adapter .*`lacewing backends` shows them: 0 GeForce RTX, 1 Iris Xe"):
            choose_adapter(wanted)


def test_variables_of_wgpu(machine, monkeypatch):
    machine(Gpu("arc"), Gpu("iris", "IntegratedGPU", vendor_id=2), Gpu("iris gl", "Unknown", "OpenGL", vendor_id=2, device_id=0))
    monkeypatch.setenv("WGPUPY_WGPU_ADAPTER_NAME", "iris")
    assert names() == ["iris"]
    monkeypatch.setenv("WGPU_BACKEND_TYPE", "OpenGL")
    assert names() == ["iris gl"]
    monkeypatch.setenv("WGPU_BACKEND_TYPE", "Metal")
    monkeypatch.delenv("WGPUPY_WGPU_ADAPTER_NAME")
    with pytest.raises(BackendError, match=r"no GPU is shown through Metal \(WGPU_BACKEND_TYPE\)"):
        adapters()
    monkeypatch.setenv("WGPU_BACKEND_TYPE", "Glide")
    with pytest.raises(BackendError, match="WGPU_BACKEND_TYPE=Glide is no interface; there are Vulkan, Metal, D3D12, OpenGL"):
        adapters()
    monkeypatch.delenv("WGPU_BACKEND_TYPE")
    monkeypatch.setenv("WGPUPY_WGPU_ADAPTER_NAME", "radeon")
    with pytest.raises(BackendError, match=r"no GPU's name contains 'radeon' \(WGPUPY_WGPU_ADAPTER_NAME\)"):
        adapters()


def test_no_driver(machine):
    machine()
    for wanted in (adapters, candidates, choose_adapter, lambda: init_backend("webgpu")):
        with pytest.raises(BackendError, match=r"finds no GPU driver: install .*mesa-vulkan-drivers.*`backend='cpu'`"):
            wanted()
    backend, reasons = choose_backend("auto")
    assert backend.name == "cpu" and "finds no GPU driver" in reasons[0]


def test_no_driver_for_dawn(machine, monkeypatch):
    machine(Gpu("arc"))
    monkeypatch.setenv("LACEWING_WEBGPU", "dawn")
    monkeypatch.setattr(choice, "dawn", lambda: SimpleNamespace(adapters=lambda interfaces: []))
    with pytest.raises(
        BackendError, match=r"Dawn finds no GPU with a driver that is new enough.*leave out dawn in LACEWING_WEBGPU"
    ):
        adapters()


def test_auto_never_takes_software(machine):
    machine(Gpu("llvmpipe", "CPU"))
    backend, reasons = choose_backend("auto")
    assert backend.name == "cpu" and reasons == []  # as one would expect: nothing to say


@dataclass(frozen=True)
class Strange(Op):
    """No backend knows it."""


def requirements(quant="F32", nbytes=100, least=None):
    view = Buffer("x", 32).view()
    program = Program((Embed("table", view), Logits(view, "table")), {"table": (64, 32)}, (), 64)
    return base.ModelRequirements(
        program, {"table": SimpleNamespace(shape=(64, 32), quant=by_name(quant), scales=None)}, nbytes, least
    )


def test_auto_looks_at_the_model(machine, monkeypatch):
    opened = []
    monkeypatch.setattr("lacewing.backends.webgpu.backend.shared", lambda adapter: opened.append(adapter.name) or SimpleNamespace())
    machine(
        Gpu("small", vendor_id=1), Gpu("large", vendor_id=2), memories=[GpuMemory(1, 7, GIB, None), GpuMemory(2, 7, 9 * GIB, None)]
    )
    assert choose_backend("auto", required=requirements(nbytes=100))[0].name == "webgpu"
    assert choose_backend("auto", required=requirements(nbytes=5 * GIB))[0].name == "webgpu"
    assert opened == ["small", "large"]
    for nbytes in (5 * GIB, 10 * GIB):  # one that takes all before one that takes a part
        assert choose_backend("auto", required=requirements(nbytes=nbytes, least=100))[0].name == "webgpu"
    assert opened[2:] == ["large", "small"]
    opened.clear()
    backend, reasons = choose_backend("auto", required=requirements(nbytes=10 * GIB))
    assert backend.name == "cpu" and "small: the model takes 10.0 GiB, more than 90% of 1.0 GiB; large: " in reasons[0]
    lacking = base.ModelRequirements(Program((Strange(),), {}, (), 64), {}, 100)
    backend, reasons = choose_backend("auto", required=lacking)
    assert backend.name == "cpu" and "cannot run the op Strange" in reasons[0]
    with pytest.raises(UnsupportedModelError):
        webgpu.open(required=lacking)
    assert opened == []


def test_naming_an_adapter_asks_for_a_gpu(machine):
    machine(Gpu("arc"))
    with pytest.raises(OptionError, match="no adapter 'radeon'"):
        init_backend(adapter="radeon")
    with pytest.raises(OptionError, match="the backend cpu has only one device; leave out `adapter`, which is 'arc'"):
        init_backend("cpu", adapter="arc")


def test_a_machine_without_device_files_has_no_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(webgpu, "Path", lambda _: tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    assert not webgpu.hardware()
    with pytest.raises(base.NoDeviceError, match="no GPU"):
        webgpu.open(required=requirements())
    (tmp_path / "dri").mkdir()
    (tmp_path / "dri" / "renderD128").touch()
    assert webgpu.hardware()
    monkeypatch.setattr(sys, "platform", "darwin")
    (tmp_path / "dri" / "renderD128").unlink()
    assert webgpu.hardware()


def test_memory_is_what_vulkan_says():
    """The software adapter's heap; its driver is the only one that is sure to be here."""
    (found,) = [each for each in gpu_memories() if each.vendor_id == 0x10005]
    assert found.total >= 2**28 and (found.free is None or found.free <= found.total)
    (adapter,) = [each for each in adapters() if each.kind == "software"]
    assert adapter.memory_bytes == found.total


def quiet(code, **variables):
    left = {name: value for name, value in os.environ.items() if name not in ("XDG_RUNTIME_DIR", "WAYLAND_DISPLAY")}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=left | variables, timeout=60)


def test_a_missing_library_is_a_sentence_and_drivers_are_silent():
    code = "from lacewing.backends import candidates; print([each.facts.kind for each in candidates('webgpu')])"
    done = quiet(code)
    assert "software" in done.stdout and done.stderr == ""
    missing = quiet("from lacewing.cli import main; main()", WGPU_LIB_PATH="/nonexistent.so")
    assert missing.returncode == 0  # no command: the help
    done = quiet(
        "import sys; sys.argv = ['lacewing', 'backends']; from lacewing.cli import main; main()", WGPU_LIB_PATH="/nonexistent.so"
    )
    assert done.returncode == 0 and done.stderr == ""
    assert "webgpu     not available: the library wgpu cannot be loaded" in done.stdout and "auto: yes" in done.stdout
