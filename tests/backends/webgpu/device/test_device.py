"""What a device gives and takes back, and what goes wrong on one: memory, losses, refused kernels, cancelled work."""

import threading
import time
from collections import deque

import numpy as np
import pytest
import wgpu

from lacewing.backends.batch import Batch, StepLimits
from lacewing.backends.webgpu.backend import WebGPUBackend, shared
from lacewing.backends.webgpu.device import adapters as adapters_module
from lacewing.backends.webgpu.device import raw
from lacewing.backends.webgpu.device.bindings.base import interrupts
from lacewing.backends.webgpu.device.device import Device, Slice
from lacewing.backends.webgpu.device.faults import Guard, fault, reason_of
from lacewing.backends.webgpu.device.memory import subgroup_sizes
from lacewing.errors import BackendError, Cancelled, OptionError, OutOfMemoryError
from lacewing.program.ops import Buffer, Linear
from tests.backends.cpu.single_ops import Case, random_weight
from tests.backends.webgpu.single_ops import adapter, backend
from tests.interrupts import interrupted

X, Y = Buffer("x", 64).view(), Buffer("y", 96).view()
CASE = Case((Linear(X, ("w",), (Y,)),), np.ones((8, 64), np.float32), Y, {"w": random_weight("w", "Q8_0", 96, 64)})
ONE = Batch.of([0], 0, [0])


@pytest.fixture
def device():
    """One of its own, to be lost or filled."""
    made = Device(adapter(), checked=True)
    yield made
    if not made.lost:
        made.close()


def compiled(device, progress=None):
    program = CASE.program
    return WebGPUBackend(device).compile(program, CASE.all_weights(program.vocab_size), StepLimits(64, 16), progress)


def test_memory_is_counted_and_given_back(device):
    assert device.allocated == 0 and device.buffers == []
    one, other = device.buffer(1000, "one"), device.buffer(1, "other")
    assert device.allocated == 1024 + 256
    device.free(one)
    device.free(one)  # again: nothing
    assert device.allocated == 256 and device.buffers == [other]
    before = device.buffers
    device.buffer(256, "third")
    device.free_since(before)
    assert device.buffers == [other]


def test_a_step_gives_all_back_and_its_kernels_in_the_end(device, monkeypatch):
    device._recent = deque(maxlen=2)  # of which a step has more
    for _ in range(3):
        step = compiled(device)
        held = step.buffer_bytes + step.state_bytes
        assert held < device.allocated < held + 2**17  # and weights
        step.run(ONE)
        step.close()
        step.close()
        assert device.allocated == 0 and device.buffers == []
    del step
    assert len(device._pipelines) == 2


def test_two_models_on_a_device(device):
    one, other = compiled(device), compiled(device)
    expected = one.run(ONE)
    assert np.array_equal(other.run(ONE), expected)
    one.close()
    assert np.array_equal(other.run(ONE), expected)
    other.close()
    assert device.allocated == 0


def test_too_large_for_a_buffer(device):
    with pytest.raises(OutOfMemoryError, match=r"keys takes 1\.0 TiB, and this GPU's largest buffer is .*smaller `context`"):
        device.buffer(2**40, "keys")
    assert device.allocated == 0


@pytest.mark.parametrize("after", [0, 1, 3, 6, 8])
def test_out_of_memory_half_way(device, monkeypatch, after):
    """The message names what did not fit; what was made is freed, and the next compilation works."""
    create, left = device.device.create_buffer, [after]

    def failing(**options):
        if left[0] == 0:
            raise wgpu.GPUOutOfMemoryError("Not enough memory left")
        left[0] -= 1
        return create(**options)

    monkeypatch.setattr(device.device, "create_buffer", failing)
    with pytest.raises(
        OutOfMemoryError, match=r"no memory left for .*\(.*B\); use a smaller `context` or quant, or `backend='cpu'`"
    ):
        compiled(device)
    assert device.allocated == 0 and device.buffers == []
    monkeypatch.undo()
    compiled(device).close()


@pytest.mark.parametrize("when", ["bringing weights to the GPU", "compiling kernels"])
def test_cancelled_half_way(device, when):
    def cancel(what, done, total):
        assert 0 <= done <= total
        if what == when:
            raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"):
        compiled(device, cancel)
    assert device.allocated == 0


def test_progress_ends_at_the_whole(device):
    told = []
    compiled(device, lambda *facts: told.append(facts)).close()
    weights = [(done, total) for what, done, total in told if what == "bringing weights to the GPU"]
    assert weights[-1][0] == weights[-1][1] and weights == sorted(weights)
    assert {what for what, _, _ in told} == {"bringing weights to the GPU", "compiling kernels"}


def test_a_lost_device_fails_the_request_not_the_process(device, monkeypatch, caplog):
    step = compiled(device)
    step.run(ONE)
    device.device.destroy()  # as near to a reset driver as can be had
    for _ in range(2):
        with pytest.raises(
            BackendError, match=r"the GPU was lost \(Parent device is lost\).*load the model again, or use `backend='cpu'`"
        ):
            step.run(ONE)
    assert device.lost
    with pytest.raises(BackendError, match="the GPU was lost"):
        compiled(device)
    with pytest.raises(BackendError, match="the GPU was lost"):
        device.read(step._logits.buffer, 0, 16)
    step.close()
    assert device.allocated == 0
    assert not caplog.records  # wgpu's log would tear the terminal


def test_a_lost_device_is_opened_anew(monkeypatch):
    monkeypatch.setenv("LACEWING_WEBGPU", "none")  # a device that no other test uses
    monkeypatch.setenv("LACEWING_WEBGPU_CHECKS", "1")
    chosen = min(adapters_module.adapters(), key=lambda each: each.kind != "software")
    first = shared(chosen)
    assert shared(chosen) is first
    first.device.destroy()
    with pytest.raises(BackendError, match="lost"):
        first.buffer(256, "anything")
    second = shared(chosen)
    assert second is not first and not second.lost
    step = compiled(second)
    step.run(ONE)
    step.close()


@pytest.mark.parametrize("checked", [True, False])
def test_a_refused_kernel_is_named(checked):
    device = Device(adapter(), checked)
    with pytest.raises(
        BackendError, match=r"the GPU refused the kernel wrong: Shader 'wrong' parsing error: expected expression.*`backend='cpu'`"
    ):
        device.pipeline("fn main() { let x = ; }", "wrong")
    large = "@group(0) @binding(0) var<storage, read_write> a: array<u32>; @compute @workgroup_size(99999) fn main() { a[0] = 1u; }"
    with pytest.raises(BackendError, match=r"the GPU refused the kernel large: .*size"):
        device.pipeline(large, "large")
    device.close()


def test_errors_of_raw_calls_are_raised(device):
    buffer = device.buffer(256, "small")
    with pytest.raises(BackendError, match=r"the GPU refused a write: .*overrun"):
        device.write(buffer, 0, np.zeros(1000, np.uint32))
    with pytest.raises(KeyError), Guard(device.binding, "anything"):  # what was raised inside comes first
        raw.write(device.device, buffer, 0, np.zeros(1000, np.uint32))
        raise KeyError
    device.write(buffer, 0, np.arange(64, dtype=np.uint32))
    assert device.read(buffer, 0, 256).view(np.uint32).tolist() == list(range(64))


def test_ctrl_c_while_the_device_computes(device):
    """It is heard in the callback that ends the wait, out of which nothing can be raised."""
    code = """
    @group(0) @binding(0) var<storage, read_write> a: array<u32>;
    @compute @workgroup_size(1)
    fn main() {
      var x = a[0];
      for (var i = 0u; i < 400000000u; i++) { x = x * 1664525u + 1013904223u + i; }
      a[0] = x;
    }"""
    buffer, results, pipeline = device.buffer(256, "a"), device.readback(256), device.pipeline(code, "long")
    group = device.bind(pipeline, [Slice(buffer, 0, 256)])
    plan = [(pipeline.handle, group._internal, 1, 1, 1)]
    raw.Recorder(device.device).submit()
    for _ in range(2):
        recorder = raw.Recorder(device.device)
        recorder.dispatches(plan)
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


def test_words_of_faults():
    assert isinstance(fault("x", "Out of memory"), OutOfMemoryError)
    assert isinstance(fault("x", "anything", "GPUOutOfMemoryError"), OutOfMemoryError)
    assert isinstance(fault("x", "Not enough memory left."), OutOfMemoryError)
    assert isinstance(fault("the kernel x", "workgroup memory is larger than the limit"), BackendError)
    lost = []
    assert "lost" in str(
        fault("x", "Validation Error\n\nCaused by:\n  In wgpuX\n    Parent device is lost", "", lambda: lost.append(1))
    )
    assert lost == [1]
    assert reason_of("") == "it does not say why"


def test_variants(monkeypatch):
    assert backend("none").device.variant.subgroups is False and backend("none").device.variant.dot is False
    assert backend("dot").device.variant.lanes == 32
    full = backend("subgroups,dot")
    assert full.device.variant.subgroups and full.device.variant.dot
    assert full.facts().features[-2:] == ("subgroups", "dot") and full.copies_weights
    for wrong in ("fast", "none,dot", "dawn,fast"):
        monkeypatch.setenv("LACEWING_WEBGPU", wrong)
        with pytest.raises(OptionError, match=f"LACEWING_WEBGPU={wrong}: the variants are none, subgroups, dot"):
            Device(adapter())


def opened(monkeypatch, wanted):
    """The variant of a device that is opened with this in LACEWING_WEBGPU."""
    monkeypatch.setenv("LACEWING_WEBGPU", wanted)
    device = Device(adapter())
    device.close()
    return device.variant


def test_what_a_device_lacks_cannot_be_forced(monkeypatch):
    assert opened(monkeypatch, " dot , half ").half
    assert opened(monkeypatch, "") == opened(monkeypatch, "subgroups,dot,half")  # nothing is named: all
    monkeypatch.setattr("lacewing.backends.webgpu.device.device._WANTED", ("subgroup",))
    assert not opened(monkeypatch, "").half
    with pytest.raises(OptionError, match=r"LACEWING_WEBGPU names half, which the GPU .* does not have"):
        opened(monkeypatch, "half")


def test_subgroups_whose_size_is_the_drivers_choice(monkeypatch):
    """One kernel that was asked says nothing of the next: teams are as small as the smallest subgroup."""
    least, most = subgroup_sizes(adapter().info["vendor_id"], adapter().info["device_id"])
    assert least == most == backend().device.variant.lanes
    assert subgroup_sizes(1, 2) == (0, 0)
    for sizes, lanes, fixed in (((least, 64), least, False), ((4, 64), 4, False), ((0, 0), least, True)):
        monkeypatch.setattr("lacewing.backends.webgpu.device.device.subgroup_sizes", lambda vendor, device, sizes=sizes: sizes)
        variant = opened(monkeypatch, "")
        assert (variant.subgroups, variant.lanes, variant.fixed) == (True, lanes, fixed)
    for sizes in ((2, 32), (least + 1, 64), (128, 128)):  # too small, not what was seen
        monkeypatch.setattr("lacewing.backends.webgpu.device.device.subgroup_sizes", lambda vendor, device, sizes=sizes: sizes)
        variant = opened(monkeypatch, "")
        assert not variant.subgroups and variant.lanes == 32 and variant.dot and not variant.fixed
        with pytest.raises(OptionError, match="names subgroups"):
            opened(monkeypatch, "subgroups")


def test_kernels_that_were_begun_fail_when_they_are_asked_for(device):
    device.prepare("fn main() { let x = ; }", "wrong")
    with pytest.raises(BackendError, match="the GPU refused the kernel wrong"):
        device.pipeline("fn main() { let x = ; }", "wrong")
    device.prepare("fn main() { let y = ; }", "never asked for")
    device.unprepare()
    assert not device._compiling


def test_work_that_fails_frees_nothing_of_another_thread(device):
    before, made = device.buffers, []
    other = threading.Thread(target=lambda: made.append(device.buffer(256, "another's")))
    other.start()
    other.join()
    device.buffer(256, "ours")
    device.free_since(before)
    assert device.buffers == made


def test_several_threads_compile_on_one_device(device):
    """A failure of one frees nothing of another's."""
    steps = []

    def cancel(what, done, total):
        raise Cancelled("enough")

    def fail():
        with pytest.raises(Cancelled):
            compiled(device, cancel)

    threads = [threading.Thread(target=lambda: steps.append(compiled(device))), threading.Thread(target=fail)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.isfinite(steps[0].run(ONE)).all()
    steps[0].close()
    assert device.allocated == 0
