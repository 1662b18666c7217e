"""`lacewing run --server URL` and `lacewing chat --server URL`: the model is a server's."""

from __future__ import annotations

import inspect
from dataclasses import replace

import typer

from lacewing.assistant.options import ChatOptions
from lacewing.chat.client.answers import RemoteAnswer, request
from lacewing.chat.client.connection import Connection
from lacewing.chat.services import autosave
from lacewing.chat.services.opening import open_remote
from lacewing.chat.session.remote import RemoteSession
from lacewing.chat.terminal.start import chat as chat_in_terminal
from lacewing.cli import flags
from lacewing.cli.progress import Reporter
from lacewing.cli.prompt import STDIN, Request
from lacewing.cli.run import beginning, facts, show
from lacewing.console.interrupt import Interrupt
from lacewing.console.output import print_json
from lacewing.errors import OptionError
from lacewing.options import Sampling


def run(
    words: list[str],
    asked: Request,
    connection: Connection,
    sampling: Sampling,
    reply: ChatOptions,
    *,
    raw: bool = False,
    special: bool = False,
    as_json: bool = False,
) -> int:
    """Answer the request on standard output; the exit code. The first of several `words` is the model if the server has it."""
    if special and not raw:
        raise OptionError("--special needs --raw: a chat message never holds control tokens")
    if asked.template is not None or (raw and asked.system is not None):
        raise OptionError("a server chooses the template, and --raw uses none; leave --template out, and --system with --raw")
    with Interrupt() as interrupt:
        try:
            session = RemoteSession(connection, asked.model or None)
            if not asked.model and len(words) > 1 and any(each["id"] == words[0] for each in session.listed):
                session.use(session.find(words[0]))
                words = words[1:]
            prompt = replace(asked, prompt=" ".join(words)).text()
            if not prompt:
                raise OptionError("there is no prompt: write one, name a file with --file, or pipe text in")
            messages = [{"role": role, "content": text} for role, text in (("system", asked.system), ("user", prompt)) if text]
            body = request(session.name, prompt if raw else messages, sampling, reply) | ({"special": True} if special else {})
            answer = RemoteAnswer(connection, body, interrupt)
            if as_json:
                print_json(facts(answer))
            else:
                show(answer)
        finally:
            connection.close()
    return 130 if answer.finish_reason == "cancelled" else 0


def chat(asked: Request, connection: Connection, sampling: Sampling, *, resume: bool = False) -> int:
    """Talk with a server's model, on a terminal or in a pipe; the exit code."""
    if STDIN in asked.files:
        raise OptionError("a chat reads its messages from standard input, so --file - is not possible")
    if resume:
        if asked.load is not None:
            raise OptionError("--resume continues the last conversation and --load another one; give one of them")
        head, path = autosave.last_kept()
        asked = replace(asked, load=path, model=asked.model or (head.model if head.path == connection.address else ""))
    with Reporter() as progress:
        return chat_in_terminal(lambda ui: open_remote(connection, asked.model or None, sampling, ui, beginning(asked)), progress)


def refuse_load_flags(context: typer.Context) -> None:
    """How a model is loaded is the server's business; what a configuration file sets is for models of this machine."""
    for name in inspect.signature(flags.load_options).parameters:
        if name in context.meta[flags.GIVEN]:
            flag = f"--{name.replace('_', '-')}"
            raise OptionError(f"{flag} is for models of this machine: with --server, the server loads them")
