"""The device layer on Dawn: what test_device.py asks of wgpu-native, and models against the reference."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lacewing.backends.batch import Batch, StepLimits
from lacewing.backends.webgpu.backend import WebGPUBackend
from lacewing.backends.webgpu.device import raw
from lacewing.backends.webgpu.device.bindings.base import interrupts
from lacewing.backends.webgpu.device.device import Device, Slice
from lacewing.backends.webgpu.device.faults import Guard
from lacewing.errors import BackendError, DeviceLostError, OutOfMemoryError
from lacewing.program.ops import Buffer, Linear
from tests.backends.cpu.single_ops import Case, nmse, random_weight
from tests.backends.webgpu.swiftshader import adapter, backend, null
from tests.checkpoints import prompt_of, tiny
from tests.interrupts import interrupted
from tests.models.running import greedy, open_step, run

ONE = Batch.of([0], 0, [0])
pytestmark = pytest.mark.browser  # which brings the driver


@pytest.fixture
def device() -> Any:
    made = Device(adapter(), checked=True)
    yield made
    if not made.lost:
        made.close()


def compiled(device: Device) -> Any:
    """A step of float32, whose kernels SwiftShader compiles in seconds."""
    x, y = Buffer("x", 64).view(), Buffer("y", 96).view()
    case = Case((Linear(x, ("w",), (y,)),), np.ones((8, 64), np.float32), y, {"w": random_weight("w", "F32", 96, 64)})
    return WebGPUBackend(device).compile(case.program, case.all_weights(case.program.vocab_size), StepLimits(64, 16))


def test_a_step_gives_all_back_and_a_lost_device_fails_the_request(caplog: pytest.LogCaptureFixture) -> None:
    """The process goes on, and no log tears the terminal. Shaders are those without checks, as users have them."""
    device = Device(adapter(), checked=False)
    first = compiled(device)
    found = first.run(ONE)
    assert np.isfinite(found).all() and np.array_equal(first.run(ONE), found)
    first.close()
    device.settle()
    assert device.allocated == 0 and device.buffers == []
    step = compiled(device)
    step.run(ONE)
    device.device.destroy()
    for _ in range(2):
        with pytest.raises(BackendError, match=r"the GPU was lost \(\[Device\] is lost.*load the model again"):
            step.run(ONE)
    assert device.lost
    with pytest.raises(BackendError, match="the GPU was lost"):
        compiled(device)
    with pytest.raises(BackendError, match="the GPU was lost"):
        device.read(step._logits.buffer, 0, 16)
    step.close()
    assert device.allocated == 0 and not caplog.records


@pytest.mark.slow  # SwiftShader compiles for a minute
@pytest.mark.parametrize("name", ["llama-wide", "qwen3moe"])
def test_a_model(name: str, tmp_path: Path) -> None:
    """A prompt, and tokens that the device chooses itself, several under way at a time."""
    path = tiny(name, "gguf", tmp_path, "Q8_0")
    ids = prompt_of(name.partition("-")[0], 20)
    _, exact = open_step(path, 64)
    _, step = open_step(path, 64, backend("subgroups"), chunk=32)
    assert nmse(run(step, ids), run(exact, ids)) < 1e-6
    assert greedy(step, ids, 12) == greedy(exact, ids, 12)
    step.close()


def test_errors_of_raw_calls_are_raised(device: Any) -> None:
    buffer = device.buffer(256, "small")
    with pytest.raises(BackendError, match=r"the GPU refused a write: Write range .* does not fit"):
        device.write(buffer, 0, np.zeros(1000, np.uint32))
    with pytest.raises(KeyError), Guard(device.binding, "anything"):
        raw.write(device.device, buffer, 0, np.zeros(1000, np.uint32))
        raise KeyError
    recorder = raw.Recorder(device.device)
    recorder.copy(buffer, 0, buffer, 0, 4096)
    with pytest.raises(BackendError, match="the GPU refused recorded work: "):
        recorder.submit()
    device.write(buffer, 0, np.arange(64, dtype=np.uint32))
    assert device.read(buffer, 0, 256).view(np.uint32).tolist() == list(range(64))


def test_an_error_is_of_the_thread_that_made_it(device: Any) -> None:
    """Dawn's classes raise the oldest error of any thread; a kernel that is refused beside is not a buffer's fault."""
    made, refused = [], []
    for _ in range(20):
        device.prepare(f"fn main() {{ let x = ; }} // {len(made)}", "wrong")
        made.append(device.buffer(256, "right"))
        with pytest.raises(BackendError, match=r"the GPU refused the kernel wrong: Error while parsing WGSL: .*`backend='cpu'`"):
            refused.append(device.pipeline(f"fn main() {{ let x = ; }} // {len(made) - 1}", "wrong"))
    assert len(device.buffers) == 20 and not refused


def test_out_of_memory(device: Any) -> None:
    with pytest.raises(OutOfMemoryError, match=r"keys takes 1\.0 TiB, and this GPU's largest buffer is"):
        device.buffer(2**40, "keys")
    held = []
    with pytest.raises(OutOfMemoryError, match=r"no memory left for weights \(.*B\); use a smaller `context`"):
        for _ in range(64):  # SwiftShader refuses the first or one of the next
            held.append(device.buffer(device.limits["max-buffer-size"] // 256 * 256, "weights"))
    assert len(device.buffers) == len(held)


def test_a_loss_is_heard_by_who_waits(device: Any) -> None:
    buffer, results = device.buffer(256, "a"), device.readback(256)
    device.device.destroy()
    recorder = raw.Recorder(device.device)
    results.copy(recorder, buffer, 0, 256)
    index = recorder.submit()
    with pytest.raises(DeviceLostError), results.mapped(256, index):
        pass
    device.wait(index)
    assert device.lost


def test_submissions_end_in_turn(device: Any) -> None:
    """Any of them can be waited for, also again and late; those that nobody waits for are not kept."""
    buffer = device.buffer(256, "a")
    numbers = []
    for value in range(30):
        device.write(buffer, 0, np.full(64, value, np.uint32))
        numbers.append(raw.Recorder(device.device).submit())
    assert numbers == sorted(set(numbers))
    for index in (numbers[-1], numbers[0], numbers[12], numbers[-1], None):
        device.wait(index)
    assert device.binding.idle(device.device)
    assert len(device.binding._under_way[device.device]) < 30
    assert device.read(buffer, 0, 4).view(np.uint32)[0] == 29


def test_ctrl_c_while_the_device_computes(device: Any) -> None:
    code = """
    @group(0) @binding(0) var<storage, read_write> a: array<u32>;
    @compute @workgroup_size(1)
    fn main() {
      var x = a[0];
      for (var i = 0u; i < 40000000u; i++) { x = x * 1664525u + 1013904223u + i; }
      a[0] = x;
    }"""
    buffer, results, pipeline = device.buffer(256, "a"), device.readback(256), device.pipeline(code, "long")
    group = device.bind(pipeline, [Slice(buffer, 0, 256)])
    recorder = raw.Recorder(device.device)
    recorder.dispatches([(pipeline.handle, group._internal, 1, 1, 1)])
    results.copy(recorder, buffer, 0, 256)
    index = recorder.submit()
    begun = threading.Event()
    with interrupted(begun, after=0.05):
        begun.set()
        with results.mapped(256, index):
            time.sleep(1)  # where the device was faster
    recorder = raw.Recorder(device.device)
    results.copy(recorder, buffer, 0, 256)
    with results.mapped(256, recorder.submit()) as found:
        assert np.frombuffer(found, np.uint32)[0] != 0
    assert interrupts == []


def test_the_clock(device: Any) -> None:
    from lacewing.backends.webgpu.device.clock import Clock
    from lacewing.backends.webgpu.kernels import shader

    clock, buffers = Clock(device), [device.buffer(2**20, "a copy") for _ in range(2)]
    pipeline = device.pipeline(shader("copy"), "copy")
    group = device.bind(pipeline, [Slice(buffer, 0, 2**20) for buffer in buffers])
    one = (pipeline.handle, group._internal, 64, 1, 1)
    rounds = [clock.once([[one], [one] * 40]) for _ in range(5)]  # in the first the device is not warm, in any others may be busy
    few, many = np.min(rounds, axis=0)
    assert 0 < 2 * few < many < 60
    clock.close()


def test_facts() -> None:
    found = WebGPUBackend(Device(adapter(), checked=True))
    assert found.device.binding.name == "dawn" and found.device.variant.subgroups and "subgroups" in found.facts().features
    assert found.device.variant.units is None and not found.device.binding.has_units(null())
    found.device.close()
