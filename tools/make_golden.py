"""Golden values of the tiny checkpoints by transformers: run in an environment that has torch, from the repository's root.

    python tools/make_golden.py [CASE ...]     (tests/data/golden anew, or some of its cases; needs torch and transformers)

For each case: float32 logits of some rows of the prompt, hidden states after the final norm of fewer, and the greedy continuation
of the whole prompt.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import mixtures  # noqa: E402
from tests.checkpoints import GOLDEN, config_of, prompt_of, tiny  # noqa: E402
from tests.families import FAMILIES  # noqa: E402

ROWS = np.array([0, 1, 2, 4, 7, 8, 9, 13, 17, 20, 22, 23], np.int32)
HIDDEN_ROWS = np.array([0, 9, 23], np.int32)
CONTINUED = 24  # greedy tokens after the prompt
CONTINUED_MIXTURES = 64
CLOSEST = 1e-3  # a greedy choice nearer to its rival than this could fall either way


def golden(name: str, folder: Path) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Logits (ROWS, V), hidden states (HIDDEN_ROWS, D) and greedy ids of one case.

    Every step runs the whole sequence, without a cache.
    """
    path = tiny(name, "huggingface", folder)
    config = config_of(name)
    if config["model_type"] in FAMILIES:
        config = FAMILIES[config["model_type"]].stand_in(config)
        (path / "config.json").write_text(json.dumps(config))
    kind = getattr(transformers, config["architectures"][0])
    model, loading = kind.from_pretrained(path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    problems = {
        key: value for key, value in loading.items() if value and key in ("missing_keys", "unexpected_keys", "mismatched_keys")
    }
    if problems:
        raise SystemExit(f"{name}: {problems}")
    model.eval()
    ids, closest, steps = prompt_of(name), np.inf, CONTINUED_MIXTURES if name in mixtures.CASES else CONTINUED
    count = len(ids)
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].numpy()
        hidden = model.base_model(torch.tensor([ids])).last_hidden_state[0].numpy()
        for _ in range(steps):
            row = model(torch.tensor([ids])).logits[0, -1].numpy()
            best = np.sort(row)[-2:]
            closest = min(closest, float(best[1] - best[0]))
            ids.append(int(row.argmax()))
    print(f"{name:16} up to {np.abs(logits).max():.2f}, closest greedy choice {closest:.4f}, {ids[count : count + 8]}")
    if closest < CLOSEST:
        raise ValueError(f"{name}: a greedy choice is too close to call; change the case a little")
    return logits[ROWS], hidden[HIDDEN_ROWS], ids[count:]


def main() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    target = ROOT / "tests" / "data" / "golden"
    failed = []
    np.save(target / "rows.npy", ROWS)
    np.save(target / "hidden_rows.npy", HIDDEN_ROWS)
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:] or GOLDEN:
            try:
                logits, hidden, ids = golden(name, Path(folder))
            except ValueError as error:  # the others are written all the same
                print(error)
                failed.append(name)
                continue
            arrays = {"logits": logits.astype(np.float32), "hidden": hidden.astype(np.float32), "greedy": np.array(ids, np.int32)}
            np.savez_compressed(target / f"{name}.npz", **arrays)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    if failed:
        raise SystemExit(f"no values for {', '.join(failed)}")


if __name__ == "__main__":
    main()
