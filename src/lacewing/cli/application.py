"""What all commands are part of."""

from __future__ import annotations

from typing import Annotated

import typer

from lacewing import __version__
from lacewing.cli.parsing import Group
from lacewing.console.output import print_text

app = typer.Typer(
    cls=Group,
    help="Run large language models on the hardware you have. A model without a command starts a chat with it.",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print_text(f"lacewing {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print_text(context.get_help())
