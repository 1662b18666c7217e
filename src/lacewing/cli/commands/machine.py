"""Commands about this machine and this user: devices, configuration, completion."""

from __future__ import annotations

from typing import Annotated

import typer

from lacewing.cli import flags
from lacewing.cli.application import app
from lacewing.cli.parsing import Command
from lacewing.console.output import print_text
from lacewing.errors import OptionError


@app.command(cls=Command)
@flags.expanded()
def backends(json: flags.Json = False) -> None:
    """List the backends and their devices, whether they work here, and which of them `auto` would take."""
    from lacewing.cli.backends import backends

    backends(as_json=json)


@app.command(cls=Command)
@flags.expanded()
def config(context: typer.Context, json: flags.Json = False) -> None:
    """Show where the configuration file is, which options are set and by what, and what is allowed."""
    from lacewing.cli.config import settings, show

    show(settings(context.find_root().command), as_json=json)


@app.command()
def completion(shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="The shell that runs the script.")]) -> None:
    """Print a script that lets a shell complete commands, options and models: `source <(lacewing completion bash)`."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # what `--show-completion` prints elsewhere

    if shell not in ("bash", "zsh", "fish"):
        raise OptionError(f"there is no completion for {shell!r}; there are bash, zsh and fish")
    print_text(get_completion_script(prog_name="lacewing", complete_var="_LACEWING_COMPLETE", shell=shell))
