"""Writes docs/commands.md from the table of the chat's commands. A test holds the page to the table.

python tools/make_docs.py
"""

from __future__ import annotations

from pathlib import Path

from lacewing.chat.commands.table import Command, load_commands

PAGE = Path(__file__).parent.parent / "docs" / "commands.md"
GROUPS = {  # the files of chat/commands, in the order of the page
    "models": "Model, residency, template",
    "talk": "The conversation",
    "sampling": "How answers are chosen",
    "files": "Files and sessions",
    "code": "Edits of files",
    "state": "What there is to know",
    "experts": "Mixtures of experts",
}
HEAD = """# Commands of the chat

`lacewing chat MODEL` takes messages and, on lines that begin with a slash, commands. This page is made from their table by
`tools/make_docs.py`; `/help` shows the same in the chat.

A message may name files: `@notes.txt`, `@code.py:10-50`, `@"two words.md"`; their text goes with it. A message that begins
with a slash is written with two. Words with spaces are put in quotes.

| key | |
|---|---|
| Enter | sends |
| Alt-Enter | begins a new line; so does a paste, which is never sent by itself |
| Up, Down, Ctrl-R | the messages before, of other chats too |
| Tab | completes commands, names of models, templates and sessions, and paths |
| Ctrl-X Ctrl-E | opens the message in `$EDITOR` |
| Ctrl-O | shows the thoughts of the last answer |
| Ctrl-C | stops an answer or long work, and all is as it was |
| Ctrl-C again | leaves; while something is being stopped, two seconds later, and the conversation is saved first |
| Ctrl-D | leaves |

In a pipe (`lacewing chat MODEL < script`) each line is a message or a command, and what stands between two lines of `\"\"\"` is one
message. Answers go to standard output as plain text, problems to standard error. The exit code is 1 when a line failed.
"""


def page() -> str:
    """The text of docs/commands.md. Raises KeyError for a group that has no place in it."""
    parts = [HEAD]
    rows = list(load_commands().rows.values())
    missing = {row.group for row in rows} - set(GROUPS)
    if missing:
        raise KeyError(f"GROUPS lacks {', '.join(sorted(missing))}")
    for group, title in GROUPS.items():
        parts += [f"\n## {title}\n", *(_entry(row) for row in rows if row.group == group)]
    return "\n".join(parts)


def _entry(row: Command) -> str:
    summary, _, rest = row.help.partition("\n")
    aliases = f" Also {', '.join(f'`/{alias}`' for alias in row.aliases)}." if row.aliases else ""
    more = f"\n{rest.strip()}\n" if rest.strip() else ""
    return f"### `{row.usage}`\n\n{summary}{aliases}\n{more}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
