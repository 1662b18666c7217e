"""Golden values of the tiny checkpoints by transformers: run in an environment that has torch, from the repository's root.

    python tools/make_golden.py [--code FOLDER] [CASE ...]
        (tests/data/golden anew, or some of its cases; needs torch and transformers)

FOLDER: a package with the makers' own modeling_*.py, for classes that transformers lacks: of `deepseek`, which was last run with
transformers 4.39. Without one these cases keep the values that they have.

For each case: float32 logits of some rows of the prompt, hidden states after the final norm of fewer, and the greedy continuation
of the whole prompt.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

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
LEFT_OUT = ("vision_model.", "multi_modal_projector.")  # random parts beside a language model, which text does not reach
CLOSEST = 1e-3  # a greedy choice nearer to its rival than this could fall either way


def class_of(name: str, code: Path | None) -> Any:
    """A class of transformers, or of the makers' modules. Raises ValueError where it is in neither."""
    if hasattr(transformers, name):
        return getattr(transformers, name)
    for file in sorted(code.glob("modeling_*.py")) if code else ():
        module = importlib.import_module(f"{file.parent.name}.{file.stem}")
        if hasattr(module, name):
            return getattr(module, name)
    raise ValueError(f"transformers {transformers.__version__} has no {name}, and --code names no folder that has")


def golden(name: str, folder: Path, code: Path | None) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Logits (ROWS, V), hidden states (HIDDEN_ROWS, D) and greedy ids of one case.

    Every step runs the whole sequence, without a cache.
    """
    path = tiny(name, "huggingface", folder)
    config = config_of(name)
    if config["model_type"] in FAMILIES:
        config = FAMILIES[config["model_type"]].stand_in(config)
        (path / "config.json").write_text(json.dumps(config))
    options = {"attn_implementation": "eager", "output_loading_info": True}  # the dtype is that of config.json
    model, loading = class_of(config["architectures"][0], code).from_pretrained(path, **options)
    problems = {
        kind: [key for key in loading[kind] if not any(part in str(key) for part in LEFT_OUT)]
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
    }
    if any(problems.values()):
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
    parser = argparse.ArgumentParser()
    parser.add_argument("--code", type=Path)
    parser.add_argument("cases", nargs="*")
    given = parser.parse_args()
    if given.code is not None:
        sys.path.insert(0, str(given.code.resolve().parent))
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    target = ROOT / "tests" / "data" / "golden"
    failed = []
    np.save(target / "rows.npy", ROWS)
    np.save(target / "hidden_rows.npy", HIDDEN_ROWS)
    with tempfile.TemporaryDirectory() as folder:
        for name in given.cases or GOLDEN:
            try:
                logits, hidden, ids = golden(name, Path(folder), given.code)
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
