"""Which NVIDIA GPU is taken, and why another is not; on a driver that records."""

from __future__ import annotations

import gc
import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest
from cuda.bindings import nvrtc

import lacewing.backends as backends
from lacewing.backends.base import ModelRequirements, NoDeviceError
from lacewing.backends.cuda import open as open_cuda
from lacewing.backends.cuda.device import compiling, devices
from lacewing.backends.cuda.device import hardware as files
from lacewing.backends.cuda.device.driver import fault
from lacewing.errors import BackendError, DeviceLostError, OptionError
from lacewing.program.program import Program
from tests.backends.cuda.recording import RecordingDriver


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> RecordingDriver:
    made = RecordingDriver()
    made.gpus = 2
    monkeypatch.setattr(devices, "_driver", [made])
    monkeypatch.setattr(devices, "_devices", {})
    monkeypatch.setattr(files, "hardware", lambda: True)
    return made


def test_a_gpu_by_its_number_or_name(driver: RecordingDriver) -> None:
    assert [devices.choose_gpu(each).index for each in (None, 1, "1", "gpu 1", "RECORDING")] == [0, 1, 1, 1, 0]
    for name, unknown in (("2", ""), ("radeon", ", which is neither an index nor .*"), ("-1", ", which is neither .*"), ("", ".*")):
        told = rf"there is no NVIDIA GPU '{name}'{unknown}; .*: 0 recording GPU 0, 1 recording GPU 1"
        with pytest.raises(OptionError, match=told):
            devices.choose_gpu(name)
    assert backends.init_backend("cuda:1").facts().name == "recording GPU 1"
    assert backends.init_backend("cuda", adapter=0).facts().name == "recording GPU 0"
    assert backends.init_backend(adapter="GPU 1").facts().name == "recording GPU 1"


def needing(nbytes: int) -> ModelRequirements:
    return ModelRequirements(Program((), {}, (), 0), {}, nbytes)


def test_auto_takes_one_that_has_room(driver: RecordingDriver) -> None:
    assert backends.init_backend(required=needing(2**30)).name == "cuda"
    assert "fit in 90% of 16.0 GiB" in devices.candidates(2**30)[0].reason and devices.candidates(2**30)[0].auto
    with pytest.raises(BackendError, match=r"GPU 0: the model takes 32\.0 GiB, more than 90% of 16\.0 GiB; recording GPU 1"):
        open_cuda(required=needing(2**35))


def test_auto_counts_what_other_programs_use(driver: RecordingDriver) -> None:
    """Of a GPU that nobody here has opened too; contexts made to ask for it are given back, and the thread keeps its own."""
    driver.others[0] = 15 * 2**30
    driver.context = "another library's"
    backend = backends.init_backend(required=needing(2 * 2**30))
    assert backend.facts().name == "recording GPU 1" and driver.contexts == [1]
    driver.context = "another library's"
    first, second = devices.candidates(2 * 2**30)
    assert not first.auto and first.reason == "the model takes 2.0 GiB, more than 90% of 1.0 GiB" and second.auto
    assert driver.contexts == [1] and driver.context == "another library's"
    driver.others[1] = 16 * 2**30
    with pytest.raises(
        BackendError, match=r"GPU 0: the model takes 2\.0 GiB, more than 90% of 1\.0 GiB; recording GPU 1: .* of 0 B"
    ):
        open_cuda(required=needing(2 * 2**30))


def test_why_another_backend_has_the_adapter_is_told(driver: RecordingDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """If CUDA fails; not if it has no such GPU, or the machine has none."""
    opened: list[str | int | None] = []

    def other(threads: int | None, adapter: str | int | None, required: object = None) -> str:
        if adapter == "none":
            raise OptionError("there is no adapter 'none'")
        opened.append(adapter)
        return "webgpu"

    monkeypatch.setattr("lacewing.backends.webgpu.open", other)
    assert backends.choose_backend(adapter="radeon") == ("webgpu", [])
    driver.cuda = 12080
    backend, remarks = backends.choose_backend(adapter=1)
    assert (
        backend == "webgpu"
        and len(remarks) == 1
        and remarks[0].startswith("cuda: the GPU recording GPU 1 cannot be used: its driver")
    )
    with pytest.raises(OptionError, match=r"there is no adapter 'none'$"):
        backends.choose_backend(adapter="none")
    monkeypatch.setattr("lacewing.backends.webgpu.open", lambda *_: open_cuda(adapter="none"))
    with pytest.raises(
        OptionError, match=r"no NVIDIA GPU 'none', which .*; .*; cuda: the GPU recording GPU 1 cannot be used: its driver"
    ):
        backends.choose_backend(adapter=1)
    monkeypatch.setattr(files, "hardware", lambda: False)
    monkeypatch.setattr("lacewing.backends.cuda.importlib", None)  # no library is looked for
    monkeypatch.setattr("lacewing.backends.webgpu.open", other)
    assert backends.choose_backend(adapter=1) == ("webgpu", []) and opened == ["radeon", 1, 1]
    monkeypatch.setattr("lacewing.backends.cuda.open", lambda *_: {}["a mistake of ours"])
    with pytest.raises(KeyError):
        backends.choose_backend(adapter=1)


def test_a_gpu_that_gives_no_context_is_left_out(driver: RecordingDriver) -> None:
    """As one that another program has for itself alone."""
    opened = driver.open

    def refuse(index: int) -> int:
        if index == 0:
            raise fault("CUDA_ERROR_DEVICE_UNAVAILABLE", "a context")
        return int(opened(index))

    driver.open = refuse  # type: ignore[method-assign]
    assert not devices.candidates(2**30)[0].auto and "DEVICE_UNAVAILABLE" in devices.candidates(2**30)[0].reason
    assert backends.init_backend(required=needing(2**30)).facts().name == "recording GPU 1"


@pytest.mark.parametrize(
    ("cuda", "arch", "reason"),
    [
        (12080, (9, 0), r"its driver runs CUDA 12\.8, and CUDA 13\.0 is needed; update NVIDIA's driver to R580 or newer"),
        (13000, (7, 0), r"its compute capability is 7\.0, and the kernels need 7\.5"),
        (13000, (19, 0), r"NVRTC \d+\.\d+ knows no compute capability 19\.0"),
    ],
)
def test_what_is_too_old_or_too_new_is_told(driver: RecordingDriver, cuda: int, arch: tuple[int, int], reason: str) -> None:
    driver.cuda, driver.arch = cuda, arch
    found = devices.candidates()[0]
    assert not found.auto
    with pytest.raises(BackendError, match=reason):
        open_cuda()


def test_a_lost_gpu_is_lost_until_the_process_ends(driver: RecordingDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks is told the same, and `auto` takes another one."""
    unraised: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraised.append)
    monkeypatch.setattr(sys, "excepthook", lambda *error: unraised.append(error))  # of finalizers
    one = devices.shared(devices.gpus()[0])
    assert devices.shared(devices.gpus()[0]) is one
    driver.fail("synchronize", "CUDA_ERROR_ILLEGAL_ADDRESS")
    told = r"the GPU was lost \(CUDA_ERROR_ILLEGAL_ADDRESS\): .* end this program and start it again"
    for call in (one.wait, one.wait, lambda: one.buffer(10, "memory"), lambda: devices.shared(devices.gpus()[0])):
        with pytest.raises(DeviceLostError, match=told):
            call()
    driver.fail("release", "CUDA_ERROR_ILLEGAL_ADDRESS")  # of contexts that were made to ask for memory: in a finalizer
    first, second = devices.candidates(2**30)
    gc.collect()
    assert not unraised and not first.auto and re.search(told, first.reason) and second.auto
    assert backends.init_backend(required=needing(2**30)).facts().name == "recording GPU 1"


def test_a_machine_without_a_gpu(driver: RecordingDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.gpus = 0
    with pytest.raises(NoDeviceError, match="shows no GPU"):
        devices.candidates()
    monkeypatch.setattr(files, "hardware", lambda: False)
    with pytest.raises(NoDeviceError, match="this machine has no NVIDIA GPU"):
        backends.candidates("cuda")
    with monkeypatch.context() as patch:  # asked for by name, with and without the extra: neither it nor a driver is advised
        patch.setattr(devices, "_driver", [])
        patch.setattr(devices, "Driver", lambda: importlib.import_module("no_such_driver"))
        with pytest.raises(NoDeviceError, match=r"this machine has no NVIDIA GPU: NVIDIA's driver cannot be loaded \([^;]*$"):
            backends.init_backend("cuda")
        patch.setitem(sys.modules, "cuda.bindings.driver", None)
        with pytest.raises(NoDeviceError, match=r"this machine has no NVIDIA GPU$"):
            backends.init_backend("cuda:x")
        patch.setattr(files, "hardware", lambda: True)
        told = r"the CUDA backend needs an extra .*; install it: .*'lacewing\[cuda\]' \(in a clone: .*'\.\[cuda\]'\)"
        with pytest.raises(BackendError, match=told):
            backends.init_backend("cuda")
    monkeypatch.setattr("sys.platform", "darwin")  # asked for by name, too: the extra would not help
    with pytest.raises(NoDeviceError, match="this machine has no NVIDIA GPU"):
        backends.init_backend("cuda")


def test_the_extra_installs_what_the_driver_can_run() -> None:
    """Machine code of NVRTC 14 would need a newer driver than the one that is asked for; nothing of NVIDIA's is for macOS."""
    project = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())
    major = devices.LEAST_DRIVER // 1000
    for requirement in project["project"]["optional-dependencies"]["cuda"]:
        assert requirement.endswith(f">={major},<{major + 1}; sys_platform != 'darwin'"), requirement


@pytest.mark.parametrize("words", ["libcuda.so.1 was not found\nand more", ""])
def test_a_driver_that_cannot_be_loaded_is_no_missing_gpu(
    words: str, driver: RecordingDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So in a container that has the device files but not the driver's libraries; `auto` tells it beside what it takes."""

    def missing() -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(devices, "_driver", [])
    monkeypatch.setattr(devices, "Driver", missing)
    reason = r"libcuda\.so\.1 was not found" if words else "RuntimeError"
    with pytest.raises(BackendError, match=rf"NVIDIA's driver cannot be loaded \({reason}\); install .*R580") as found:
        devices.candidates()
    assert not isinstance(found.value, NoDeviceError)
    assert any("driver cannot be loaded" in remark for remark in backends.choose_backend()[1])
    monkeypatch.setattr(files, "hardware", lambda: False)
    with pytest.raises(NoDeviceError, match=rf"NVIDIA's driver cannot be loaded \({reason}\)"):
        devices.candidates()
    monkeypatch.setattr(devices, "Driver", lambda: {}["a mistake of ours"])
    with pytest.raises(KeyError):
        devices.candidates()


def test_a_missing_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise RuntimeError("libnvrtc.so was not found")

    monkeypatch.setattr(nvrtc, "nvrtcVersion", missing)
    compiling._nvrtc.cache_clear()
    with pytest.raises(BackendError, match=r"NVRTC cannot be loaded \(libnvrtc.so was not found\); install `lacewing\[cuda\]`"):
        compiling._nvrtc()
