"""Commands that show the state of the chat, and how the experts of its model are used."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lacewing.chat.commands.sampling import spelled, spelled_settings
from lacewing.chat.commands.table import Argument, Reply, command
from lacewing.chat.services import inspection
from lacewing.chat.session.conversation import Conversation
from lacewing.chat.session.models import OnDevice
from lacewing.chat.session.session import Session
from lacewing.chat.session.settings import POLICIES, Settings
from lacewing.console.heat import LEGEND, table
from lacewing.console.output import Table
from lacewing.errors import OptionError
from lacewing.options import counted, format_bytes

LIVE = "experts_live"  # of a session: whether a map is shown below an answer while it comes


@command("context", Argument("policy", "choice", POLICIES))
def context(chat: Session, policy: str | None = None) -> Reply:
    """Show what fills the context, or choose what happens when it is full: stop, drop-oldest or summarise.

    Dropped or summarised messages are only hidden from the model; the conversation keeps them.
    """
    if policy is not None:
        chat.change(overflow=policy)
    rows = tuple(inspection.context_rows(chat))
    return Reply(f"when the context is full: {chat.settings.overflow}", Table(("what", "tokens", "share"), rows))


@command("settings")
def settings(chat: Conversation) -> Reply:
    """Show what the commands have set, each as its command spells it, and which of them you changed."""
    usual = dict(_spelled(Settings()))
    rows = [(name, value, "" if value == usual[name] else "changed") for name, value in _spelled(chat.settings)]
    if isinstance(chat, Session):
        rows.append(("/template", chat.formatter.choice, "" if chat.formatter.choice == "auto" else "changed"))
    rows.append(("/model", chat.current.name if isinstance(chat, Session) else chat.name, chat.status().backend))
    if isinstance(chat, Session) and isinstance(chat.current, OnDevice):
        rows.append(("/lazy", "on" if chat.model.weights.residency == "lazy" else "off", ""))
    return Reply(data=Table(("command", "value", ""), tuple(rows)))


def _spelled(settings: Settings) -> Iterator[tuple[str, str]]:
    yield from spelled_settings(settings.sampling)
    on = {True: "on", False: "off", None: "auto"}
    yield "/system", settings.system or "off"
    effort = settings.effort if settings.thinking and settings.effort != Settings.effort else on[settings.thinking]
    yield "/thinking", f"{effort}, {'show' if settings.show_reasoning else 'hide'}"
    yield "/thinking-budget", spelled(settings.thinking_budget)
    yield "/context", settings.overflow
    yield "/code", on[settings.code]
    yield "/plain", on[settings.plain]


@command("stats")
def stats(chat: Conversation) -> Reply:
    """Show speed, time to the first token, memory and the reuse of the KV cache, for the last answer."""
    found = chat.stats
    if not found:
        raise OptionError("there is no answer yet")
    prompt, reused = int(found["prompt_tokens"]), int(found["reused_tokens"])
    rows = [
        ("prompt", f"{counted(prompt, 'token')}, {reused} of them reused ({reused / max(prompt, 1):.0%})"),
        ("prompt speed", f"{found['prompt_tokens_per_second']:.1f} tokens/s"),
        ("first token", f"{1000 * found['first_token_seconds']:.0f} ms"),
        ("answer", counted(int(found["generated_tokens"]), "token")),
        ("answer speed", f"{found['generate_tokens_per_second']:.1f} tokens/s"),
    ]
    if isinstance(chat, Session):
        weights = chat.model.weights
        rows += [
            ("RAM", format_bytes(chat.model.memory_bytes)),
            ("weights", f"{weights.residency}, {format_bytes(weights.nbytes)}"),
        ]
    return Reply(data=Table(("what", "value"), tuple(rows)))


@command("copy", Argument("block", "number"))
def copy(chat: Conversation, block: int | None = None) -> Reply:
    """Copy the last answer to the clipboard, or one of its code blocks: `/copy 2` copies the second."""
    text = chat.last_answer()
    if not text:
        raise OptionError("there is no answer to copy")
    if block is not None:
        blocks = code_blocks(text)
        if not 0 < block <= len(blocks):
            there = f"has {counted(len(blocks), 'code block')}" if blocks else "has no code block"
            raise OptionError(f"the last answer {there}; /copy copies all of it")
        text = blocks[block - 1]
    what = f"{counted(len(text), 'character')}" + (f" of code block {block}" if block else "")
    doubt = chat.ui.copy(text)
    return Reply(f"{what} sent to the clipboard: {doubt}" if doubt else f"copied {what}")


def code_blocks(text: str) -> list[str]:
    """The text within each fence, also of one that is still open."""
    blocks: list[list[str]] = []
    fence = indent = ""
    for line in text.split("\n"):
        match = re.match(r"([ \t]*)(`{3,}|~{3,})([^`]*)$", line)
        if fence:
            if match and match[2].startswith(fence) and not match[3].strip():
                fence = ""
            else:
                blocks[-1].append(line.removeprefix(indent))
        elif match:
            indent, fence = match[1], match[2]
            blocks.append([])
    return ["\n".join(block) for block in blocks]


@command("debug")
def debug(chat: Session) -> Reply:
    """Show the exact prompt that the model gets, and how much of it is in the KV cache."""
    return Reply(inspection.prompt(chat), kind="code")


@command("experts", Argument("state", "on/off", ("live", "quiet")))
def experts(chat: Session, state: bool | str | None = None) -> Reply:
    """Show how the experts of each layer were used for the last prompt and answer; the first use starts to watch them.

    In a terminal, a map of their load stands below every answer while it comes, the experts of the newest token reversed;
    `/experts quiet` hides the map, `live` shows it again, `off` stops watching. Watching costs little, and nothing while it is
    off.
    """
    from lacewing.engine.routing import AnswerRouting, has_sequence_loss, routers

    program, engine, loaded = chat.model.spec.program, chat.model.engine, chat.loaded
    if not routers(program):
        raise OptionError(f"{chat.model.spec.name} is a dense model: it has no experts")
    if state is not None:
        chat.extras[LIVE] = state in (True, "live")
    if state is False:
        if loaded.routing is not None:
            engine.unobserve(loaded.routing)
            loaded.routing = None
        return Reply("the experts are not watched")
    if loaded.routing is None:
        routing = AnswerRouting()
        engine.observe(routing)
        loaded.routing = routing
        chat.extras.setdefault(LIVE, True)
        return Reply("the experts are watched from now on: send a message, then /experts shows them; /experts off stops")
    if isinstance(state, str):
        return Reply("a map of the experts is shown below answers" if state == "live" else "no map is shown below answers")
    layers = loaded.routing.statistics.layers()
    if not layers:
        return Reply("the experts are watched; there has been no answer since")
    uses = (chat.model.step.cache_statistics, chat.model.weights.experts)
    told = f"{counted(layers[0].tokens, 'token')} of the last prompt and answer\n"
    told += "".join(f"{use}\n" for use in uses if use is not None)
    return Reply(f"{told}{LEGEND}", table(layers, sequences=has_sequence_loss(program)))
