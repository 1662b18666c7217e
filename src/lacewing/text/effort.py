"""How hard a model is told to think: the variables of its template that say so, which families name and spell differently."""

from __future__ import annotations

from typing import Any

import jinja2
from jinja2 import meta, nodes

from lacewing.errors import TemplateError
from lacewing.text.reasoning import EFFORTS
from lacewing.text.template import ChatTemplate

_ALL = (*EFFORTS, "xhigh", "max")  # the last two are spellings of templates only
_SWITCHES = ("enable_thinking", "thinking")  # on or off
_LEVEL = "reasoning_effort"
_BUDGET = "thinking_budget"  # tokens; Seed-OSS


class EffortVariables:
    """What a template reads of `EFFORTS`. Parsing takes some milliseconds, so one is kept for each template."""

    def __init__(self, template: ChatTemplate):
        self._read: set[str] = set()
        self._levels: list[str] = []
        for each in (template, *template.variants.values()):
            try:
                tree = each.parse()
                self._levels += [level for level in _compared(tree) if level in _ALL]
                self._read |= meta.find_undeclared_variables(tree)  # last: it changes the tree
            except (jinja2.TemplateError, TemplateError, RecursionError):
                continue  # rendering says what is wrong

    @property
    def can_be_off(self) -> bool:
        """Whether the template has a way to ask for no thoughts."""
        return bool(self._read & {*_SWITCHES, _BUDGET}) or "none" in self._levels

    def of(self, effort: str) -> dict[str, Any]:
        """The variables for one of `EFFORTS`."""
        on = effort != "none"
        given: dict[str, Any] = {**dict.fromkeys(_SWITCHES, on), _LEVEL: self._level(effort)}
        return given if on or _BUDGET not in self._read else {**given, _BUDGET: 0}

    def _level(self, effort: str) -> str:
        """As the template spells it: the nearest of those that it compares with, or the lower of two.

        A template that only writes it down is for models that know low, medium and high, as gpt-oss.
        """
        known = [level for level in dict.fromkeys(self._levels) if level != "none" or effort == "none"]
        if effort in known:
            return effort
        if len(known) < 2 and "none" not in self._levels:
            return effort if effort in ("low", "medium", "high") else "low"
        place = _ALL.index(effort)
        return min(known, key=lambda level: (abs(_ALL.index(level) - place), _ALL.index(level)), default=effort)


def _compared(tree: nodes.Template) -> list[str]:
    """Constants that the level is compared with."""
    found: list[str] = []
    for compare in tree.find_all(nodes.Compare):
        if any(name.name == _LEVEL for name in compare.find_all(nodes.Name)):
            found += [const.value for const in compare.find_all(nodes.Const) if isinstance(const.value, str)]
    return found
