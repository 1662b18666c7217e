"""Compares three runs of a tiny checkpoint with the golden values of transformers: ours from the Hugging Face folder, ours from the
file that llama.cpp's own converter makes of it, and llama.cpp's from that file.

    python tools/compare_llama_cpp.py CONVERT LOGITS CASE ...

CONVERT: a command that takes a folder and the file to write; LOGITS: one that takes a file, ids.npy and the logits.npy to write, a
row for each position (teacher-forced). The differences of llama.cpp go into tests/data/llama_cpp.json.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.checkpoints import CONTEXTS, prompt_of, tiny  # noqa: E402
from tests.models.golden import VALUES  # noqa: E402
from tests.models.running import open_step, run  # noqa: E402

from lacewing.errors import LacewingError  # noqa: E402

TABLE = ROOT / "tests" / "data" / "llama_cpp.json"


def compare(name: str, convert: list[str], logits: list[str], folder: Path) -> list[float | str]:
    """The largest differences from transformers, or what went wrong: of the folder, of the file, of llama.cpp."""
    path, file = tiny(name, "huggingface", folder), folder / f"{name}.gguf"
    found: list[float | str] = [_ours(path, name)]
    done = subprocess.run([*convert, str(path), str(file)], capture_output=True, text=True)
    if done.returncode or not file.exists():
        return [*found, f"not converted: {done.stderr.strip().splitlines()[-1:]}", "-"]
    found.append(_ours(file, name))
    np.save(folder / "ids.npy", np.array(prompt_of(name), np.int32))
    done = subprocess.run([*logits, str(file), str(folder / "ids.npy"), str(folder / "logits.npy")], capture_output=True, text=True)
    if done.returncode:
        return [*found, f"not run: {done.stderr.strip().splitlines()[-1:]}"]
    return [*found, _difference(np.load(folder / "logits.npy"), name)]


def _ours(path: Path, name: str) -> float | str:
    try:
        _, step = open_step(path, CONTEXTS.get(name))
    except LacewingError as error:
        return str(error)
    return _difference(run(step, prompt_of(name)), name)


def _difference(logits: np.ndarray, name: str) -> float:
    return float(np.abs(logits[VALUES["rows"], :] - VALUES[f"{name}.logits"]).max())


def main() -> None:
    convert, logits, *names = sys.argv[1:]
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            found = compare(name, shlex.split(convert), shlex.split(logits), Path(folder))
        print(name, *(f"{each:.1e}" if isinstance(each, float) else each for each in found), sep="  ", flush=True)
        if isinstance(found[-1], float):
            table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
            table[name] = float(f"{found[-1]:.1e}")
            TABLE.write_text(json.dumps(dict(sorted(table.items())), indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
