"""`lacewing run` and `lacewing chat`."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lacewing.api import Model
from lacewing.assistant.answer import Answer
from lacewing.assistant.grammar.source import Grammar
from lacewing.assistant.options import ChatOptions
from lacewing.assistant.reply import Assistant
from lacewing.cli.grammars import argument_of
from lacewing.cli.models import path_of
from lacewing.cli.progress import Reporter
from lacewing.cli.prompt import STDIN, Request
from lacewing.console.interrupt import Interrupt
from lacewing.console.output import Output, detail, is_quiet, is_verbose, notice, print_json, print_text
from lacewing.errors import Cancelled, OptionError
from lacewing.options import LoadOptions, Sampling
from lacewing.placement.info import ModelInfo

if TYPE_CHECKING:
    from lacewing.chat.services.opening import Beginning
    from lacewing.chat.session.conversation import Streamed


def open_model(name: str, options: LoadOptions) -> Model:
    """Load with progress shown; tell what a person should know of the model."""
    path, began = path_of(name), time.perf_counter()
    with Reporter() as progress, Interrupt() as interrupt:
        try:
            model = Model(ModelInfo(path, options), progress, cancelled=interrupt)
        except Cancelled:
            raise KeyboardInterrupt from None
    facts = model.backend.facts()
    detail(f"{model!r} on {facts.name}, loaded in {time.perf_counter() - began:.2f} s")
    for reason in model.plan.reasons:
        detail(reason)
    for text in model.notices:
        notice(text)
    return model


def run(
    request: Request,
    options: LoadOptions,
    sampling: Sampling,
    reply: ChatOptions | None = None,
    *,
    raw: bool = False,
    special: bool = False,
    as_json: bool = False,
) -> int:
    """Answer the request on standard output; the exit code. `special`: control tokens may stand in a raw prompt.

    `reply`: how the model answers a chat message; its grammar binds raw text too.

    On a terminal, without anything to answer, a chat begins. Raises OptionError where there is no prompt.
    """
    if special and not raw:
        raise OptionError("--special needs --raw: a chat message never holds control tokens")
    if raw and (request.system is not None or request.template is not None):
        raise OptionError("--raw sends the prompt as it is: --system and --template need a chat template")
    reply = reply or ChatOptions()
    grammar = reply.constraint if isinstance(reply.constraint, Grammar) else None
    if raw and replace(reply, constraint=None) != ChatOptions():
        raise OptionError("--raw sends the prompt as it is: only a chat template tells thoughts from an answer")
    prompt = request.text()
    if not prompt:
        if sys.stdin.isatty() and sys.stdout.isatty() and not raw and not as_json and grammar is None:
            return chat(request, options, sampling)
        raise OptionError("there is no prompt: write one behind the model, name a file with --file, or pipe text in")
    with open_model(request.model, options) as model, Interrupt() as interrupt:
        for text in () if raw or request.template else model.info.chat_notices:
            notice(text)
        if raw or not (request.template or model.has_template):
            if request.system is not None:
                raise OptionError(f"{request.model} has no chat template, so it takes no system message; --template names one")
            options_of_text = {**vars(sampling), **argument_of(grammar)}
            answer = model.stream(prompt, special=special, cancelled=interrupt, **options_of_text)
        else:
            answer = _reply(model, prompt, request, sampling, reply, interrupt)
        if as_json:
            print_json(facts(answer))
        else:
            show(answer)
        if answer.finish_reason == "repetition":
            print_text("lacewing: the answer repeated itself and was ended; `repeat_guard='0'` lets it go on", sys.stderr)
    return 130 if answer.finish_reason == "cancelled" else 0


def _reply(
    model: Model, prompt: str, request: Request, sampling: Sampling, options: ChatOptions | None, interrupt: Interrupt
) -> Answer:
    """The answer to the prompt as a chat message."""
    from lacewing.assistant.templates import open_template
    from lacewing.text.lint import markup_of

    template = open_template(request.template or "auto", model.info, model.tokenizer)
    if request.template and (missing := markup_of(template, model.tokenizer).missing):
        notice(f"the vocabulary lacks {', '.join(missing)}, which the model reads as plain text")
    messages = [{"role": role, "content": text} for role, text in (("system", request.system), ("user", prompt)) if text]
    return Assistant(model.engine, model.tokenizer, template).reply(messages, sampling, interrupt, options=options)


def facts(answer: Streamed) -> dict[str, Any]:
    """Of an answer, for JSON, once all of it has come."""
    deltas = list(answer)
    reasoning = "".join(delta.reasoning for delta in deltas)
    thoughts = {"reasoning": reasoning} if reasoning else {}
    return {"text": "".join(deltas), **thoughts, "finish_reason": answer.finish_reason, **answer.stats.as_dict()}


def show(answer: Streamed) -> None:
    """The answer on standard output; its thoughts, which are no part of it, beside it."""
    output, thoughts = Output(sys.stdout), Output(sys.stderr)
    for delta in answer:
        if delta:
            thoughts.end_line()
            output.write(str(delta))
        elif delta.reasoning and not is_quiet():
            thoughts.write(delta.reasoning)
    thoughts.end_line()
    output.end_line()
    if is_verbose() or (sys.stderr.isatty() and not is_quiet()):
        stats = answer.stats
        print_text(
            f"[{stats.prompt_tokens} prompt tokens at {stats.prompt_rate:.1f}/s, "
            f"{stats.generated_tokens} generated at {stats.generate_rate:.1f}/s, finish: {answer.finish_reason}]",
            sys.stderr,
        )


def chat(request: Request, options: LoadOptions, sampling: Sampling, *, resume: bool = False) -> int:
    """Talk with a model, on a terminal or in a pipe; the exit code. `resume`: the last conversation, else with its own model."""
    from lacewing.chat.services.opening import open_session
    from lacewing.chat.terminal.start import chat

    if STDIN in request.files:
        raise OptionError("a chat reads its messages from standard input, so --file - is not possible")
    if resume:
        from lacewing.chat.services import autosave

        if request.load is not None:
            raise OptionError("--resume continues the last conversation and --load another one; give one of them")
        model, load = autosave.resume(request.model or None)
        request = replace(request, model=model, load=load)
    with Reporter() as progress:
        opener = lambda ui: open_session(request.model, options, sampling, ui, beginning(request))  # noqa: E731
        return chat(opener, progress)


def beginning(request: Request) -> Beginning:
    """What a chat begins with. Raises MentionError."""
    from lacewing.chat.services.opening import Beginning

    return Beginning(request.system, request.template, tuple(request.blocks()), request.load)
