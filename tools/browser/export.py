"""Writes what a browser needs to run a model: its kernels, what a token takes, and its weights.

    LACEWING_WEBGPU=dot python -m tools.browser.export MODEL FOLDER [--prompt TEXT] [--context 512]

`LACEWING_WEBGPU=dot`: kernels that every browser has, without subgroups and float16. FOLDER gets `model.json` and `weights.bin`; a
page that loads `run.js` beside them generates greedily, as `lacewing run --temperature 0` does. The prompt is encoded here.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import lacewing
from lacewing.backends.batch import Batch
from lacewing.backends.gpu.inputs import Inputs
from lacewing.backends.gpu.run import Run
from lacewing.backends.webgpu.device.device import MINIMUM, Device, Pipeline
from lacewing.backends.webgpu.step.step import WebGPUStep
from lacewing.errors import OptionError
from lacewing.program.states import PAGE

Place = tuple[int, int, int]  # buffer, offset and size in bytes


class Notes:
    """What a device is asked to make while a model is compiled: the code of each pipeline, the buffers of each bind group."""

    def __init__(self, device: Device):
        self.code: dict[Any, str] = {}
        self.shown: dict[Any, list[Any]] = {}
        self._owners: list[object] = []  # a handle that is collected is given out again
        pipeline, bind = device.pipeline, device.bind

        def noted_pipeline(code: str, label: str) -> Pipeline:
            made = pipeline(code, label)
            self.code[made.handle] = code
            self._owners.append(made)
            return made

        def noted_bind(made: Pipeline, slices: Any) -> Any:
            group = bind(made, slices)
            self.shown[group._internal] = [(part.buffer, part.offset, part.size) for part in slices]
            self._owners.append(group)
            return group

        device.pipeline, device.bind = noted_pipeline, noted_bind  # type: ignore[method-assign]


class Script:
    """Kernels, buffers and dispatches, each by its number."""

    def __init__(self, notes: Notes):
        self._notes = notes
        self.codes: list[str] = []
        self.buffers: list[Any] = []

    def dispatches(self, plan: Any) -> list[list[Any]]:
        """[kernel, [place, ...], x, y, z] of each."""
        return [
            [_index(self.codes, self._notes.code[pipeline]), [self._place(part) for part in self._notes.shown[group]], *grid]
            for pipeline, group, *grid in plan
        ]

    def _place(self, part: tuple[Any, int, int]) -> Place:
        buffer, offset, size = part
        return _index(self.buffers, buffer), offset, size


def _index(known: list[Any], one: Any) -> int:
    for index, each in enumerate(known):
        if each is one or (isinstance(one, str) and each == one):
            return index
    known.append(one)
    return len(known) - 1


def export(model_path: str, folder: Path, prompt: str, context: int) -> dict[str, Any]:
    """Write both files; what `model.json` holds. Raises what `lacewing.load` raises."""
    from lacewing.backends.webgpu import backend

    folder.mkdir(parents=True, exist_ok=True)
    notes: list[Notes] = []
    made = backend.WebGPUBackend.compile

    def compile_noted(self: Any, *arguments: Any, **options: Any) -> Any:
        notes.append(Notes(self.device))
        self.device.limits |= MINIMUM  # what every browser gives, not what this machine's GPU does
        return made(self, *arguments, **options)

    backend.WebGPUBackend.compile = compile_noted  # type: ignore[method-assign]
    try:
        with lacewing.load(model_path, backend="webgpu", context=context) as model:
            assert isinstance(model.step, WebGPUStep)
            return _write(model, model.step, notes[-1], folder, model.tokenizer.encode_prompt(prompt), context)
    finally:
        backend.WebGPUBackend.compile = made  # type: ignore[method-assign]


def _write(model: Any, step: WebGPUStep, notes: Notes, folder: Path, ids: list[int], context: int) -> dict[str, Any]:
    pages = -(-context // PAGE)
    for group, each in enumerate(step.groups):
        if not each.paged:
            raise OptionError("this prototype runs models whose only states are the pages of attention")
        step.grow(group, pages)
    script, plans = Script(notes), {}
    for position in (0, *(1 << bit for bit in range((context - 1).bit_length()))):
        run = Run.singly(1, position)
        plans[run.reach] = script.dispatches([*step._plan(run, logits_only=False), *step._argmax.plan(1)])
    buffers = []
    with open(folder / "weights.bin", "wb") as file:
        for buffer in script.buffers:
            content = step.device.read(buffer, 0, buffer.size)
            buffers.append([buffer.size, file.tell() if content.any() else -1])  # nothing has run: what is not zero is constant
            file.write(content.tobytes() if content.any() else b"")
    inputs = step._inputs
    words = {name: getattr(inputs, name) for name in ("tokens", "positions", "chosen")}
    words |= {"all": inputs.words, "tables": [inputs.table(number) for number in range(len(step.groups))]}
    words["constant"] = _constant_words(inputs)
    found = {
        "codes": script.codes, "plans": plans, "buffers": buffers, "step": script.buffers.index(step._step_buffer), "words": words,
        "pages": pages, "context": context, "prompt": ids, "stops": sorted(model.tokenizer.stop_ids),
        "texts": [model.tokenizer.decode([token]) for token in range(step.program.vocab_size)],
    }  # fmt: skip
    (folder / "model.json").write_text(json.dumps(found), encoding="utf-8")
    return found


def _constant_words(inputs: Inputs) -> list[int]:
    """Those before the tables, of a run of token 0 at position 0; the script puts the true ones in."""
    return inputs.encode(Batch.of(np.zeros(1, np.int32), 0, [0]), 1, 0).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.browser.export", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompt", default="The sky is blue because")
    parser.add_argument("--context", type=int, default=512)
    options = parser.parse_args()
    found = export(options.model, options.folder, options.prompt, options.context)
    size = (options.folder / "weights.bin").stat().st_size
    print(f"{len(found['codes'])} kernels and {size / 1e6:.1f} MB of weights are in {options.folder}")


if __name__ == "__main__":
    main()
