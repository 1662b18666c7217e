"""What routers decide on the device, watched: as the reference tells it."""

from collections.abc import Sequence

import numpy as np

from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.program.ops import Buffer, Route
from tests.backends.cpu.kernels.test_experts import CHOSEN, EXPERTS, IDS, WIDTH, routed
from tests.backends.webgpu.lowering.test_experts import TOKENS
from tests.backends.webgpu.single_ops import backend


def watched(step: object, batch: Sequence[int]) -> list[tuple[int, np.ndarray, np.ndarray]]:
    rows = np.array(batch, np.int32)
    step.run(rows, 0 * rows, rows, rows[:0])  # type: ignore[attr-defined]
    return [(layer.layer, layer.ids.copy(), layer.probabilities.copy()) for layer in step.routes()]  # type: ignore[attr-defined]


def test_what_routers_decide_can_be_watched_and_equals_the_reference() -> None:
    case = routed((Route(Buffer("x", WIDTH + EXPERTS).view(0, 8), IDS, CHOSEN),), CHOSEN, {}, TOKENS, renormalise=True)
    seen = []
    device, before = backend().device, backend().device.allocated
    for which in (backend(), ReferenceBackend()):
        step = case.step(which, 64)  # type: ignore[arg-type]
        assert watched(step, range(TOKENS)) == []
        held = device.allocated
        step.watch_routes(True)
        assert step.routes() == []
        seen.append([found for batch in (range(TOKENS), range(5, 6)) for found in watched(step, batch)])
        step.watch_routes(False)
        assert watched(step, range(TOKENS)) == [] and device.allocated == held
        step.watch_routes(True)
        step.close()
    assert device.allocated == before
    for ours, reference in zip(*seen, strict=True):
        assert ours[0] == reference[0] == 0
        np.testing.assert_array_equal(ours[1], reference[1])
        np.testing.assert_allclose(ours[2], reference[2], rtol=2e-6)
    assert [found[1].shape for found in seen[0]] == [(TOKENS, 2), (TOKENS, 2), (1, 2), (1, 2)]
