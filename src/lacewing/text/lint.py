"""What is wrong, or odd, about a chat template with a tokenizer: found by rendering a probe, and by reading its conditions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import jinja2
from jinja2 import nodes

from lacewing.errors import TemplateError
from lacewing.text.reasoning import CHANNEL
from lacewing.text.template import ChatTemplate
from lacewing.text.tokenizer import Tokenizer

_MARKUP = re.compile(r"<\|[^<>|\s]{1,40}\|>|<｜[^<>｜\s]{1,40}｜>|<(?:start|end)_of_turn>")
_USER, _ANSWER, _SYSTEM = "Probe of a question.", "Probe of an answer.", "Probe of an instruction."
_TALK = (
    {"role": "user", "content": _USER},
    {"role": "assistant", "content": _ANSWER},
    {"role": "user", "content": _USER},
)
_HARMONY_STOPS = ("<|return|>", "<|call|>")  # <|end|> ends a message, not the answer
_TYPE_TESTS = {"string", "none", "defined", "undefined", "mapping", "iterable", "sequence"}


@dataclass(frozen=True)
class Markup:
    """What a template writes. `missing`: spellings of special tokens that the vocabulary lacks, in order of appearance."""

    missing: tuple[str, ...]
    stop: str  # what follows an answer; "" where nothing does


def markup_of(template: ChatTemplate, tokenizer: Tokenizer) -> Markup:
    """Render a probe and look at what the template itself wrote. Raises TemplateError where it fails."""
    parts = template.segments(_TALK, add_generation_prompt=True)
    written = "\0".join(text for text, trusted in parts if trusted)
    control = tokenizer.control_tokens
    missing = dict.fromkeys(text for text in _MARKUP.findall(written) if text not in control and not tokenizer.has(text))
    return Markup(tuple(missing), _stop(parts, written, control))


def _stop(parts: list[tuple[str, bool]], written: str, control: dict[str, int]) -> str:
    if CHANNEL in written:
        return _HARMONY_STOPS[0]
    whole = "".join(text for text, _ in parts)
    after = whole.partition(_ANSWER)[2].partition(_USER)[0].lstrip()
    known = max((text for text in control if after.startswith(text)), key=len, default="")
    match = _MARKUP.match(after)
    return known or (match.group() if match else "")


def stops_of(template: ChatTemplate, tokenizer: Tokenizer) -> tuple[frozenset[int], tuple[str, ...]]:
    """Ids that end an answer under this template, and strings where the vocabulary has no such token."""
    try:
        markup = markup_of(template, tokenizer)
    except TemplateError:
        return tokenizer.stop_ids, ()
    wanted = _HARMONY_STOPS if markup.stop in _HARMONY_STOPS else (markup.stop,) if markup.stop else ()
    ids = tokenizer.stop_ids | {tokenizer.control_tokens[text] for text in wanted if text in tokenizer.control_tokens}
    return ids, tuple(text for text in wanted if text not in tokenizer.control_tokens)


def lint(template: ChatTemplate, tokenizer: Tokenizer) -> list[str]:
    """One line for each finding; none when all is well."""
    return [*_lint_rendering(template, tokenizer), *_lint_conditions(template.source)]


def _lint_rendering(template: ChatTemplate, tokenizer: Tokenizer) -> Iterator[str]:
    try:
        markup = markup_of(template, tokenizer)
        text = template.render(_TALK)
    except TemplateError as error:
        yield f"a plain conversation cannot be rendered: {error}"
        return
    if markup.missing:
        yield f"the vocabulary lacks {', '.join(markup.missing)}: the model reads them as plain text"
    if not markup.stop:
        yield "nothing marks the end of an answer, so that answers may not end by themselves"
    elif markup.stop not in tokenizer.control_tokens:
        yield f"the stop token {markup.stop} is missing from the vocabulary"
    bos = "" if tokenizer.bos_id is None else tokenizer.token_text(tokenizer.bos_id)
    if bos and text.startswith(bos + bos):
        yield f"it writes {bos} twice at the start; the second one is dropped"
    elif bos and tokenizer.add_bos and text.startswith(bos):
        yield f"it writes {bos}, which the tokenizer adds as well: the doubled one is dropped"
    yield from _lint_messages(template, text)


def _lint_messages(template: ChatTemplate, text: str) -> Iterator[str]:
    if text.count(_USER) < 2 or _ANSWER not in text:
        yield "it leaves messages out"
    if text == template.render(_TALK, add_generation_prompt=False) and template.name != "raw" and not text.endswith("[/INST]"):
        yield "it ignores add_generation_prompt: the model is not told that it is its turn"
    try:
        if _SYSTEM not in template.render([{"role": "system", "content": _SYSTEM}, *_TALK]):
            yield "it leaves the system message out"
    except TemplateError:
        yield "it refuses a system message"


def _lint_conditions(source: str) -> Iterator[str]:
    """Conditions on what messages say: a message can then change how the rest is rendered."""
    try:
        tree = jinja2.Environment(extensions=["jinja2.ext.loopcontrols", "jinja2.ext.do"]).parse(source)
    except (jinja2.TemplateError, RecursionError):
        return  # the rendering says so
    lines = {node.lineno for condition in _conditions(tree) for node in _contents(condition)}
    if lines:
        places = ", ".join(map(str, sorted(lines)[:8]))
        yield f"message content is used in a condition (line {places}): what a message says can change the format"


def _conditions(tree: nodes.Node) -> Iterator[nodes.Node]:
    kinds = (nodes.If, nodes.CondExpr, nodes.For)
    tests = [test for kind in kinds for node in tree.find_all(kind) if (test := getattr(node, "test", None)) is not None]
    yield from (test for test in tests if not _is_content(test))


def _contents(node: nodes.Node) -> Iterator[nodes.Node]:
    """Uses of `content`, but not its type tests nor whether there is any."""
    if isinstance(node, nodes.Test) and node.name in _TYPE_TESTS:
        return
    if isinstance(node, nodes.Not | nodes.And | nodes.Or):
        for child in node.iter_child_nodes():
            if not _is_content(child):
                yield from _contents(child)
        return
    if _is_content(node):
        yield node
    for child in node.iter_child_nodes():
        yield from _contents(child)


def _is_content(node: nodes.Node) -> bool:
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    return isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and node.arg.value == "content"
