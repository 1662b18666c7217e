"""The kernels of a run by the device's own clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lacewing.backends.cuda.arguments import Packed, blocks
from lacewing.backends.cuda.device.device import Buffer, Device
from lacewing.backends.cuda.lowering.launches import Launch, Plan, Planned
from lacewing.backends.gpu.run import Run
from lacewing.backends.step import KernelTime

REPEATS = 5  # of which the quickest counts
COPY_BYTES = 2**29


@dataclass
class Timed:
    """The launches of a kernel in a run, and the bytes of weights that they read."""

    plan: Plan = field(default_factory=list)
    nbytes: int = 0


def timed_of(launches: Sequence[Launch], run: Run, chosen: float) -> dict[str, Timed]:
    """What a run launches, by kernels. An embedding reads a row a token, experts the share `chosen` of their weights."""
    found: dict[str, Timed] = {}
    for each in launches:
        grid = each.grid(run)
        if grid is not None:
            one = found.setdefault(each.label, Timed())
            share = 0.0 if each.label == "embed" else chosen if each.label.startswith("expert_") else 1.0
            one.nbytes += int(share * each.nbytes)
            one.plan.append(each.planned(grid))
    return found


def seconds_of(device: Device, plan: Plan) -> float:
    """Of launches one after another, as one graph, so that the host's calls are not in it."""
    first, last = device.driver.event(timed=True), device.driver.event(timed=True)
    graph = device.graph(plan)
    try:
        times = []
        for _ in range(REPEATS + 1):  # the first one warms up
            device.driver.record(first, device.stream)
            device.replay(graph)
            device.driver.record(last, device.stream)
            device.wait()
            times.append(device.driver.seconds(first, last))
        return min(times[1:])
    finally:
        device.give_back(device.driver.close_graph, graph)
        for event in (first, last):
            device.give_back(device.driver.close_event, event)


def kernel_times(device: Device, timed: dict[str, Timed]) -> tuple[KernelTime, ...]:
    """The slowest first."""
    found = [KernelTime(name, len(each.plan), seconds_of(device, each.plan), each.nbytes) for name, each in timed.items()]
    return tuple(sorted(found, key=lambda one: -one.seconds))


def copy_rate(device: Device) -> float:
    """See `Step.copy_rate`."""
    made: list[Buffer] = []
    try:
        for _ in range(2):
            made.append(device.buffer(COPY_BYTES, "memory to measure with"))
        function = device.function("copy", {})
        packed = Packed([each.address.to_bytes(8, "little") for each in made])
        grid = blocks(COPY_BYTES // 16, function.kernel.threads)
        planned: Planned = (function, (grid, 1, 1), packed.address, 0)
        return 2 * COPY_BYTES / seconds_of(device, [planned])
    finally:
        for buffer in made:
            device.free(buffer)
