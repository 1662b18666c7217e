"""Which format of tool calls a model has: by its template's text, else by its vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lacewing.assistant.tools.formats import deepseek, dsml, glm, harmony, hermes, kimi, llama, mistral, qwen_coder

if TYPE_CHECKING:
    from lacewing.assistant.tools.format import Format
    from lacewing.text.tokenizer import Tokenizer

# The first that fits: those of which another is a part stand before it.
FORMATS: tuple[Format, ...] = (
    harmony.FORMAT,
    kimi.FORMAT,
    dsml.FORMAT,
    dsml.FORMAT_V4,
    deepseek.FENCED,
    deepseek.FORMAT,
    mistral.WITH_ID,
    mistral.NAMED,
    mistral.LISTED,
    glm.FORMAT,
    qwen_coder.FORMAT,
    hermes.FORMAT,
    llama.FORMAT,
)
DEFAULT = hermes.FORMAT  # which a model without one is told to write


def by_template(source: str) -> Format | None:
    """The format that a chat template writes calls in; None if it writes none."""
    return next((each for each in FORMATS if all(text in source for text in each.spelt)), None)


def by_vocabulary(tokenizer: Tokenizer) -> Format | None:
    """The format whose marks are tokens of their own."""
    return next((each for each in FORMATS if each.tokens and all(map(tokenizer.has, each.tokens))), None)
