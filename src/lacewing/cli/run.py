"""`lacewing run` and `lacewing chat`."""

from __future__ import annotations

import sys

from lacewing.api import Model
from lacewing.assistant import TextStream
from lacewing.cli.models import path_of
from lacewing.cli.progress import Reporter
from lacewing.console.interrupt import Interrupt
from lacewing.console.output import Output, clean_line, print_json, print_text
from lacewing.errors import Cancelled, OptionError
from lacewing.options import LoadOptions, Sampling
from lacewing.placement.info import ModelInfo


def open_model(name: str, options: LoadOptions) -> Model:
    """Load with progress shown."""
    path = path_of(name)
    with Reporter() as progress, Interrupt() as interrupt:
        try:
            return Model(ModelInfo(path, options), progress, cancelled=interrupt)
        except Cancelled:
            raise KeyboardInterrupt from None


def run(name: str, prompt: str, options: LoadOptions, sampling: Sampling, *, raw: bool, special: bool, as_json: bool) -> int:
    """Answer `prompt` on standard output; the exit code. `special`: control tokens may stand in a raw prompt."""
    if special and not raw:
        raise OptionError("--special needs --raw: a chat message never holds control tokens")
    with open_model(name, options) as model, Interrupt() as interrupt:
        for notice in (*model.notices, *(() if raw else model.info.chat_notices)):
            print_text(f"lacewing: {clean_line(notice)}", sys.stderr)
        fields = vars(sampling)
        if raw or not model.has_template:
            stream = model.stream(prompt, special=special, cancelled=interrupt, **fields)
        else:
            stream = model.chat([{"role": "user", "content": prompt}], cancelled=interrupt, **fields)
        if as_json:
            text = "".join(stream)
            print_json({"text": text, "finish_reason": stream.finish_reason, **stream.stats.as_dict()})
        else:
            _print(stream)
    return 130 if stream.finish_reason == "cancelled" else 0


def _print(stream: TextStream) -> None:
    output = Output(sys.stdout)
    for text in stream:
        output.write(text)
    output.end_line()
    if sys.stderr.isatty():
        stats = stream.stats
        print_text(
            f"[{stats.prompt_tokens} prompt tokens at {stats.prompt_rate:.1f}/s, "
            f"{stats.generated_tokens} generated at {stats.generate_rate:.1f}/s, finish: {stream.finish_reason}]",
            sys.stderr,
        )


def chat(name: str, options: LoadOptions, sampling: Sampling) -> int:
    """Talk with a model, on a terminal or in a pipe; the exit code."""
    from lacewing.chat.terminal.start import chat

    with Reporter() as progress:
        return chat(name, options, sampling, progress)
