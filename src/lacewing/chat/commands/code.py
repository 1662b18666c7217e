"""Commands about edits of files that the model proposes."""

from __future__ import annotations

from pathlib import Path

from lacewing.chat.commands.table import Argument, Reply, command
from lacewing.chat.services.edits import Edit, EditError, parse_edits
from lacewing.chat.services.patches import Change, apply_changes, plan_changes
from lacewing.chat.session.conversation import Conversation
from lacewing.chat.session.settings import Message
from lacewing.options import counted

_DONE = "edits_done"  # the message whose edits have been made or dropped
_NONE = "the last answer proposes no edits, or they were applied or discarded"


@command("code", Argument("state", "on/off"))
def code(chat: Conversation, state: bool | None = None) -> Reply:
    """Have the model propose edits of files in the working directory; none is made unless you confirm it.

    `/diff` shows what the last answer proposes, `/apply` asks about each file and makes the edits, `/discard` drops them.
    """
    if state is not None:
        chat.change(code=state)
    if not chat.settings.code:
        return Reply("edits are off; /code on tells the model how to propose them")
    return Reply(f"edits are on, for files in {Path.cwd()}; name files as @file, then /diff, /apply, /discard")


@command("diff")
def diff(chat: Conversation) -> Reply:
    """Show the edits that the last answer proposes."""
    edits, problems = pending(chat)
    changes = plan_changes(edits, Path.cwd())
    return Reply("\n".join([*map(_shown, changes), *problems]), kind="diff")


@command("apply")
def apply(chat: Conversation) -> Reply:
    """Make the edits that the last answer proposes: each file is shown for you to confirm, then all confirmed ones are written."""
    edits, problems = pending(chat)
    changes = plan_changes(edits, Path.cwd())
    taken = [change for change in changes if chat.ui.confirm(f"{_shown(change)}\nwrite {change.name}?")]
    apply_changes(taken)
    if taken:
        chat.extras[_DONE] = _answer(chat)
    names = ", ".join(change.name for change in taken)
    return Reply("\n".join([f"written: {names}" if taken else "nothing was written", *problems]))


@command("discard")
def discard(chat: Conversation) -> Reply:
    """Drop the edits that the last answer proposes."""
    edits, problems = proposed(chat)
    if not edits and not problems:
        raise EditError(_NONE)
    chat.extras[_DONE] = _answer(chat)
    unread = f", and {counted(len(problems), 'block')} that could not be read" if problems else ""
    return Reply(f"{counted(len(edits), 'edit')} dropped{unread}")


def proposed(chat: Conversation) -> tuple[list[Edit], list[str]]:
    """The edits of the last answer, and what is wrong with others; none once they were applied or discarded."""
    message = _answer(chat)
    if message is None or message is chat.extras.get(_DONE):
        return [], []
    return parse_edits(message["content"])


def pending(chat: Conversation) -> tuple[list[Edit], list[str]]:
    """As `proposed`. Raises EditError when there are none that can be made."""
    edits, problems = proposed(chat)
    if not edits:
        raise EditError("; ".join(problems) or _NONE)
    return edits, problems


def _answer(chat: Conversation) -> Message | None:
    return next((message for message in reversed(chat.messages) if message["role"] == "assistant"), None)


def _shown(change: Change) -> str:
    return "\n".join(line.text for line in change.diff())
