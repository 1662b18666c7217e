"""A model of the chat: on its device, parked beside it, or closed. A type each: nothing is asked of a model that is not there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lacewing.chat.session.formatter import ChatFormatter
from lacewing.errors import LacewingError

if TYPE_CHECKING:
    from lacewing.api import Model
    from lacewing.engine.routing import AnswerRouting
    from lacewing.placement.info import ModelInfo


class ModelClosedError(LacewingError):
    """The model of the chat was closed and could not be loaded again; the message says why, and what to do."""


@dataclass(eq=False)
class _ChatModel:
    """What the three have in common. `name`: what a person wrote for it."""

    formatter: ChatFormatter
    name: str

    @property
    def short_name(self) -> str:
        """Without folders."""
        return Path(self.name).name if Path(self.name).exists() else self.name


@dataclass(eq=False)
class _Open(_ChatModel):
    """A model that runs. `routing` observes its engine, if somebody watches the experts. `before_lazy`: the residency of its
    weights before they were made lazy."""

    model: Model
    routing: AnswerRouting | None = None
    before_lazy: str = field(default="eager", kw_only=True)

    @property
    def info(self) -> ModelInfo:
        return self.model.info

    @property
    def touched_bytes(self) -> int:
        """Memory that closing it gives back, apart from eager weights."""
        return self.model.step.host_bytes


@dataclass(eq=False)
class OnDevice(_Open):
    """The model that answers."""


@dataclass(eq=False)
class Parked(_Open):
    """A model that `/model -` goes back to: its weights are lazy, its KV cache is kept. `was`: their residency before."""

    was: str = "lazy"


@dataclass(eq=False)
class Closed(_ChatModel):
    """A model that left its device: `was` is the closed model, `problem` why nothing has taken its place."""

    was: Model
    problem: str

    @property
    def info(self) -> ModelInfo:
        return self.was.info

    @property
    def error(self) -> ModelClosedError:
        again = f'/model "{self.name}"' if " " in self.name else f"/model {self.name}"
        return ModelClosedError(f"{self.short_name} is closed: {self.problem}; {again} loads it again, /model PATH another one")


def reason(error: BaseException) -> str:
    """What an error says, or its type if it says nothing."""
    return str(error) or type(error).__name__
