"""Writes docs/commands.md from the table of the chat's commands, docs/configuration.md from the options of the command line,
docs/server.md from the server's routes and requests, docs/architectures.md from the rows of architectures, and their number into
README.md.

Tests hold the pages to their sources.

python tools/make_docs.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import typer.main

from lacewing.chat.commands.table import GROUPS, Command, load_commands
from lacewing.chat.session.remote import RemoteSession
from lacewing.cli.app import app
from lacewing.cli.config import VARIABLES, settings

CONFIGURATION = Path(__file__).parent.parent / "docs" / "configuration.md"
CONFIGURATION_HEAD = """# Configuration

Every option of the command line can also be set by an environment variable or in a configuration file. The command line goes before
the environment, the environment before the file. `lacewing config` shows where the file is, what is set and by what, and what is
allowed; `--json` gives the same to programs. `tools/make_docs.py` makes this page from the options.

The file is `config.toml` in the user's folder for configurations, or what `LACEWING_CONFIG` names:

| system | file |
|---|---|
| Linux | `$XDG_CONFIG_HOME/lacewing/config.toml`, by default `~/.config/lacewing/config.toml` |
| macOS | `~/Library/Application Support/lacewing/config.toml` |
| Windows | `%LOCALAPPDATA%\\lacewing\\config.toml` |

It is TOML. A key at the top is for every command that has the option; a key in a table is for that command only, and goes first:

```toml
model = "smollm2"           # for run and chat, where none is named
temperature = 0.5
threads = 2

[chat]
system = "Answer briefly."
stop = ["END"]
```

A key that does not exist and a value that is not allowed are errors, which name the line.

## Options

An option that may be given several times takes a list in the file, and its variable sets one value. A switch is `true` or `false`
in the file, and `on` or `off` in the environment.

| key | variable | commands | default | |
|---|---|---|---|---|
"""
VARIABLES_HEAD = """
## Other variables

| variable | |
|---|---|
"""
PAGE = Path(__file__).parent.parent / "docs" / "commands.md"
SERVER = Path(__file__).parent.parent / "docs" / "server.md"
README = Path(__file__).parent.parent / "README.md"
CLIENT = Path(__file__).parent.parent / "examples" / "client.py"
HEAD = """# Commands of the chat

`lacewing chat MODEL` takes messages and, on lines that begin with a slash, commands. `tools/make_docs.py` makes this page
from their table; `/help` shows the same in the chat.

A message may name files: `@notes.txt`, `@code.py:10-50`, `@"two words.md"`; their text is sent with it. To send a message that
begins with a slash, write two. Put words with spaces in quotes.

| key | |
|---|---|
| Enter | sends |
| Alt-Enter | starts a new line; a paste may have several, and is not sent until you press Enter |
| Up, Down, Ctrl-R | earlier messages, including those of other chats |
| Tab | completes commands, names of models, templates and sessions, and paths; again: the next one, or what is in the folder |
| Ctrl-X Ctrl-E | opens the message in `$EDITOR`; it is sent if it was changed there |
| Ctrl-O | shows the thoughts of the last answer |
| Ctrl-C | stops an answer or long work; before an answer begins, it takes your message back (Up brings it back) |
| Ctrl-C again | leaves, two seconds later if something is being stopped; the conversation is saved first |
| Ctrl-D | leaves; the conversation is kept for `lacewing chat --resume` |

In a pipe (`lacewing chat MODEL < script`) each line is a message or a command, and the lines between two lines of `\"\"\"` are one
message. Answers alone go to standard output, as plain text; what commands say goes to standard error, as do problems. The exit
code is 1 if a line failed.

`lacewing chat --server URL` talks to a running server instead: `lacewing serve`, or another one that has OpenAI's API. The
conversation, its files and its settings stay in your terminal. Settings that you do not change are the server's to choose. The
commands about models are then those of the last section; those that need a model of this machine, such as `/verify`, are not there.
"""


def page() -> str:
    """The text of docs/commands.md. Raises KeyError for a group that has no place in it."""
    parts = [HEAD]
    rows = [*load_commands().rows.values(), *(row for row in load_commands(RemoteSession).rows.values() if row.group == "server")]
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


def configuration() -> str:
    """The text of docs/configuration.md."""
    rows = sorted(settings(typer.main.get_command(app)).values(), key=lambda setting: setting.name)
    most = max(len(each.commands) for each in rows)  # of the options that every command has
    options = ""
    for each in rows:
        commands = "all" if len(each.commands) == most else ", ".join(each.commands)
        options += f"| `{each.name}` | `{each.variable}` | {commands} | {each.shown_default} | {each.help} |\n"
    return CONFIGURATION_HEAD + options + VARIABLES_HEAD + "".join(f"| `{name}` | {about} |\n" for name, about in VARIABLES.items())


if __name__ == "__main__":
    sys.path.insert(0, str(PAGE.parent.parent))
    from tools import architecture_docs, server_docs

    CONFIGURATION.write_text(configuration(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
    SERVER.write_text(server_docs.page(CLIENT.read_text(encoding="utf-8")), encoding="utf-8")
    architecture_docs.PAGE.write_text(architecture_docs.page(), encoding="utf-8")
    README.write_text(architecture_docs.counted(README.read_text(encoding="utf-8")), encoding="utf-8")
