"""What a caller chooses for an answer beside how its tokens are chosen. Frozen, checked when made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lacewing.errors import OptionError
from lacewing.options import shown_value

EFFORTS = ("none", "minimal", "low", "medium", "high")


@dataclass(frozen=True)
class ChatOptions:
    """How a conversation is answered.

    `tools`: definitions as OpenAI's API takes them. `tool_choice`: "auto", "none", "required", or the name of a tool.
    `constraint` makes what the answer must follow (`engine.constraint`), for each answer anew.
    `reasoning_effort`: one of EFFORTS, passed on as the variables that the template knows. `reasoning_budget`: tokens of thoughts,
    after which the answer itself is begun. `template_arguments`: other variables of the template, such as enable_thinking.
    `continue_final`: the last message is the assistant's, and the answer goes on where it ends.
    """

    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True
    constraint: Callable[[], Any] | None = None
    reasoning_effort: str | None = None
    reasoning_budget: int | None = None
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    continue_final: bool = False

    def __post_init__(self) -> None:
        if self.reasoning_effort is not None and self.reasoning_effort not in EFFORTS:
            raise OptionError(f"`reasoning_effort` is {shown_value(self.reasoning_effort)}; it must be one of {', '.join(EFFORTS)}")
        budget = self.reasoning_budget
        if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int) or not 0 <= budget <= 2**31):
            raise OptionError(f"`reasoning_budget` is {shown_value(budget)}; it must be an integer from 0 to {2**31}")
