"""A checkpoint on its devices: loading, where its weights live, its state, closing."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lacewing.errors import BackendError, OptionError, OutOfMemoryError
from lacewing.options import LoadOptions, Progress
from lacewing.placement.background import Background, interruptible
from lacewing.placement.info import ModelInfo
from lacewing.placement.place import Placement, place
from lacewing.placement.requirements import limits

if TYPE_CHECKING:
    from lacewing.backends.base import Backend
    from lacewing.backends.step import Step
    from lacewing.placement.plan import MemoryPlan
    from lacewing.weights import WeightStore

_PATIENCE = 0.5  # seconds that somebody who cancels waits for readers to let go


class _DeviceFull(OutOfMemoryError):
    """A backend had no memory left for what was planned."""


class DeviceModel:
    """A checkpoint with its weights where they run, and an engine. Says nothing: `Model` does.

    `cancelled` is asked while it loads, which then raises Cancelled; `spare` as for `placement.place`.
    """

    def __init__(
        self, info: ModelInfo, progress: Progress | None = None, *, cancelled: Callable[[], bool] | None = None, spare: int = 0
    ):
        self._info, self.spec = info, info.spec
        self._fit(place(info, spare=spare), progress, cancelled)
        self._start()

    def _start(self) -> None:
        from lacewing.engine.engine import Engine

        # both raise ModelFormatError if a file was changed that weights are still read from
        checks = (self.weights.check_files, self.weights.glance) if self._placement.reads_files else ()
        self.engine = Engine(self.step, self.spec.vocab_size, self.spec.context, *checks)
        self.engine.scheduler.pack = self.weights.pack_path
        self._warm_start()

    def _warm_start(self) -> None:
        if (experts := self.weights.experts) is not None:
            experts.begin_warm_start()

    def _check(self) -> None:
        """Before each request."""
        if self._placement.reads_files:
            self.weights.check_files()

    def _fit(self, placement: Placement, progress: Progress | None, cancelled: Callable[[], bool] | None) -> None:
        """Bring the model to its devices; if a GPU has less memory than it said, less there, a few times; else to the CPU."""
        tries = 3
        while True:
            try:
                return self._bring(placement, progress, cancelled)
            except (BackendError, OutOfMemoryError) as error:
                tries -= 1
                smaller = placement.smaller() if isinstance(error, _DeviceFull) and tries else None
                other = smaller or placement.on_cpu(error)
                if other is None:
                    raise
            placement = other

    def _bring(self, placement: Placement, progress: Progress | None, cancelled: Callable[[], bool] | None) -> None:
        """Bring the weights to where they are to be, and compile for them. Raises ModelFormatError if a file has changed."""
        from lacewing.weights import WeightStore

        self._placement, self.backend = placement, placement.backend
        self.weights: WeightStore = WeightStore(self.spec.tensors, self._info.checkpoint.identities)
        self.weights.check_files()
        given_up = threading.Event()
        report = interruptible(progress, cancelled)
        stopped = (lambda: given_up.is_set() or cancelled()) if cancelled else given_up.is_set
        placement.prepare(self.weights)
        reading = Background(lambda: self.weights.set_residency(self.plan.residency, progress, stopped))
        try:
            reading.result(cancelled)
            report("reading weights", self.weights.nbytes, self.weights.nbytes)
            self.step: Step = _compile(
                placement.backend, placement.program, self.weights, limits(self._info, placement.chunk), report
            )
        except BaseException:
            given_up.set()
            if reading.wait(_PATIENCE):
                self.weights.close()
            else:  # a disk that hangs
                reading.afterwards(self.weights.close)
            raise
        if placement.backend.copies_weights:
            self.weights.release()

    def __repr__(self) -> str:
        where = f"{self._placement.summary} ({self.backend.name})" if self.on_device else "closed"
        return f"<Model {self.spec.name!r}, {self.spec.architecture}, {where}, context {self.spec.context}>"

    def __getattr__(self, name: str) -> Any:
        if name in ("engine", "step"):  # `close` took them away
            raise OptionError("the model has been closed")
        raise AttributeError(f"a model has no {name!r}")

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know: of the checkpoint, such as parts of it that are left out, and of what devices made of it."""
        shared = () if self._placement.offload is None else self._placement.offload.reasons
        return (*self._info.notices, *shared, *self.step.notices, *self.weights.notices)

    def set_residency(
        self,
        residency: str,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        *,
        force: bool = False,
        reason: str = "forced",
    ) -> None:
        """Bring the weights in RAM to "lazy", "eager" or "streamed"; outputs stay bitwise the same, as long as the same experts are
        on the GPU if one holds some.

        `force`: lazy or eager whatever the memory plan says; `reason` is then what it tells.

        Raises OptionError if all weights are on a GPU: then nothing would be gained by reading them; or if none can be streamed.
        Raises OutOfMemoryError or Cancelled; the state before is then whole, or the weights are lazy where the memory does not
        hold the old ones and the new ones.
        """
        if residency == self.weights.residency and self.on_device:
            return
        if not self._placement.on_host:
            raise OptionError(f"the weights are on {self.backend.facts().name}; {residency} is about weights in RAM")
        options = dataclasses.replace(self._info.options, residency=residency)
        if force and residency != "streamed":
            plan = self.plan.instead(residency, f"{residency}: {reason}")
        else:
            plan = self._placement.replan(options, self.memory_bytes)
        if "lazy" not in (residency, self.weights.residency) and plan.needed_bytes + self.memory_bytes > plan.budget_bytes:
            self.set_residency("lazy", force=True, reason="memory does not hold the old weights and the new ones")
        self._placement.slot(self.weights, plan)
        change = self.weights.prepare(residency, progress, cancelled)  # while others use them
        with self.engine.exclusive():
            try:
                change.make()
                self.step.rebind()
            except BaseException:
                change.undo()
                self.step.rebind()
                raise
            change.keep()
            self._placement = dataclasses.replace(self._placement, plan=plan)
        self._warm_start()

    @property
    def plan(self) -> MemoryPlan:
        """What is where in memory, and why."""
        return self._placement.plan

    @property
    def memory_bytes(self) -> int:
        """RAM that it has for itself: eager weights, KV cache, buffers."""
        return self.weights.anonymous_bytes + self.step.host_bytes

    @property
    def device_bytes(self) -> int:
        """Planned bytes in the memory of a GPU; 0 if it uses none."""
        return self._placement.device_bytes

    @property
    def weights_on_host(self) -> bool:
        """Whether weights are used that are in RAM or mapped; False: all are copies on a GPU."""
        return self._placement.on_host

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

    def read_state(self) -> tuple[list[int], bytes]:
        """The ids that the sequence that ran last still holds, and their state; the bytes mean the same on every backend."""
        from lacewing.engine.saved import read_state

        return read_state(self.engine)

    def write_state(self, ids: Sequence[int], data: bytes) -> None:
        """Put back what `read_state` gave, on the same model with the same KV type, or what older versions wrote into their
        files. Raises OptionError."""
        from lacewing.engine.saved import write_state

        write_state(self.engine, ids, data)

    @property
    def on_device(self) -> bool:
        """False when it is closed."""
        return "step" in self.__dict__

    def return_to_device(self, progress: Progress | None = None) -> None:
        """After `close`; the next prompt is read from its beginning.

        Raises OutOfMemoryError, BackendError, and ModelFormatError if a file is no longer what was opened.
        """
        self._bring(self._placement, progress, None)
        self._start()

    def close(self) -> None:
        """Free the memory. The model cannot be used afterwards, unless `return_to_device` brings it back."""
        from lacewing.weights.memory import give_back

        engine = self.__dict__.pop("engine", None)
        if engine is not None:
            engine.close()
        del engine
        step = self.__dict__.pop("step", None)
        if step is not None:
            step.close()
        self.weights.close()
        del step
        give_back()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _compile(backend: Backend, *arguments: Any) -> Step:
    try:
        return backend.compile(*arguments)
    except OutOfMemoryError as error:
        raise _DeviceFull(*error.args) from error
