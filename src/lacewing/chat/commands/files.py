"""Commands about files: sessions, exports, texts to read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from lacewing.chat.commands.table import Argument, Option, Reply, command
from lacewing.chat.services import atomic, autosave, files, mentions
from lacewing.chat.session.conversation import Conversation
from lacewing.chat.session.session import Session
from lacewing.chat.session.settings import Message
from lacewing.console.output import Table
from lacewing.errors import OptionError
from lacewing.options import counted
from lacewing.paths import user_path


@command("save", Argument("name", "session"), Option("force"))
def save(chat: Conversation, name: str | None = None, force: bool = False) -> Reply:
    """Save the conversation, the settings and the template under a name or to a .json file.

    Without a name, the last one is used again. A file that has another conversation, or that another chat has changed, is only
    replaced if you say so or give `--force`. It is replaced as a whole: a failure leaves the old one.
    """
    return Reply("\n".join(files.save(chat, _name(chat, name), force=force)))


@command("fullsave", Argument("name", "session"), Option("force"))
def fullsave(chat: Session, name: str | None = None, force: bool = False) -> Reply:
    """Save as `/save` does, together with the KV cache, so that nothing has to be reprocessed after `/load`."""
    return Reply("\n".join(files.save(chat, _name(chat, name), kv_cache=True, force=force)))


@command("load", Argument("name", "session", required=True))
def load(chat: Conversation, name: str) -> Reply:
    """Load a saved conversation with its settings and template, and show its last exchange; the current model continues it.

    If it was saved with the current model, a saved KV cache is used again; otherwise the conversation is reprocessed. A damaged
    or foreign file is refused, and the current conversation is kept; `/undo` goes back to it, and one that is not saved can be
    saved first.
    """
    files.check(name)
    return Reply("\n".join([*autosave.offer(chat), *files.load(chat, name)]))


@command(
    "sessions", Argument("action", "choice", ("rename", "delete")), Argument("name", "session"), Argument("new"), Option("force")
)
def sessions(
    chat: Conversation, action: str | None = None, name: str | None = None, new: str | None = None, force: bool = False
) -> Reply:
    """Show the saved sessions, the newest first; `/sessions rename OLD NEW` and `/sessions delete NAME` change them.

    Conversations that were left unsaved are called last-..., in a pipe pipe-..., and autosave-... if the chat was ended; the
    newest ten of each are kept, and one that gets another name stays. `--force` deletes without asking.
    """
    if action == "rename" and name and new:
        return Reply(files.rename(chat, name, new))
    if action == "delete" and name and not new:
        return Reply(files.delete(chat, name, force))
    if action:
        raise OptionError("write /sessions rename OLD NEW, or /sessions delete NAME")
    rows = tuple(files.listing())
    if not rows:
        return Reply(f"no session is saved in {files.folder()}")
    return Reply(data=Table(("name", "saved", "messages", "model", ""), rows))


@command("show", Argument("count", "number"))
def show(chat: Conversation, count: int | None = None) -> Reply:
    """Show the conversation, or its last COUNT messages."""
    if not chat.messages:
        raise OptionError("the conversation is empty")
    if count is not None and count < 1:
        raise OptionError(f"the number of messages to show is {count}; it must be at least 1")
    return Reply("\n\n".join(_paragraphs(chat.messages[-count if count else 0 :])), kind="markdown")


@command("export", Argument("path", "path"), Option("force"))
def export(chat: Conversation, path: str | None = None, force: bool = False) -> Reply:
    """Write the conversation as Markdown; without a path, to a file named after the time. `--force` replaces an existing file."""
    if not chat.messages:
        raise OptionError("the conversation is empty")
    target = user_path(path or f"conversation-{datetime.now():%Y%m%d-%H%M%S}.md")
    if target.exists() and not force:
        chat.ui.ask(f"{target} exists. Replace it?", f"{target} exists; /export --force replaces it")
    try:
        atomic.write(target, markdown(chat).encode("utf-8", "replace"))
    except OSError as error:
        raise OptionError(f"{target} could not be written: {error.strerror}") from None
    return Reply(f"wrote {counted(len(chat.messages), 'message')} to {target}")


def markdown(chat: Conversation) -> str:
    """The conversation as Markdown."""
    parts = [f"# Conversation with {chat.name}"]
    if chat.settings.system:
        parts.append(f"## System\n\n{chat.settings.system}")
    return "\n\n".join([*parts, *_paragraphs(chat.messages)]) + "\n"


def _paragraphs(messages: list[Message]) -> Iterator[str]:
    for message in messages:
        thoughts = message.get("reasoning")
        if thoughts:
            yield "## Thoughts\n\n" + "\n".join(f"> {line}".rstrip() for line in thoughts.splitlines())
        yield f"## {files.speaker(message)}\n\n{message['content'].strip()}"


@command("read", Argument("file", "path", required=True))
def read(chat: Conversation, file: str) -> Reply:
    """Put a text file, or lines of it (`/read notes.txt:10-50`), in front of your next message; `/read off` removes it again."""
    if file == "off":
        count = len(chat.attachments)
        chat.attachments.clear()
        return Reply(f"{counted(count, 'file')} removed from your next message")
    attached = mentions.attach(file, Path())
    chat.attachments.append(attached.text)
    return Reply("; ".join(attached.notes) + "; sent with your next message")


def _name(chat: Conversation, name: str | None) -> str:
    """The name, else that of the file which this conversation has; raises OptionError for a name that is not kept."""
    if name is None and chat.saved is not None and not files.AUTOMATIC.fullmatch(chat.saved.path.stem):
        return str(chat.saved.path)
    if name is None:
        raise OptionError("give the session a name: /save NAME")
    files.check_name(name)
    return name
