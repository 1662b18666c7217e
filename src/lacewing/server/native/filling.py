"""Prompts of models that fill in the middle of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lacewing.server.openai.errors import RequestError
from lacewing.text.fill import FillMarks, fill_marks

if TYPE_CHECKING:
    from lacewing.api import Model


def marks_of(model: Model, status: int = 400) -> FillMarks:
    """Raises RequestError with this status for a model that was not trained for it."""
    marks = fill_marks(model.info.checkpoint.metadata, model.tokenizer)
    if marks is None:
        message = f"{model.spec.name!r} does not support insert: it has no tokens for prefix, suffix and middle"
        raise RequestError(message, "suffix", status=status, code="unsupported_parameter")
    return marks


def filled(model: Model, prefix: str, suffix: str, middle: str = "", extra: Sequence[tuple[str, str]] = ()) -> list[int]:
    """Ids of a text whose middle is to come, which may have begun. `extra`: names and texts of other files of the project.

    Texts of users are never control tokens. Raises RequestError.
    """
    marks, tokenizer = marks_of(model), model.tokenizer
    text = tokenizer.encode
    ids = [] if not tokenizer.add_bos or tokenizer.bos_id is None else [tokenizer.bos_id]
    if extra and marks.file is not None:
        if marks.repository is not None:
            ids += [marks.repository, *text("project\n")]
        for name, content in extra:
            ids += [marks.file, *text(f"{name}\n{content}\n")]
        ids += [marks.file, *text("filename\n")]
    else:
        ids += text("".join(f"{content}\n" for _, content in extra)) if extra else []
    return [*ids, marks.prefix, *text(prefix), marks.suffix, *text(suffix), marks.middle, *text(middle)]
