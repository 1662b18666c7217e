"""Commands that answer: one prompt, a chat, requests over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from lacewing.assistant.options import ChatOptions
from lacewing.cli import flags
from lacewing.cli.application import app
from lacewing.cli.parsing import Command
from lacewing.errors import OptionError
from lacewing.options import LoadOptions, Sampling
from lacewing.server.options import ServerOptions

DEFAULT_MODEL = "smollm2"


@app.command(cls=Command)
@flags.expanded()
def run(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL PROMPT", autocompletion=flags.complete, help="The model, then what to say to it."),
    ] = None,
    *,
    given: typer.Context,
    model: flags.Chosen = None,
    default_model: flags.DefaultModel = DEFAULT_MODEL,
    file: flags.Files = None,
    system: flags.System = None,
    template: flags.Template = None,
    sampling: Sampling,
    reply: ChatOptions,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the prompt as plain text, without the chat template.")] = False,
    special: flags.Special = False,
    options: LoadOptions,
    server: flags.Server = None,
    server_key: flags.ServerKey = None,
    json: flags.Json = False,
) -> None:
    """Answer one prompt, streaming. Text on standard input goes in front of the prompt; without both, it is a chat.

    A single word is a model; a single text of several words is a prompt for the default model.
    """
    from lacewing.cli.prompt import Request

    if server is not None:
        from lacewing.chat.client.connection import Connection
        from lacewing.cli import remote

        remote.refuse_load_flags(given)
        asked, connection = Request(model or "", "", tuple(file or ()), system, template), Connection(server, server_key)
        raise typer.Exit(remote.run(words or [], asked, connection, sampling, reply, raw=raw, special=special, as_json=json))
    from lacewing.cli.run import run

    request = Request.of(words or [], model, default_model, file or [], system, template)
    raise typer.Exit(run(request, options, sampling, reply, raw=raw, special=special, as_json=json))


@app.command(cls=Command)
@flags.expanded()
def chat(
    name: Annotated[str | None, typer.Argument(metavar="MODEL", autocompletion=flags.complete, help=flags.MODEL_HELP)] = None,
    *,
    given: typer.Context,
    model: flags.Chosen = None,
    default_model: flags.DefaultModel = DEFAULT_MODEL,
    load: Annotated[str | None, typer.Option("--load", help="A saved conversation to continue.", metavar="NAME")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the last conversation, by default with its model.")] = False,
    file: flags.Files = None,
    system: flags.System = None,
    template: flags.Template = None,
    sampling: Sampling,
    options: LoadOptions,
    server: flags.Server = None,
    server_key: flags.ServerKey = None,
) -> None:
    """Talk with a model; /help shows the commands. In a pipe, each line is a message or a command."""
    from lacewing.cli.prompt import Request

    if name and model:
        raise OptionError(f"unexpected argument {name!r}: --model names the model already")
    if server is not None:
        from lacewing.chat.client.connection import Connection
        from lacewing.cli import remote

        remote.refuse_load_flags(given)
        asked = Request(model or name or "", "", tuple(file or ()), system, template, load)
        raise typer.Exit(remote.chat(asked, Connection(server, server_key), sampling, resume=resume))
    from lacewing.cli.run import chat

    model = model or name or (None if resume else default_model)
    request = Request(model or "", "", tuple(file or ()), system, template, load)
    raise typer.Exit(chat(request, options, sampling, resume=resume))


@app.command(cls=Command)
@flags.expanded()
def serve(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL", autocompletion=flags.complete, help="Models; the first is the default.")
    ] = None,
    *,
    server: ServerOptions,
    options: LoadOptions,
) -> None:
    """Answer requests over HTTP, as OpenAI's API has them. Models are loaded when a request names them."""
    from lacewing.cli.serve import serve

    serve(models or [], options, server)
