"""What ops work on, and how an op says so: by the types of its fields, which name the role of each operand.

A field that holds a view, a weight's name or a state's index without a role is a mistake that the import of `program.ops` finds.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Flag, auto
from typing import Annotated, Any, TypeVar

T = TypeVar("T", bound="Op")
_ROLES: dict[type[Op], dict[str, Role]] = {}


class Role(Flag):
    """What an op does with an operand. READ and WRITE together: it is changed in place."""

    READ = auto()
    WRITE = auto()
    WEIGHT = auto()
    STATE = auto()


@dataclass(frozen=True)
class Buffer:
    """An activation, float32 (T, width)."""

    name: str
    width: int

    def view(self, start: int = 0, width: int | None = None) -> View:
        return View(self, start, self.width - start if width is None else width)


@dataclass(frozen=True)
class View:
    """Columns `start` to `start + width` of a buffer."""

    buffer: Buffer
    start: int
    width: int

    def overlaps(self, other: View) -> bool:
        """Whether both have a column in common."""
        same = self.buffer.name == other.buffer.name
        return same and self.start < other.start + other.width and other.start < self.start + self.width


In = Annotated[View, Role.READ]
Out = Annotated[View, Role.WRITE]
InOut = Annotated[View, Role.READ | Role.WRITE]
Weight = Annotated[str, Role.WEIGHT]
ReadsState = Annotated[int, Role.STATE | Role.READ]  # an index into `Program.states`
WritesState = Annotated[int, Role.STATE | Role.WRITE]
ChangesState = Annotated[int, Role.STATE | Role.READ | Role.WRITE]


@dataclass(frozen=True)
class Op:
    """Base of all ops. What it reads, writes, weighs and remembers follows from the types of its fields."""

    @property
    def reads(self) -> list[View]:
        """The views whose values it needs."""
        return list(self._operands(Role.READ, Role.STATE))

    @property
    def writes(self) -> list[View]:
        """The views that it gives values to, those changed in place among them."""
        return list(self._operands(Role.WRITE, Role.STATE))

    @property
    def views(self) -> list[View]:
        """All views, those changed in place once."""
        return list(dict.fromkeys([*self.reads, *self.writes]))

    @property
    def weight_names(self) -> tuple[str, ...]:
        return tuple(self._operands(Role.WEIGHT))

    @property
    def weights_read_across(self) -> tuple[str, ...]:
        """Of its weights those stored (inputs, outputs), the other way round than usual."""
        return ()

    @property
    def state_ids(self) -> tuple[int, ...]:
        """The states that it reads or writes, by their index in `Program.states`."""
        return tuple(self._operands(Role.STATE))

    def with_weights(self: T, rename: Callable[[str], str]) -> T:
        """The same op over weights of other names."""
        return self._replaced(Role.WEIGHT, rename)

    def with_states(self: T, ids: Mapping[int, int]) -> T:
        """The same op with each state's index replaced."""
        return self._replaced(Role.STATE, ids.__getitem__)

    @property
    def kind(self) -> str:
        return type(self).__name__

    def _operands(self, role: Role, without: Role | None = None) -> Iterator[Any]:
        """The operands of a role, tuples flattened, None left out."""
        for name, its in roles(type(self)).items():
            if role in its and not (without and its & without):
                value = getattr(self, name)
                yield from (each for each in (value if isinstance(value, tuple) else (value,)) if each is not None)

    def _replaced(self: T, role: Role, change: Callable[[Any], Any]) -> T:
        def changed(value: Any) -> Any:
            return tuple(map(changed, value)) if isinstance(value, tuple) else None if value is None else change(value)

        fields = {name: changed(getattr(self, name)) for name, its in roles(type(self)).items() if role in its}
        return dataclasses.replace(self, **fields)

    def __str__(self) -> str:
        shown = ", ".join(f"{f.name}={show(getattr(self, f.name))}" for f in dataclasses.fields(self))
        return f"{self.kind}({shown})"


def show(value: object) -> str:
    """A field for people: views as `buffer[start:end]`, long tuples shortened."""
    if isinstance(value, View):
        return f"{value.buffer.name}[{value.start}:{value.start + value.width}]"
    if isinstance(value, tuple):
        return "(" + ", ".join(show(v) for v in value[:4]) + (", ..." if len(value) > 4 else "") + ")"
    return str(value)


def roles(kind: type[Op]) -> dict[str, Role]:
    """The role of each operand field of a kind of op. Raises TypeError for a view without one."""
    if kind not in _ROLES:
        _ROLES[kind] = _roles(kind)
    return _ROLES[kind]


def _roles(kind: type[Op]) -> dict[str, Role]:
    hints = typing.get_type_hints(kind, include_extras=True)
    found = {}
    for field in dataclasses.fields(kind):
        plain, marks = _parts(hints[field.name])
        if len(marks) > 1 or (View in plain and not marks):
            raise TypeError(f"{kind.__name__}.{field.name} must say by its type what the op does with it")
        if marks:
            found[field.name] = marks.pop()
    return found


def _parts(hint: Any) -> tuple[set[Any], set[Role]]:
    """The types and roles inside a type such as `tuple[In | None, ...]`."""
    if typing.get_origin(hint) is typing.Annotated:
        return {typing.get_args(hint)[0]}, {mark for mark in hint.__metadata__ if isinstance(mark, Role)}
    inside = [_parts(each) for each in typing.get_args(hint) if each is not ...]
    if not inside:
        return {hint}, set()
    return set().union(*(plain for plain, _ in inside)), set().union(*(marks for _, marks in inside))


def check_kinds() -> None:
    """Look at every kind of op once, so that a field that somebody forgot to mark fails at import."""
    for kind in Op.__subclasses__():
        roles(kind)
