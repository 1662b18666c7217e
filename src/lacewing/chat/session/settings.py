"""What a person has set in a session, beside the model and its template."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lacewing.assistant.options import ChatOptions
from lacewing.errors import OptionError
from lacewing.options import CPU, Sampling

POLICIES = ("stop", "drop-oldest", "summarise")
CPU_OPTIONS: dict[str, Any] = {"backend": CPU, "adapter": None, "gpu_layers": None, "gpu_memory_bytes": None}  # of LoadOptions
EDIT_INSTRUCTIONS = """When you change files, answer with SEARCH/REPLACE blocks and nothing else for the changes. Each block is:

path/to/file
<<<<<<< SEARCH
the lines to change, exactly as they are in the file, enough of them to be unique
=======
the new lines
>>>>>>> REPLACE

Paths are relative to the working directory. An empty SEARCH part makes a new file."""

Message = dict[str, Any]  # "role", "content", and of answers "reasoning"


@dataclass(frozen=True)
class SavedAs:
    """Where a conversation was saved or loaded from, what the file was then (`revision`), and the messages that it has."""

    path: Path
    revision: str
    messages: list[Message]


@dataclass(frozen=True)
class Settings:
    """`thinking`: whether the model is to think before it answers, and `effort` how hard; if it is None, the template decides.
    `thinking_budget`: tokens of thoughts, after which the answer begins. `overflow`: the policy for a full context.

    `plain`: answers are shown as they are written, without Markdown.
    """

    sampling: Sampling = field(default_factory=Sampling)
    system: str | None = None
    thinking: bool | None = None
    effort: str = "high"
    thinking_budget: int | None = None
    show_reasoning: bool = True
    overflow: str = "stop"
    code: bool = False
    plain: bool = False

    def __post_init__(self) -> None:
        self.chat_options()
        if self.overflow not in POLICIES:
            raise OptionError(f"the overflow policy is {self.overflow!r}; it must be one of {', '.join(POLICIES)}")

    def chat_options(self) -> ChatOptions:
        """What of them is for the assistant. Raises OptionError."""
        effort = None if self.thinking is None else self.effort if self.thinking else "none"
        return ChatOptions(reasoning_effort=effort, reasoning_budget=self.thinking_budget)

    def with_sampling(self, **changes: Any) -> Settings:
        """Raises OptionError for values out of range."""
        return dataclasses.replace(self, sampling=dataclasses.replace(self.sampling, **changes))

    def reserve(self, context: int) -> int:
        """Tokens kept free for an answer."""
        limit = self.sampling.max_tokens
        return max(1, min(512 if limit is None else limit, context // 4))
