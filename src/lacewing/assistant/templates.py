"""The chat templates that a model can have: its checkpoint's own, ours by name, a person's files."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lacewing.errors import TemplateError
from lacewing.text.lint import lint, markup_of
from lacewing.text.template import NAMES, ChatTemplate

if TYPE_CHECKING:
    from lacewing.placement.info import ModelInfo
    from lacewing.text.tokenizer import Tokenizer

AUTO = "auto"  # the checkpoint's own


def open_template(choice: str, info: ModelInfo, tokenizer: Tokenizer, *, files: bool = True) -> ChatTemplate:
    """A template by name, by path (with a dot or a separator in it; unless `files` is False), or "auto".

    A name of one of the checkpoint's own comes first. Raises TemplateError.
    """
    if choice == AUTO:
        return info.template.result()
    own = variants(info)
    if choice in own:
        return own[choice]
    if files and (choice.lower().endswith((".jinja", ".jinja2", ".j2", ".txt")) or "/" in choice or "\\" in choice):
        return ChatTemplate.from_file(choice, tokenizer)
    return ChatTemplate.named(choice, tokenizer)


def variants(info: ModelInfo) -> dict[str, ChatTemplate]:
    """The checkpoint's own templates by name, such as "tool_use"."""
    try:
        return info.template.result().variants
    except TemplateError:
        return {}


class MissingTokensError(TemplateError):
    """A template writes special tokens that the vocabulary lacks."""


def check_tokens(template: ChatTemplate, tokenizer: Tokenizer) -> None:
    """Raises MissingTokensError, and TemplateError for a template that fails."""
    missing = markup_of(template, tokenizer).missing
    if missing:
        raise MissingTokensError(
            f"the vocabulary of this model lacks {', '.join(missing)}, which the template {template.name} writes: the model would "
            "read them as plain text"
        )


class Listed(NamedTuple):
    """A template that a person can choose. `template` None: it cannot be used, for the reason in `findings`."""

    choice: str
    template: ChatTemplate | None
    findings: str


def listing(info: ModelInfo, tokenizer: Tokenizer, active: str = AUTO) -> list[Listed]:
    """The checkpoint's own templates, the named ones, and the `active` choice if it is another, with what is odd about each."""
    known = [AUTO, *(name for name in variants(info) if name != "default"), *NAMES]
    if active not in known and active.lower() not in known:
        known.append(active)
    rows = []
    for choice in known:
        try:
            template = open_template(choice, info, tokenizer)
            rows.append(Listed(choice, template, "; ".join(lint(template, tokenizer))))
        except TemplateError as error:
            rows.append(Listed(choice, None, str(error)))
    return rows
