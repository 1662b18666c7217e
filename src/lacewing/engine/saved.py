"""The state of a sequence as bytes that mean the same on every backend, for files of sessions.

Version 2: the pages of each group, group after group, from the first that the next position can see on, as `Step.read` gives them;
units likewise. Version 1, which is still read: of each layer keys, then values, each (heads, positions, width) without pages.
"""

from __future__ import annotations

from collections.abc import Sequence as Ids

import numpy as np

from lacewing.backends.step import Step
from lacewing.engine.engine import Engine
from lacewing.engine.pages import pages_of
from lacewing.engine.sequence import Sequence
from lacewing.errors import OptionError
from lacewing.program.states import PAGE, Group, PagedState

VERSIONS = VERSION_1, VERSION_2 = (b"LWKV0001", b"LWKV0002")


def state_size(groups: Ids[Group], count: int, version: bytes) -> int:
    """Bytes of the state after `count` ids, with the version in front; -1 where that version cannot have it."""
    if version == VERSION_1:
        states = [group.state for group in groups]
        if not all(isinstance(state, PagedState) for state in states):
            return -1
        return len(version) + count * sum(group.nbytes // PAGE for group in groups)
    return len(version) + sum(_count(group, count) * group.nbytes for group in groups)


def kv_type(groups: Ids[Group]) -> str:
    """Of the paged states; of a model without any that of its units. What was saved before keys were spread is of another type."""
    states = (group.state for group in groups if isinstance(group.state, PagedState))
    kinds = (f"{state.parts[0].dtype}{'' if state.parts[0].dtype != 'q8_0' or state.latent else ' spread'}" for state in states)
    return next(kinds, "f32")


def read_state(engine: Engine) -> tuple[list[int], bytes]:
    """The ids that the sequence that ran last still holds, and their state."""
    with engine.exclusive():
        scheduler, step = engine.scheduler, engine.step
        sequence = scheduler.tree.acquire(engine.cached, len(engine.cached))
        ids, found = list(sequence.ids), [VERSION_2]
        try:
            for group, each in enumerate(step.groups if ids else ()):
                table = sequence.tables[group]
                data = step.read(group, table[len(table) - _count(each, len(ids)) :])
                _clear_tail(each, len(ids), data)
                found.append(data.tobytes())
        finally:
            scheduler.release(sequence)
        scheduler.last = ids
        return ids, b"".join(found)


def write_state(engine: Engine, ids: Ids[int], data: bytes) -> None:
    """Put back what `read_state` gave, or version 1 had; the ids are then `cached`. Raises OptionError."""
    version, groups = data[: len(VERSION_2)], engine.step.groups
    if version not in VERSIONS or not ids or len(ids) > engine.context or len(data) != state_size(groups, len(ids), version):
        raise OptionError("a saved state of another model, KV type or longer context cannot be used; run the prompt again")
    if not all(type(token) is int and 0 <= token < engine.vocab_size for token in ids):
        raise OptionError(
            f"a saved state has token ids that are outside this model's vocabulary of {engine.vocab_size}; run the prompt again"
        )
    body = np.frombuffer(data, np.uint8)[len(version) :]
    parts = _version_1(engine.step, len(ids), body) if version == VERSION_1 else _version_2(engine.step, len(ids), body)
    with engine.exclusive():
        engine.forget()
        scheduler = engine.scheduler
        sequence = Sequence(scheduler.pages)
        for group in scheduler.pages.limited:
            sequence.first[group] = scheduler.pages.first_seen(group, len(ids)) // PAGE
        try:
            scheduler.reserve(sequence, len(ids))
            sequence.advance(list(ids))
            for group, pages in enumerate(parts):
                table = sequence.tables[group]
                engine.step.write(group, table[len(table) - len(pages) :], pages)
        except BaseException:
            sequence.drop()
            raise
        scheduler.release(sequence)
        scheduler.last = sequence.ids


def _count(group: Group, positions: int) -> int:
    """Pages from the first that the next position can see on, or units."""
    if not isinstance(group.state, PagedState):
        return 1
    return pages_of(positions) - group.state.first_seen(positions) // PAGE


def _clear_tail(group: Group, positions: int, data: np.ndarray) -> None:
    """What stands behind the last position is of no use, and may be of somebody else."""
    state, used = group.state, positions % PAGE
    if not isinstance(state, PagedState) or not used or not len(data):
        return
    at = 0
    for _ in group.members:
        for part in state.parts:
            data[-1, at : at + part.page_bytes].reshape(part.heads, PAGE, part.row_bytes)[:, used:] = 0
            at += part.page_bytes


def _version_2(step: Step, positions: int, data: np.ndarray) -> list[np.ndarray]:
    """Of each group (pages, bytes of a page)."""
    parts, at = [], 0
    for group in step.groups:
        end = at + _count(group, positions) * group.nbytes
        parts.append(data[at:end].reshape(-1, group.nbytes))
        at = end
    return parts


def _version_1(step: Step, positions: int, data: np.ndarray) -> list[np.ndarray]:
    """The same: states were stored in the order of the layers, all positions of each."""
    pages, at = pages_of(positions), 0
    members: dict[int, list[np.ndarray]] = {}
    for index, state in enumerate(step.program.states):
        found = []
        for part in state.parts if isinstance(state, PagedState) else ():
            size = part.heads * positions * part.row_bytes
            rows = np.zeros((part.heads, pages * PAGE, part.row_bytes), np.uint8)
            rows[:, :positions] = data[at : at + size].reshape(part.heads, positions, part.row_bytes)
            found.append(rows.reshape(part.heads, pages, PAGE * part.row_bytes).transpose(1, 0, 2).reshape(pages, -1))
            at += size
        members[index] = found
    return [
        np.concatenate([part for index in group.members for part in members[index]], axis=1)[pages - _count(group, positions) :]
        for group in step.groups
    ]
