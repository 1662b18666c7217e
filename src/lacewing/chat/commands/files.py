"""Commands about files: sessions, exports, texts to read."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from lacewing.chat.commands.table import Argument, Option, Reply, command
from lacewing.chat.services import atomic, files, mentions
from lacewing.chat.session.session import Session
from lacewing.console.output import Table
from lacewing.errors import OptionError
from lacewing.options import counted, user_path


@command("save", Argument("name", "session"))
def save(chat: Session, name: str | None = None) -> Reply:
    """Save the conversation, the settings and the template under a name or to a .json file.

    Without a name, the last one is used again. The file is replaced as a whole: a failure leaves the old one.
    """
    return Reply("\n".join(files.save(chat, _name(chat, name))))


@command("fullsave", Argument("name", "session"))
def fullsave(chat: Session, name: str | None = None) -> Reply:
    """Save as `/save` does, together with the KV cache, so that nothing has to be reprocessed after `/load`."""
    return Reply("\n".join(files.save(chat, _name(chat, name), kv_cache=True)))


@command("load", Argument("name", "session", required=True))
def load(chat: Session, name: str) -> Reply:
    """Load a saved conversation with its settings and template; the current model continues it.

    If it was saved with the current model, a saved KV cache is used again; otherwise the conversation is reprocessed. A damaged
    or foreign file is refused, and the current conversation is kept.
    """
    lines = files.load(chat, name)
    chat.extras[files.SAVED_AS] = name
    return Reply("\n".join(lines))


@command("sessions")
def sessions(chat: Session) -> Reply:
    """Show the saved sessions."""
    rows = tuple(files.listing())
    if not rows:
        return Reply(f"no session is saved in {files.folder()}")
    return Reply(data=Table(("name", "saved", "messages", "model", ""), rows))


@command("export", Argument("path", "path"), Option("force"))
def export(chat: Session, path: str | None = None, force: bool = False) -> Reply:
    """Write the conversation as Markdown; without a path, to a file named after the time. `--force` replaces an existing file."""
    if not chat.messages:
        raise OptionError("the conversation is empty")
    target = user_path(path or f"conversation-{datetime.now():%Y%m%d-%H%M%S}.md")
    if target.exists() and not force and not chat.ui.confirm(f"{target} exists. Replace it?"):
        raise OptionError(f"{target} exists; /export --force replaces it")
    try:
        atomic.write(target, markdown(chat).encode("utf-8", "replace"))
    except OSError as error:
        raise OptionError(f"{target} could not be written: {error.strerror}") from None
    return Reply(f"wrote {counted(len(chat.messages), 'message')} to {target}")


def markdown(chat: Session) -> str:
    """The conversation as Markdown."""
    parts = [f"# Conversation with {chat.current.info.spec.name}"]
    if chat.settings.system:
        parts.append(f"## System\n\n{chat.settings.system}")
    for message in chat.messages:
        thoughts = message.get("reasoning")
        if thoughts:
            parts.append("## Thoughts\n\n" + "\n".join(f"> {line}".rstrip() for line in thoughts.splitlines()))
        parts.append(f"## {'You' if message['role'] == 'user' else 'Model'}\n\n{message['content'].strip()}")
    return "\n\n".join(parts) + "\n"


@command("read", Argument("file", "path", required=True))
def read(chat: Session, file: str) -> Reply:
    """Put a text file, or lines of it (`/read notes.txt:10-50`), in front of your next message; `/read off` removes it again."""
    if file == "off":
        count = len(chat.attachments)
        chat.attachments.clear()
        return Reply(f"{counted(count, 'file')} removed from your next message")
    attached = mentions.attach(file, Path())
    chat.attachments.append(attached.text)
    return Reply("; ".join(attached.notes) + "; sent with your next message")


def _name(chat: Session, name: str | None) -> str:
    """The name, which is remembered; else the one remembered."""
    found = name or chat.extras.get(files.SAVED_AS)
    if not isinstance(found, str):
        raise OptionError("give the session a name: /save NAME")
    chat.extras[files.SAVED_AS] = found
    return found
