"""Commands about edits of files that the model proposes."""

from __future__ import annotations

from pathlib import Path

from lacewing.chat.command import Argument, Reply, command
from lacewing.chat.edits import Edit, EditError, parse_edits
from lacewing.chat.patches import Change, apply_changes, plan_changes
from lacewing.chat.session import Session

_DONE = "edits_done"  # the answer whose edits have been made or dropped


@command("code", Argument("state", "on/off"))
def code(chat: Session, state: bool | None = None) -> Reply:
    """Have the model propose edits of files in the working directory; none is made without your yes.

    `/diff` shows what the last answer proposes, `/apply` asks for each file and makes the edits, `/discard` drops them.
    """
    if state is not None:
        chat.change(code=state)
    if not chat.settings.code:
        return Reply("edits are off; /code on tells the model how to propose them")
    return Reply(f"edits are on, for files in {Path.cwd()}; name files as @file, then /diff, /apply, /discard")


@command("diff")
def diff(chat: Session) -> Reply:
    """Show the edits that the last answer proposes."""
    edits, problems = pending(chat)
    changes = plan_changes(edits, Path.cwd())
    return Reply("\n".join([*map(_shown, changes), *problems]), kind="diff")


@command("apply")
def apply(chat: Session) -> Reply:
    """Make the edits that the last answer proposes: each file is shown and asked for, then all that you took are written."""
    edits, problems = pending(chat)
    changes = plan_changes(edits, Path.cwd())
    taken = [change for change in changes if chat.face.confirm(f"{_shown(change)}\nwrite {change.name}?")]
    apply_changes(taken)
    if taken:
        chat.extras[_DONE] = chat.last_answer()
    names = ", ".join(change.name for change in taken)
    return Reply("\n".join([f"written: {names}" if taken else "nothing was written", *problems]))


@command("discard")
def discard(chat: Session) -> Reply:
    """Drop the edits that the last answer proposes."""
    edits, _ = pending(chat)
    chat.extras[_DONE] = chat.last_answer()
    return Reply(f"{len(edits)} edits are dropped")


def pending(chat: Session) -> tuple[list[Edit], list[str]]:
    """The edits of the last answer, and what is wrong with others. Raises EditError when there are none."""
    answer = chat.last_answer()
    edits, problems = parse_edits(answer) if answer and answer != chat.extras.get(_DONE) else ([], [])
    if not edits:
        raise EditError("; ".join(problems) or "the last answer proposes no edits, or they are done")
    return edits, problems


def _shown(change: Change) -> str:
    return "\n".join(line.text for line in change.diff())
