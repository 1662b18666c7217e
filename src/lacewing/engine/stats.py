"""What a generation cost: counters that the chat and the command line print."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Stats:
    """Counts are tokens, times are seconds spent inside the engine (not in the consumer of the tokens)."""

    prompt_tokens: int = 0
    reused_tokens: int = 0  # of the prompt, found in the cached prefix
    generated_tokens: int = 0
    prompt_seconds: float = 0.0
    generate_seconds: float = 0.0
    first_token_seconds: float = 0.0

    @property
    def prompt_rate(self) -> float:
        """Prompt tokens/s, of those that were really run."""
        return rate(self.prompt_tokens - self.reused_tokens, self.prompt_seconds)

    @property
    def generate_rate(self) -> float:
        """Generated tokens/s; the first token belongs to the prompt."""
        return rate(max(self.generated_tokens - 1, 0), self.generate_seconds)

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "reused_tokens": self.reused_tokens,
            "generated_tokens": self.generated_tokens,
            "prompt_tokens_per_second": round(self.prompt_rate, 2),
            "generate_tokens_per_second": round(self.generate_rate, 2),
            "first_token_seconds": round(self.first_token_seconds, 4),
        }


@dataclass
class Counters:
    """What an engine has done since it was made. `runs`: of how many tokens, and how many such; times in seconds."""

    runs: Counter[int] = field(default_factory=Counter)
    run_seconds: float = 0.0
    preemptions: int = 0  # sequences that made room for others and ran again later
    faults: int = 0  # runs of several sequences that failed, after which each of them ran alone
    evictions: int = 0  # times that something held for later prompts made room


def rate(count: float, seconds: float) -> float:
    """Count a second; 0 when no time was measured."""
    return count / seconds if seconds > 0 else 0.0
