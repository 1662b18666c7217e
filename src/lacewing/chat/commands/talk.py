"""Commands about the conversation itself."""

from __future__ import annotations

import re

from lacewing.chat.commands.table import GROUPS, Argument, Reply, command, load_commands
from lacewing.chat.services import autosave
from lacewing.chat.session.conversation import Conversation
from lacewing.chat.session.settings import Settings
from lacewing.console.output import Table
from lacewing.errors import OptionError
from lacewing.options import counted
from lacewing.text.reasoning import EFFORTS

LEVELS = EFFORTS[1:]  # none is "off"
COMMON = ("help", "quit", "clear", "retry", "edit", "undo", "continue", "system", "model", "save", "load", "copy")
MORE = "/help COMMAND explains one; Tab completes; //text sends a message that begins with a slash"


@command("help", Argument("command", "command"), aliases=("?",))
def help_(chat: Conversation, command: str | None = None) -> Reply:
    """List the commands, or explain one of them."""
    table = load_commands(type(chat))
    if command is not None:
        found = table.find(command.removeprefix("/").lower())
        aliases = f"\nalso: {', '.join('/' + alias for alias in found.aliases)}" if found.aliases else ""
        return Reply(f"{found.usage}\n{found.help}{aliases}")
    rest = {
        title: [row for row in table.rows.values() if row.group == group and row.name not in COMMON]
        for group, title in GROUPS.items()
    }
    groups = {"Most used": [table.find(name) for name in COMMON]} | rest
    tables = [
        Table(("", ""), tuple((row.short, re.split(r"[;:](?= )|\.$", row.summary)[0]) for row in rows), title)
        for title, rows in groups.items()
        if rows
    ]
    return Reply(MORE, tables)


@command("quit", aliases=("exit", "q", "bye"))
def quit_(chat: Conversation) -> Reply:
    """Leave the chat."""
    return Reply(then="quit")


@command("clear", aliases=("new", "reset"))
def clear(chat: Conversation) -> Reply:
    """Start a new conversation; model, template and settings are kept. `/undo` goes back to the old one.

    A conversation that is not saved can be saved first. Saved files are kept as well: the next `/save` needs a name.
    """
    if not chat.messages:
        chat.attachments.clear()
        return Reply("the conversation is already empty")
    lines = autosave.offer(chat)
    count = len(chat.messages)
    chat.replace([])
    return Reply("\n".join([*lines, f"a new conversation; {counted(count, 'message')} removed, /undo brings the old one back"]))


@command("retry", aliases=("regen",))
def retry(chat: Conversation) -> Reply:
    """Answer your last message once more; if it fails, the previous answer is kept."""
    _need(chat)
    return Reply(stream=chat.retry())


@command("undo", aliases=("pop",))
def undo(chat: Conversation) -> Reply:
    """Remove your last message and the answer to it; just after `/load` or `/clear`, go back to the previous conversation."""
    if chat.go_back():
        return Reply(f"back to the previous conversation, {counted(len(chat.messages), 'message')}")
    gone = chat.undo()
    return Reply(f"removed: {_short(gone[0]['content'])}")


@command("edit")
def edit(chat: Conversation) -> Reply:
    """Change your last message in $EDITOR and have it answered again."""
    _need(chat)
    at = max(place for place, each in enumerate(chat.messages) if each["role"] == "user")
    text = chat.ui.edit(chat.messages[at]["content"])
    if text is None or not text.strip() or text == chat.messages[at]["content"]:
        return Reply("nothing was changed")
    return Reply(stream=chat.say_instead(text.rstrip("\n")))


@command("continue", aliases=("more",))
def continue_(chat: Conversation) -> Reply:
    """Let the model continue its last answer."""
    if not chat.messages or chat.messages[-1]["role"] != "assistant":
        raise OptionError("there is no answer to continue")
    return Reply(stream=chat.continue_())


@command("system", Argument("text", rest=True))
def system(chat: Conversation, text: str | None = None) -> Reply:
    """Show or set the system message; `/system off` removes it.

    It stands in front of the whole conversation, so the next message reprocesses all of it.
    """
    if text is None:
        return Reply(chat.settings.system or "there is no system message")
    chat.change(system=None if text.strip().lower() == "off" else text)
    return Reply("the system message is set" if chat.settings.system else "the system message was removed")


@command("thinking", Argument("state", "on/off", ("show", "hide", "auto", *LEVELS)), aliases=("think",))
def thinking(chat: Conversation, state: bool | str | None = None) -> Reply:
    """Turn thinking before the answer on or off, say how hard to think, and show or hide the thoughts.

    A model whose template knows no such switch goes on as it was made, but with `off` its thoughts are ended at once.
    """
    if state in ("show", "hide"):
        chat.change(show_reasoning=state == "show")
    elif isinstance(state, str) and state != "auto":
        chat.change(thinking=True, effort=state)
    elif state is not None:
        chat.change(thinking=None if state == "auto" else bool(state), effort=Settings.effort)
    settings = chat.settings
    now = {True: "on", False: "off", None: "as the template decides"}[settings.thinking]
    effort = f", {settings.effort} effort" if settings.thinking else ""
    return Reply(f"thinking: {now}{effort}; thoughts are {'shown' if settings.show_reasoning else 'hidden'}")


@command("thinking-budget", Argument("tokens", "number", ("off",)))
def thinking_budget(chat: Conversation, tokens: int | str | None = None) -> Reply:
    """Show or set after how many tokens thoughts are ended and the answer begins; `off` is no limit."""
    if tokens is not None:
        chat.change(thinking_budget=None if tokens == "off" else tokens)
    budget = chat.settings.thinking_budget
    return Reply("thoughts have no limit" if budget is None else f"thoughts end after {counted(budget, 'token')}")


@command("plain", Argument("state", "on/off"))
def plain(chat: Conversation, state: bool | None = None) -> Reply:
    """Show answers as the model writes them (on) or as Markdown (off); without an argument, switch between the two."""
    chat.change(plain=not chat.settings.plain if state is None else state)
    return Reply("answers are shown as they are written" if chat.settings.plain else "answers are shown as Markdown")


def _need(chat: Conversation) -> None:
    if not any(each["role"] == "user" for each in chat.messages):
        raise OptionError("the conversation is empty")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:59] + "\N{HORIZONTAL ELLIPSIS}"
