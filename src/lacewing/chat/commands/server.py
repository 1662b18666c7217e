"""Commands of a chat with a server: what /model, /lazy, /template and others do there. Lacewing's own server offers all of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any
from urllib.parse import quote

from lacewing.chat.client.answers import request
from lacewing.chat.client.connection import ServerError
from lacewing.chat.commands.models import residency_of
from lacewing.chat.commands.table import Argument, Option, Reply, command
from lacewing.chat.session.formatter import visible
from lacewing.chat.session.remote import RemoteSession
from lacewing.chat.session.settings import POLICIES
from lacewing.console.heat import shades
from lacewing.console.output import Table
from lacewing.errors import Cancelled, OptionError
from lacewing.options import counted, format_bytes

ASK_EVERY = 0.3  # seconds between two questions how far a model is
PREFER = {"Prefer": "respond-async, wait=2"}  # seconds for which a change may be silent: proxies give up after 15 or more
FIELDS = ("residency", "context")  # of a change, that a line tells of
COLUMNS = 64  # characters of a row of the expert map


@command(
    "model",
    Argument("name", "served"),
    Option("residency", "residency"),
    Option("lazy"),
    Option("eager"),
    Option("streamed"),
    Option("context", "number"),
    aliases=("m",),
)
def model(
    chat: RemoteSession,
    name: str | None = None,
    residency: str | None = None,
    lazy: bool = False,
    eager: bool = False,
    streamed: bool = False,
    context: int | None = None,
) -> Reply:
    """Change to another model of the server and keep the conversation; without a name, list its models.

    A Lacewing server loads the model now and shows the progress. `--residency` and `--context` change the model for everybody who
    uses the server.
    """
    changes = {"residency": residency_of(residency, lazy, eager, streamed), "context": context}
    changes = {key: value for key, value in changes.items() if value is not None}
    chat.refresh()
    if name is None and not changes:
        return Reply(
            data=Table(
                ("", "model", "size", "quant", "architecture", "state"), tuple(map(lambda one: _row(chat, one), chat.listed))
            )
        )
    found = chat.find(name or chat.name)
    lines = [f"{chat.name} -> {found['id']}"] if found["id"] != chat.name else []
    if changes:
        _needs_lacewing(chat)
    if isinstance(found.get("status"), dict):  # a server that can be asked to load it, as llama-server too
        lines += _change(chat, str(found["id"]), changes)
        found = chat.find(found["id"])
    chat.use(found)
    return Reply("\n".join([*lines, chat.described()]))


def _row(chat: RemoteSession, found: dict[str, Any]) -> tuple[str, str, str, str, str, str]:
    meta, status = found.get("meta") or {}, found.get("status") or {}
    size = meta.get("size")
    state = status.get("value", "") if isinstance(status, dict) else str(status)
    residency = f", {found['residency']}" if found.get("residency") else ""
    return (
        "*" if found["id"] == chat.name else "",
        str(found["id"]),
        format_bytes(size) if isinstance(size, int) else "",
        str(meta.get("quant") or ""),
        str(meta.get("architecture") or ""),
        f"{state}{residency}",
    )


def _change(chat: RemoteSession, name: str, changes: dict[str, Any]) -> list[str]:
    """Have the server load or change a model, with its progress; lines about it. Raises ServerError, Cancelled."""
    before, looks = chat.find(name), _Looks(chat, name)
    waits = {"wait": True} if _is_lacewing(chat) else {}  # so that the answer says what came of it
    try:
        found = chat.connection.ask("POST", "/models/load", {"model": name, **changes, **waits}, looks, PREFER)
        while isinstance(found, dict) and "change" in found:  # it goes on; a proxy would give up one request for all of it
            found = chat.connection.ask("GET", f"/models/changes/{quote(str(found['change']))}", None, looks, PREFER)
        while looks.look():
            chat.connection.wait(asyncio.sleep(ASK_EVERY), chat.ui.cancelled)
    except Cancelled:
        raise Cancelled("cancelled; the server goes on with it") from None
    return [_changed(key, before, chat.find(name)) for key in changes if key in FIELDS]


class _Looks:
    """Asks a server now and then how far a model is, while a longer request waits: that one asks it whether it is cancelled."""

    def __init__(self, chat: RemoteSession, name: str):
        self._chat, self._name = chat, name
        self._next = time.monotonic() + ASK_EVERY

    def __call__(self) -> bool:
        if time.monotonic() >= self._next:
            with contextlib.suppress(ServerError):  # the request that waits says what is wrong
                self.look()
            self._next = time.monotonic() + ASK_EVERY
        return self._chat.ui.cancelled()

    def look(self) -> bool:
        """Whether the model is under way; its progress is shown. Raises ServerError if it could not be loaded."""
        self._chat.refresh()
        status = self._chat.find(self._name).get("status")
        if not isinstance(status, dict):
            return False
        if status.get("failed"):
            raise ServerError(f"{self._chat.place}: {status.get('message') or 'the model could not be loaded'}")
        progress = status.get("progress")
        if isinstance(progress, dict):
            self._chat.ui.progress(*_stage(progress))
        return isinstance(progress, dict) or status.get("value") == "loading"


def _changed(key: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    """A line about a field of a model; of a residency as a chat with a model of this machine says it."""
    old, new = before.get(key), now.get(key)
    if key != "residency" or old is None:
        return f"{key}: {new}"
    if old == new:
        return f"the weights are already {new}"
    ram = [format_bytes(each["memory_bytes"]) for each in (before, now) if isinstance(each.get("memory_bytes"), int)]
    return f"weights {old} -> {new}" + (f"; RAM {ram[0]} -> {ram[1]}" if len(ram) == 2 else "")


def _stage(progress: dict[str, Any]) -> tuple[str, int, int]:
    """What is done, how much so far, and of how much: of llama-server, which tells a share, in percent."""
    done, total, share = progress.get("done"), progress.get("total"), progress.get("value")
    if not (isinstance(done, int) and isinstance(total, int)):
        done, total = round(100 * share) if isinstance(share, int | float) and 0 <= share <= 1 else 0, 100
    return str(progress.get("current") or "loading"), done, total


@command("lazy", Argument("state", "on/off"), Option("force"))
def lazy(chat: RemoteSession, state: bool | None = None, force: bool = False) -> Reply:
    """Have the server page the weights in from the file (on) or hold them in RAM (off).

    Without an argument, `/lazy` makes them lazy, and a second `/lazy` restores what they were before, eager or streamed. This
    changes the model for everybody who uses the server; answers under way go on. Needs a Lacewing server.
    """
    chat.refresh()
    found = chat.model.get("residency")
    if state is None and found == "lazy":
        return _residency(chat, chat.before_lazy.get(chat.name, "eager"), force)
    if state is not False and found in ("eager", "streamed"):
        chat.before_lazy[chat.name] = found
    return _residency(chat, "eager" if state is False else "lazy", force)


@command("eager", Option("force"))
def eager(chat: RemoteSession, force: bool = False) -> Reply:
    """Have the server hold the weights in RAM: the same as `/lazy off`."""
    return _residency(chat, "eager", force)


@command("stream")
def stream(chat: RemoteSession) -> Reply:
    """Have the server keep all weights in RAM except the experts, which are read from disk as the router selects them."""
    return _residency(chat, "streamed", False)


def _residency(chat: RemoteSession, wanted: str, force: bool) -> Reply:
    chat.refresh()
    _needs_lacewing(chat)
    return Reply("\n".join(_change(chat, chat.name, {"residency": wanted} | ({"force": True} if force else {}))))


@command("template", Argument("name"), Option("force"))
def template(chat: RemoteSession, name: str | None = None, force: bool = False) -> Reply:
    """Have the server render conversations with another template, or `auto` for the checkpoint's own; without a name, list them.

    This changes the model for everybody who uses the server; answers under way keep the old one. Needs a Lacewing server.
    """
    if name is None:
        found = _ask(chat, "GET", f"/models/templates?model={quote(chat.name)}")["data"]
        rows = tuple(("*" if each["active"] else "", str(each["name"]), "; ".join(each["findings"]) or "fine") for each in found)
        return Reply(data=Table(("", "template", "findings"), rows))
    _needs_lacewing(chat)
    before = chat.model.get("template")
    _change(chat, chat.name, {"template": name} | ({"force": True} if force else {}))
    return Reply(f"template {before} -> {chat.model.get('template')}")


@command("context", Argument("policy", "choice", POLICIES))
def context(chat: RemoteSession, policy: str | None = None) -> Reply:
    """Show how much of the context the last answer used, or choose what happens when it is full: stop, drop-oldest or summarise.

    Dropped or summarised messages are only hidden from the model; the conversation keeps them.
    """
    if policy is not None:
        chat.change(overflow=policy)
    status = chat.status()
    share = f"{status.used_tokens / status.context:.0%}" if status.context else ""
    rows = [("used by the last answer", str(status.used_tokens), share)]
    rows += [("context", str(status.context), "")] if status.context else []
    rows += [("hidden messages", str(chat.history.hidden), "")] if chat.history.hidden else []
    return Reply(f"when the context is full: {chat.settings.overflow}", Table(("what", "tokens", "share"), tuple(rows)))


@command("debug")
def debug(chat: RemoteSession) -> Reply:
    """Show the exact prompt that the model gets, if the server tells it as Lacewing and llama-server do; else the request."""
    messages = visible(chat.messages, chat.settings, chat.history)
    if not messages:
        raise OptionError("the conversation is empty")
    body = request(chat.name, messages, chat.settings.sampling, chat.settings.chat_options())
    try:
        found = chat.connection.ask("POST", "/apply-template", {"model": chat.name, "messages": messages}, chat.ui.cancelled)
        return Reply(str(found["prompt"]), kind="code")
    except ServerError as error:
        if error.status not in (404, 405):
            raise
    return Reply(json.dumps(body, indent=2, ensure_ascii=False), kind="code")


@command("experts")
def experts(chat: RemoteSession) -> Reply:
    """Show how evenly the experts of a mixture were used; the first use starts the counting, for all who use the server.

    A Lacewing server stops counting half a minute after it was last asked.
    """
    found = _ask(chat, "GET", f"/models/experts?model={quote(chat.name)}")
    if not found.get("tokens"):
        return Reply("the experts are counted from now on: send a message, then /experts shows them")
    rows = tuple((str(each["layer"]), _map(each["tokens"])) for each in found["layers"])
    title = f"{counted(int(found['tokens']), 'token')}, {found['active']} of {found['experts']} experts each"
    return Reply(title, Table(("layer", "load, from the first expert to the last"), rows))


def _map(tokens: list[int]) -> str:
    """At most COLUMNS characters; neighbours share one."""
    run, even = -(-len(tokens) // COLUMNS), sum(tokens) / len(tokens)
    parts = [tokens[at : at + run] for at in range(0, len(tokens), run)]
    return shades([sum(part) / len(part) / even if even else 0.0 for part in parts])


def _ask(chat: RemoteSession, method: str, path: str, body: Any = None) -> Any:
    """Raises OptionError if the server is another one, ServerError."""
    _needs_lacewing(chat)
    return chat.connection.ask(method, path, body, chat.ui.cancelled)


def _is_lacewing(chat: RemoteSession) -> bool:
    return "residency" in chat.model


def _needs_lacewing(chat: RemoteSession) -> None:
    if not _is_lacewing(chat):
        raise OptionError(f"{chat.place} is not a Lacewing server: it does not offer this")
