"""An opened GPU without one: graphs, memory, and what its loss does; on a driver that records."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from lacewing.backends.cuda.arguments import Packed
from lacewing.backends.cuda.device.device import Device, Plan
from lacewing.backends.cuda.device.driver import fault
from lacewing.backends.cuda.kernels import kernels
from lacewing.errors import BackendError, OutOfMemoryError
from tests.backends.cuda.recording import ATTRIBUTES, RecordingDriver


class Gpu:
    """A device on a driver that records, and a plan of `copy` kernels."""

    def __init__(self) -> None:
        self.driver = RecordingDriver((7, 5))
        self.device = Device(self.driver, 0)
        self._packed = Packed([bytes(8), bytes(8)])

    def plan(self, count: int = 1) -> Plan:
        return [(self.device.function("copy", {}), (1 + index, 1, 1), self._packed.address, 0) for index in range(count)]

    def launched(self) -> list[int]:
        """Blocks of what was launched since this was asked."""
        found = [grid[0] for _, grid, *_ in self.driver.launched]
        self.driver.launched.clear()
        return found


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    made = Gpu()
    yield made
    made.device.close()


def test_what_another_thread_asks_for_is_in_no_graph(gpu: Gpu) -> None:
    """While a graph is captured, a model may be brought to the device: writes, kernels, waiting."""
    device, launch = gpu.device, gpu.driver.launch
    buffer, other = device.buffer(256, "memory"), gpu.plan(9)[8:]

    def meanwhile(*what: Any) -> None:
        gpu.driver.launch = launch  # type: ignore[method-assign]
        with ThreadPoolExecutor(1) as pool:
            pool.submit(device.write, buffer, 0, np.full(256, 7, np.uint8)).result()
            pool.submit(device.launch_all, other).result()
            assert pool.submit(device.read, buffer, 0, 256).result().sum() == 7 * 256
        launch(*what)

    gpu.driver.launch = meanwhile  # type: ignore[method-assign]
    graph = device.graph(gpu.plan(2))
    assert gpu.launched() == [9, 9]
    device.replay(graph)
    assert gpu.launched() == [1, 2]


def test_graphs_are_captured_one_at_a_time(gpu: Gpu) -> None:
    """The driver that records fails where a stream captures twice."""
    launch = gpu.driver.launch
    gpu.driver.launch = lambda *what: time.sleep(0) or launch(*what)  # type: ignore[method-assign, func-returns-value]
    with ThreadPoolExecutor(4) as pool:
        graphs = list(pool.map(lambda _: gpu.device.graph(gpu.plan(50)), range(8)))
    assert all([grid[0] for _, grid, *_ in graph] == [*range(1, 51)] for graph in graphs)


def test_a_graph_that_fails_tells_its_first_error(gpu: Gpu) -> None:
    """Not that of the end of the capture, which the failure has made invalid; the next graph is as if nothing had been."""

    def refuse(*_: Any) -> None:
        raise fault("CUDA_ERROR_INVALID_VALUE", "a kernel")

    def invalid(stream: Any) -> None:
        raise fault("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "a graph")

    driver = gpu.driver
    plain = driver.launch, driver.end_capture
    driver.launch, driver.end_capture = refuse, invalid  # type: ignore[method-assign]
    with pytest.raises(BackendError, match="the GPU refused a kernel: CUDA_ERROR_INVALID_VALUE"):
        gpu.device.graph(gpu.plan())
    driver.launch, driver.end_capture = plain  # type: ignore[method-assign]
    gpu.device.replay(gpu.device.graph(gpu.plan(3)))
    assert gpu.launched() == [1, 2, 3]


def test_shared_memory_that_a_kernel_may_have_never_shrinks(gpu: Gpu) -> None:
    """Launches of another model may need more of the same kernel than the last one that asked."""
    function = gpu.device.function("copy", {})
    asked: list[int] = []
    gpu.driver.allow_shared = lambda _, nbytes: asked.append(nbytes)  # type: ignore[method-assign]
    for nbytes in (1000, 60_000, 50_000, 60_000, 70_000):
        gpu.device.allow_shared(function, nbytes)
    assert asked == [60_000, 70_000]
    with pytest.raises(OutOfMemoryError, match=r"the kernel copy needs .* of shared memory, and this GPU has"):
        gpu.device.allow_shared(function, gpu.device.most_shared + 1)


def test_a_kernel_is_loaded_once_and_unloaded_at_the_end(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many others models have used since, and also where another library keeps the context."""
    device, loaded = gpu.device, []
    monkeypatch.setattr("lacewing.backends.cuda.device.device.machine_code", lambda *_: b"")
    gpu.driver.load = lambda _, name: loaded.append(name) or (len(loaded), name)  # type: ignore[method-assign, func-returns-value]
    forms = [(name, macros) for name, one in kernels().items() for macros in one.variants()]
    for _ in range(2):
        for name, macros in forms:
            device.function(name, macros)
    assert len(loaded) == len(forms) > 300
    unloaded: list[int] = []
    gpu.driver.unload = unloaded.append  # type: ignore[method-assign]
    device.close()
    assert sorted(unloaded) == [*range(1, len(forms) + 1)]


@pytest.mark.parametrize("direct", [0, 1])
def test_an_array_may_change_once_it_was_written(direct: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU that reads the host's pages by itself too, where the driver copies nothing before the call returns."""
    monkeypatch.setitem(ATTRIBUTES, "PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES", direct)
    made = Gpu()
    device, driver, later = made.device, made.driver, list[tuple[Any, ...]]()
    to_device, synchronize, waited = driver.to_device, driver.synchronize, list[int]()

    def settle(stream: Any) -> None:
        waited.append(1)
        while later:
            to_device(*later.pop(0))
        synchronize(stream)

    if direct:
        driver.to_device = lambda *copy: later.append(copy)  # type: ignore[method-assign]
    driver.synchronize = settle  # type: ignore[method-assign]
    buffer, data = device.buffer(256, "memory"), np.full(256, 7, np.uint8)
    device.write(buffer, 0, data)
    assert len(waited) == direct
    data[:] = 0
    assert device.read(buffer, 0, 256).sum() == 7 * 256
    device.close()
