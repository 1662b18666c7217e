"""The Python API: open a checkpoint, run it, change where its weights live."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lacewing import hub
from lacewing.assistant import Assistant, Message, TextStream
from lacewing.errors import BackendError, OptionError, OutOfMemoryError, TemplateError
from lacewing.options import LoadOptions, Progress, make_sampling, native, parse_bytes, parse_layers
from lacewing.placement.background import Background, interruptible
from lacewing.placement.info import CHUNK, ModelInfo
from lacewing.placement.place import Placement, demand, less, place

if TYPE_CHECKING:
    import numpy as np

    from lacewing.backends.base import Backend
    from lacewing.backends.step import Step
    from lacewing.placement.plan import Plan
    from lacewing.text.template import ChatTemplate
    from lacewing.text.tokenizer import Tokenizer
    from lacewing.weights import WeightStore

_PATIENCE = 0.5  # seconds that somebody who cancels waits for readers to let go


def load(
    name: str | Path,
    *,
    backend: str = "auto",
    adapter: str | int | None = None,
    residency: str = "auto",
    memory: str | int | None = None,
    context: int | None = None,
    threads: int | None = None,
    gpu_layers: int | str | None = None,
    gpu_memory: str | int | None = None,
    progress: Progress | None = None,
) -> Model:
    """Open a model: a GGUF or safetensors file, a directory, or the name of a fetched model.

    `backend`: "auto" takes a GPU that the model fits, else the processor; or "webgpu", "cpu", "reference". `adapter`: which GPU, by
    index or name, as `lacewing backends` shows them.
    `residency`: "lazy" pages weights in from the file, "eager" reads them into memory, "auto" decides by `memory` (bytes or
    "4GiB"; by default what is free). `context`: tokens that a conversation may have. `progress(what, done, total)` is told of
    long work. A model that does not fit the GPU is shared out between it and the processor: `gpu_memory` (as `memory`) bounds the
    part of the GPU, `gpu_layers` is how many layers are on it as a whole, "auto" as many as fit. Every error is a LacewingError.
    """
    gpu = None if adapter is None else str(adapter)
    shared = parse_layers(gpu_layers), parse_bytes(gpu_memory, "gpu_memory")
    options = LoadOptions(backend, residency, parse_bytes(memory), native(context), native(threads), gpu, *shared)
    return Model(ModelInfo(hub.resolve(name), options), progress)


def load_tokenizer(name: str | Path) -> Tokenizer:
    """The tokenizer of a checkpoint alone: a GGUF file, a directory or its tokenizer.json; weights are not needed.

    Raises TokenizerError, ModelFormatError.
    """
    from lacewing.formats import open_texts
    from lacewing.text.tokenizer import Tokenizer

    return Tokenizer.from_checkpoint(open_texts(hub.resolve(name)))


class _DeviceFull(OutOfMemoryError):
    """A backend had no memory left for what was planned."""


class Model:
    """A model ready to run: one conversation at a time, not for several threads at once. Made by `load`.

    `cancelled` is asked while it loads, which then raises Cancelled; `spare` as for `ModelInfo.plan`.
    """

    def __init__(
        self, info: ModelInfo, progress: Progress | None = None, *, cancelled: Callable[[], bool] | None = None, spare: int = 0
    ):
        from lacewing.backends import choose_backend, init_backend
        from lacewing.weights import WeightStore

        options, self.spec = info.options, info.spec
        self._info = info
        self._last: TextStream | None = None
        self.weights: WeightStore = WeightStore(self.spec.tensors)
        wanted = demand(info, self.weights.nbytes)
        backend, remarks = choose_backend(options.backend, options.threads, adapter=options.adapter, demand=wanted)
        try:
            self._fit(backend, progress, cancelled, spare)
        except (BackendError, OutOfMemoryError) as error:
            if not backend.copies_weights or options.backend != "auto" or options.names_gpu:
                raise
            remarks.append(f"{backend.name}: {error}")
            self.weights = WeightStore(self.spec.tensors)
            self._fit(init_backend("cpu", options.threads), progress, cancelled, spare)
        self.plan: Plan = dataclasses.replace(self.plan, reasons=(*self.plan.reasons, *remarks))
        self._start()

    def _start(self) -> None:
        from lacewing.engine.engine import Engine

        # raises ModelFormatError where a file was changed that weights are still read from
        self._check: Callable[[], None] = self.weights.check_files if self._placement.on_host else (lambda: None)
        self.engine = Engine(self.step, self.spec.vocab_size, self.spec.context, check=self._check)

    def _fit(self, backend: Backend, progress: Progress | None, cancelled: Callable[[], bool] | None, spare: int) -> None:
        """Bring the model to the backend; if its memory turns out to be too small, less of it, a few times."""
        from lacewing.weights import WeightStore

        placement, tries = place(self._info, backend, self.weights.nbytes), 3
        while True:
            self.plan = placement.plan(spare)
            try:
                return self._bring(placement, progress, cancelled)
            except _DeviceFull:
                budget, tries = less(placement), tries - 1
                if budget is None or not tries:
                    raise
            self.weights = WeightStore(self.spec.tensors)
            placement = place(self._info, backend, self.weights.nbytes, budget)

    def _bring(self, placement: Placement, progress: Progress | None, cancelled: Callable[[], bool] | None) -> None:
        """Bring the weights to where they are to be, and compile for them."""
        from lacewing.backends.batch import StepLimits

        backend = self.backend = placement.backend
        self._placement = placement
        limits = StepLimits(context=self.spec.context, chunk=CHUNK)
        given_up = threading.Event()
        report = interruptible(progress, cancelled)
        stopped = (lambda: given_up.is_set() or cancelled()) if cancelled else given_up.is_set
        placement.prepare(self.weights)
        reading = Background(lambda: self.weights.set_residency(self.plan.residency, progress, stopped))
        try:
            reading.result(cancelled)
            report("reading weights", self.weights.nbytes, self.weights.nbytes)
            self.step: Step = _compile(backend, placement.program, self.weights, limits, report)
        except BaseException:
            given_up.set()
            if reading.wait(_PATIENCE):
                self.weights.close()
            else:  # a disk that hangs
                reading.afterwards(self.weights.close)
            raise
        if backend.copies_weights:
            self.weights.release()

    def __getattr__(self, name: str) -> Any:
        if name in ("engine", "step"):  # `close` took them away
            raise OptionError("the model has been closed")
        raise AttributeError(f"a model has no {name!r}")

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises TokenizerError when the checkpoint has none that can be read."""
        return self._info.tokenizer.result()

    @property
    def template(self) -> ChatTemplate:
        """Raises TemplateError when the checkpoint has none."""
        return self._info.template.result()

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know: of the checkpoint, such as parts of it that are left out, and of what devices made of it."""
        shared = () if self._placement.offload is None else self._placement.offload.reasons
        return (*self.spec.notices, *shared, *getattr(self.step, "notices", ()))

    @property
    def has_template(self) -> bool:
        """Whether `chat` works."""
        try:
            return bool(self.template)
        except TemplateError:
            return False

    @property
    def stats(self) -> dict[str, float]:
        """Counters of the last generation."""
        return self._last.stats.as_dict() if self._last else {}

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Float32 (T, V): row t are the logits of the token after ids[: t + 1]. Needs no tokenizer."""
        return self.engine.logits(ids)

    def stream(
        self, prompt: str, *, cancelled: Callable[[], bool] | None = None, progress: Progress | None = None, **sampling: Any
    ) -> TextStream:
        """The continuation of a raw text, piece by piece; the options are the fields of `Sampling`."""
        options, tokenizer = make_sampling(sampling), self.tokenizer
        self._check()
        ids = tokenizer.encode_prompt(prompt)
        self._last = TextStream(self.engine, tokenizer, ids, options, cancelled, progress, continuation=True)
        return self._last

    def generate(self, prompt: str, **sampling: Any) -> str:
        """The continuation of a raw text; the options are the fields of `Sampling`."""
        return "".join(self.stream(prompt, **sampling))

    def chat(
        self,
        messages: Sequence[Message],
        *,
        cancelled: Callable[[], bool] | None = None,
        progress: Progress | None = None,
        **sampling: Any,
    ) -> TextStream:
        """The answer to a conversation, piece by piece; the options are the fields of `Sampling`."""
        options = make_sampling(sampling)
        self._check()
        self._last = Assistant(self.engine, self.tokenizer, self.template).reply(messages, options, cancelled, progress)
        return self._last

    def set_residency(
        self,
        residency: str,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        *,
        force: bool = False,
        reason: str = "forced",
    ) -> None:
        """Bring the weights to "lazy" or "eager"; outputs stay bitwise the same.

        `force`: whatever the memory plan says; `reason` is then what it tells.

        Raises OutOfMemoryError or Cancelled; the state before is then whole.
        """
        if residency == self.weights.residency and self.on_device:
            return
        options, before = dataclasses.replace(self._info.options, residency=residency), self.weights.residency
        plan = (
            self.plan.instead(residency, f"{residency}: {reason}") if force else self._placement.replan(options, self.memory_bytes)
        )
        try:
            self.weights.set_residency(residency, progress, cancelled)
            self.step.rebind()
        except BaseException:
            if self.weights.residency != before:
                self.weights.set_residency(before)
                self.step.rebind()
            raise
        self.plan = plan

    @property
    def memory_bytes(self) -> int:
        """Memory of this machine that is its own: eager weights, keys and values, buffers."""
        if self.backend.copies_weights:
            return self.weights.anonymous_bytes + int(getattr(self.step, "host_bytes", 0))
        return self.weights.anonymous_bytes + self.step.kv_bytes + self.step.buffer_bytes

    @property
    def info(self) -> ModelInfo:
        """What its headers tell."""
        return self._info

    @property
    def path(self) -> Path:
        """The file or folder that it was opened from."""
        return self._info.checkpoint.path

    @property
    def options(self) -> LoadOptions:
        """As it was loaded."""
        return self._info.options

    def read_state(self) -> tuple[list[int], bytes] | None:
        """The ids that the slot holds, and their keys and values; None where this backend cannot tell."""


        ids = list(self.engine.cached)
        return (ids, self.step.read_slot(self.engine.slot, len(ids)).tobytes()) if isinstance(self.step, KeepsSlots) else None

    def write_state(self, ids: Sequence[int], data: bytes) -> None:
        """Put back what `read_state` gave, on the same model and the same kind of device. Raises OptionError."""
        import numpy as np



        if not isinstance(self.step, KeepsSlots) or len(ids) > self.engine.context:
            raise OptionError("keys and values of another backend, or of a longer context, cannot be used")
        self.engine.forget()
        self.step.write_slot(self.engine.slot, len(ids), np.frombuffer(data, np.uint8))
        self.engine.cached = list(ids)

    @property
    def on_device(self) -> bool:
        """False when it is closed."""
        return "step" in self.__dict__

    def return_to_device(self, progress: Progress | None = None) -> None:
        """After `close`; the next prompt is read from its beginning. Raises OutOfMemoryError, BackendError."""
        from lacewing.weights import WeightStore

        self.weights = WeightStore(self.spec.tensors)
        self._bring(self._placement, progress, None)
        self._start()

    def close(self) -> None:
        """Free the memory. The model cannot be used afterwards, unless `return_to_device` brings it back."""
        from lacewing.weights.memory import give_back

        engine = self.__dict__.pop("engine", None)
        if engine is not None:
            engine.forget()  # also the last generation, which refers to it
        del engine
        step = self.__dict__.pop("step", None)
        if step is not None:
            step.close()
        self.weights.close()
        del step
        give_back()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _compile(backend: Backend, *arguments: Any) -> Step:
    try:
        return backend.compile(*arguments)
    except OutOfMemoryError as error:
        raise _DeviceFull(*error.args) from error
