"""The chat template of the current model, changed while it runs; the KV cache is kept as far as the prompts agree."""

from __future__ import annotations

from lacewing.assistant import templates
from lacewing.assistant.templates import MissingTokensError, check_tokens, open_template
from lacewing.chat.session.formatter import ChatFormatter, VisibleHistory
from lacewing.chat.session.overflow import fit
from lacewing.chat.session.session import Session
from lacewing.errors import Cancelled, TemplateError
from lacewing.options import counted
from lacewing.text.lint import markup_of
from lacewing.text.template import NAMES, ChatTemplate

SAMPLE = (
    {"role": "user", "content": "Hello!"},
    {"role": "assistant", "content": "Hello, how can I help?"},
    {"role": "user", "content": "Tell me a joke."},
)


def find(session: Session, choice: str) -> ChatTemplate:
    """A template by name, by path (with a dot or a separator in it), or "auto": the checkpoint's own. Raises TemplateError."""
    return open_template(choice, session.current.info, session.formatter.tokenizer)


def change_template(session: Session, choice: str, force: bool = False) -> list[str]:
    """What changed, in lines. Raises TemplateError, ContextOverflowError, Cancelled; the old template is then still there."""
    template, old, ui = find(session, choice), session.formatter, session.ui
    _check_tokens(template, session, force)
    formatter = old.with_template(template, choice)
    lines = [f"template {old.template.name} -> {template.name}", *_stops(formatter)]
    if formatter.sees(session.messages):
        waiting = session.messages[-1]["role"] == "user"
        fitted = fit(formatter, session.messages, session.settings, None, generation=waiting)
        if session.settings.overflow == "summarise" and fitted.history != old.history:
            fitted = fit(formatter, session.messages, session.settings, session.summariser(session.loaded), generation=waiting)
        lines += [*fitted.notices, _read(session, fitted.ids)]
        formatter.history = fitted.history
    if ui.cancelled():
        raise Cancelled("cancelled; nothing was changed")
    session.current.formatter = formatter
    return lines


def _read(session: Session, ids: list[int]) -> str:
    """Bring the KV cache to the new prompt: what follows the common prefix is dropped and reprocessed."""
    engine, ui = session.model.engine, session.ui
    kept = engine.held(ids)
    if not engine.prefill(ids, ui.cancelled, ui.progress):
        raise Cancelled("cancelled; nothing was changed")
    return f"{counted(len(ids), 'token')} with this template: {kept} reused, {len(ids) - kept} reprocessed"


def missing_tokens(template: ChatTemplate, session: Session) -> tuple[str, ...]:
    """Special tokens that the template writes and the vocabulary lacks. Raises TemplateError."""
    return markup_of(template, session.formatter.tokenizer).missing


def _check_tokens(template: ChatTemplate, session: Session, force: bool) -> None:
    if force:
        missing_tokens(template, session)  # it has to render
        return
    try:
        check_tokens(template, session.formatter.tokenizer)
    except MissingTokensError as error:
        raise TemplateError(f"{error} (--force sets it anyway)") from None


def _stops(formatter: ChatFormatter) -> list[str]:
    texts = [formatter.tokenizer.token_text(token) for token in sorted(formatter.format.stop_ids)]
    strings = [f"{text!r} (as text)" for text in formatter.format.stops]
    return [f"answers end at {', '.join([*texts, *strings])}"] if texts or strings else ["only its length ends an answer"]


def listing(session: Session) -> list[tuple[str, str, str]]:
    """(mark, name, findings) of the checkpoint's own template, the named ones, and a file in use."""
    active = session.formatter
    rows: list[tuple[str, str, str]] = []
    for choice, template, findings in templates.listing(session.current.info, active.tokenizer, active.choice):
        # a checkpoint without a template uses a named one
        mine = choice == active.choice and not (template is None and choice == "auto")
        name = f"auto ({template.name})" if template is not None and choice == "auto" else choice
        mine |= template_is(active.template, choice)
        rows.append(("*" if mine and not any(row[0] for row in rows) else "", name, findings or "fine"))
    return rows


def template_is(template: ChatTemplate, choice: str) -> bool:
    return choice in NAMES and template.name == choice


def renderings(session: Session, choice: str) -> tuple[str, str]:
    """The conversation under the active template and under another; a sample if there is no message yet."""
    formatter = session.formatter
    other = formatter.with_template(find(session, choice), choice)
    messages, history = session.messages, formatter.history
    if not formatter.sees(messages):
        messages, history = [dict(each) for each in SAMPLE], VisibleHistory()
    return formatter.text(messages, session.settings, history), other.text(messages, session.settings, history)
