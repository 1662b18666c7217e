"""Commands that show the state of the chat."""

from __future__ import annotations

import dataclasses

from lacewing.chat.commands.table import Argument, Reply, command
from lacewing.chat.services import inspection
from lacewing.chat.session.session import Session
from lacewing.chat.session.settings import POLICIES
from lacewing.console.output import Table
from lacewing.errors import OptionError
from lacewing.options import Sampling, counted, format_bytes


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
def settings(chat: Session) -> Reply:
    """Show all settings, and which of them you changed."""
    now, usual = chat.settings, Sampling()
    rows = [
        (each.name, str(getattr(now.sampling, each.name)), "" if _same(now.sampling, usual, each.name) else "changed")
        for each in dataclasses.fields(Sampling)
    ]
    rows += [(name, str(getattr(now, name)), "") for name in ("system", "thinking", "show_reasoning", "overflow", "code")]
    facts = chat.model.backend.facts()
    rows += [
        ("model", chat.current.name, ""),
        ("template", chat.formatter.choice, ""),
        ("backend", f"{facts.backend}, {facts.name}", ""),
    ]
    return Reply(data=Table(("setting", "value", ""), tuple(rows)))


def _same(left: Sampling, right: Sampling, name: str) -> bool:
    return bool(getattr(left, name) == getattr(right, name))


@command("stats")
def stats(chat: Session) -> Reply:
    """Show speed, time to the first token, memory and the reuse of the KV cache, for the last answer."""
    found = chat.stats
    if not found:
        raise OptionError("there is no answer yet")
    prompt, reused = int(found["prompt_tokens"]), int(found["reused_tokens"])
    rows = (
        ("prompt", f"{counted(prompt, 'token')}, {reused} of them reused ({reused / max(prompt, 1):.0%})"),
        ("prompt speed", f"{found['prompt_tokens_per_second']:.1f} tokens/s"),
        ("first token", f"{1000 * found['first_token_seconds']:.0f} ms"),
        ("answer", counted(int(found["generated_tokens"]), "token")),
        ("answer speed", f"{found['generate_tokens_per_second']:.1f} tokens/s"),
        ("RAM", format_bytes(chat.model.memory_bytes)),
        ("weights", f"{chat.model.weights.residency}, {format_bytes(chat.model.weights.nbytes)}"),
    )
    return Reply(data=Table(("what", "value"), rows))


@command("copy")
def copy(chat: Session) -> Reply:
    """Copy the last answer to the clipboard."""
    text = chat.last_answer()
    if not text:
        raise OptionError("there is no answer to copy")
    chat.ui.copy(text)
    return Reply(f"copied {counted(len(text), 'character')}")


@command("debug")
def debug(chat: Session) -> Reply:
    """Show the exact prompt that the model gets, and how much of it is in the KV cache."""
    return Reply(inspection.prompt(chat), kind="code")
