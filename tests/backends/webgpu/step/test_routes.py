"""What routers decide on the device, watched: as the reference tells it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lacewing.backends.batch import Batch, Wanted
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.program.ops import Buffer, Route
from tests.backends.cpu.kernels.test_experts import CHOSEN, EXPERTS, IDS, WIDTH, routed
from tests.backends.webgpu.lowering.test_experts import TOKENS
from tests.backends.webgpu.single_ops import backend
from tests.checkpoints import prompt_of, tiny
from tests.models.running import open_step, run


def watched(step: Any, ids: Sequence[int]) -> list[tuple[int, np.ndarray, np.ndarray]]:
    step.run(Batch.of(list(ids), ids[0], []))
    return [(layer.layer, layer.ids.copy(), layer.probabilities.copy()) for layer in step.routes()]


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


def test_watched_while_the_device_chooses(tmp_path: Path) -> None:
    """Greedy tokens and the largest logits come from the device as before, and each token's decisions can be read after it."""
    _, opened = open_step(tiny("qwen3moe", "gguf", tmp_path), 64, backend(), chunk=64)
    step: Any = opened
    ids = prompt_of("qwen3moe", 9)
    run(step, ids[:-1])
    last = Batch.of(ids[-1:], 8, [0])
    unwatched = [int(token[0]) for token in step.greedy(last, 6)]
    step.watch_routes(True)
    found, decided = [], []
    for token in step.greedy(last, 6):
        found.append(int(token[0]))
        decided.append([layer.ids.tolist() for layer in step.routes()])
    assert found == unwatched
    singles = []
    for index, each in enumerate([ids[-1], *found[:-1]]):
        step.run(Batch.of([each], 8 + index, [0]))
        singles.append([layer.ids.tolist() for layer in step.routes()])
    assert decided == singles and len({str(each) for each in decided}) > 1
    assert step.choose(last, [Wanted(3)])[0].ids[0] == found[0]
    assert [layer.ids.tolist() for layer in step.routes()] == singles[0]
    step.close()
