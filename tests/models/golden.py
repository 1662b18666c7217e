"""Compares a tiny checkpoint on a backend with the golden values of transformers."""

from pathlib import Path

import numpy as np

from lacewing.backends import init_backend
from tests.checkpoints import CONTEXTS, prompt_of, tiny
from tests.models.running import greedy, open_step, run

FOLDER = Path(__file__).parent.parent / "data" / "golden"
TOLERANCE = 1e-4  # the promise is 1e-3


class Values:
    """Reads "CASE.logits" (R, V), "CASE.hidden" (S, D), "CASE.greedy" (N,), and of all cases "rows" (R,), "hidden_rows" (S,)."""

    rows: np.ndarray = np.load(FOLDER / "rows.npy")
    hidden_rows: np.ndarray = np.load(FOLDER / "hidden_rows.npy")

    def __getitem__(self, name: str) -> np.ndarray:
        if name in ("rows", "hidden_rows"):
            return getattr(self, name)
        case, _, kind = name.rpartition(".")
        with np.load(FOLDER / f"{case}.npz") as file:
            return file[kind]


VALUES = Values()


def check_golden(name: str, format: str, backend: str, folder: Path) -> None:
    """Logits of the prompt and the greedy tokens after it."""
    spec, step = open_step(tiny(name, format, folder), CONTEXTS.get(name), init_backend(backend, 2))
    ids, continued = prompt_of(name), VALUES[f"{name}.greedy"].tolist()
    assert spec.vocab_size == 320
    np.testing.assert_allclose(run(step, ids)[VALUES["rows"]], VALUES[f"{name}.logits"], rtol=0, atol=TOLERANCE)
    assert greedy(step, ids, len(continued)) == continued
    step.close()
