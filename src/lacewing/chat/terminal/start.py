"""`lacewing chat`: opens the session and chooses its view. Imports little: what a view needs comes while the model loads."""

from __future__ import annotations

import importlib
import io
import os
import sys
import threading
from collections.abc import Callable

from lacewing.chat.session.conversation import Conversation
from lacewing.chat.session.events import Ui
from lacewing.chat.session.session import Session
from lacewing.chat.terminal.loop import Loop, TerminalView
from lacewing.console.interrupt import PATIENCE, Interrupt
from lacewing.console.output import is_quiet, is_verbose
from lacewing.errors import Cancelled

_SCREEN = "lacewing.chat.terminal.screen"


Opener = Callable[[Ui], Conversation]


def chat(opener: Opener, progress: Callable[[str, int, int], None]) -> int:
    """Chat until the input ends; the exit code. `progress` reports what `opener` does if there is no terminal."""
    try:
        if sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            return _on_screen(opener)
        return _in_a_pipe(opener, progress)
    except Cancelled:
        return 130  # Ctrl-C before there was anything to talk with


def _in_a_pipe(opener: Opener, progress: Callable[[str, int, int], None]) -> int:
    from lacewing.chat.terminal.plain import PlainView

    if isinstance(sys.stdin, io.TextIOWrapper) and not sys.stdin.isatty():
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    with Interrupt() as interrupt:
        session = opener(Ui(progress=progress, cancelled=interrupt))
    try:
        view = PlainView(sys.stdin, sys.stdout, sys.stderr)
        session.ui = view.ui()
        _tell(session, view)
        return Loop(session, view).run()
    finally:
        session.close()


def _on_screen(opener: Opener) -> int:
    from lacewing.chat.terminal.progress import Bars

    helper = threading.Thread(target=importlib.import_module, args=(_SCREEN,))
    helper.start()
    bars = Bars(sys.stdout)
    try:
        with Interrupt() as interrupt:
            bars.watch(interrupt)
            session = opener(Ui(progress=bars, cancelled=interrupt))
    finally:
        bars.unwatch()
        helper.join()
    try:
        from lacewing.chat.terminal.screen import open_screen

        view = open_screen(session, bars)
        session.ui = view.ui()
        if not is_quiet():
            view.note(f"{session.described()}; /help shows the commands")
        _tell(session, view)
        return Loop(session, view, PATIENCE).run()
    finally:
        session.close()


def _tell(session: Conversation, view: TerminalView) -> None:
    """What a person should know of the model, and with --verbose why it is where it is; nothing with --quiet."""
    if is_quiet():
        session.notices.clear()
        return
    if not isinstance(session, Session):
        return
    for notice in (*(session.model.plan.reasons if is_verbose() else ()), *session.model.notices):
        view.note(notice)
