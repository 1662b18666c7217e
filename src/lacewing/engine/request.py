"""What somebody asks of an engine, and how far it is answered."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lacewing.backends.batch import Wanted
from lacewing.engine.collect import collector_of
from lacewing.engine.constraint import Constraint, Masks
from lacewing.engine.sampling import Sampler, Token
from lacewing.engine.sequence import Sequence as State
from lacewing.engine.stats import Stats
from lacewing.options import Progress, Sampling
from lacewing.program.states import PAGE

Cancelled = Callable[[], bool]
APART = 8192  # positions between two resume points where nothing marks another
_UNFETCHED = 8  # tokens
_PAUSE = 0.05  # seconds
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Request:
    """Tokens after the prompt `ids`. A stop id ends them and is not among them.

    `cancelled` is asked between runs and, by another thread, while a long one is under way; `progress` is told prompt tokens done
    and in all. `marks`: lengths of prefixes of `ids` that other prompts will share, such as the end of the system message.
    `prompt_logprobs`: so many likeliest alternatives are told with each token of the prompt (`Stream.prompt`); 0: not told.
    `responsive`: its caller may leave, and others may come, at any time, so runs of prompts alone stay short.
    `pooling`, one of `collect.POOLINGS`: hidden states of the prompt are wanted (`Stream.hidden`), and no answer.
    `constraint`: what the answer must obey; a new one for each request, since it follows the tokens.
    """

    ids: Sequence[int]
    sampling: Sampling
    stop_ids: frozenset[int] = frozenset()
    cancelled: Cancelled | None = None
    progress: Progress | None = None
    marks: Sequence[int] = ()
    prompt_logprobs: int = 0
    pooling: str | None = None
    responsive: bool = False
    constraint: Constraint | None = None


class Task:
    """A request on its way. `history`: the prompt and all that was generated; `sequence`: what has been run of it, while it is in
    a row of the step. `background`: it runs whenever anybody makes the engine go on, however few of its tokens are fetched."""

    def __init__(self, request: Request, vocab_size: int):
        self.request = request
        self.number = next(_NUMBERS)
        self.history = list(request.ids)
        self.sampler = Sampler(request.sampling, vocab_size)
        self.masks = None if request.constraint is None else Masks(request.constraint, vocab_size)
        self.collector = collector_of(self.history.copy(), request.prompt_logprobs, request.pooling)
        self.stats = Stats(prompt_tokens=len(self.history))
        self.sequence: State | None = None
        self.tokens: deque[Token] = deque()  # generated, and not fetched yet
        self.submitted = self.admitted = self.background = False
        self.waiting = self.abandoned = False  # somebody waits for a token; nobody ever will
        self.leaving = "cancelled"  # the reason once it is abandoned
        self.after: Task | None = None  # whose prompt is read first, because this one begins with it
        self.left_at = 0.0  # when somebody last fetched a token, or stopped waiting for one
        self.plain = False  # the device is not to choose its next token ahead of the host
        self.suspect = False  # it took part in a run that failed, and runs alone next
        self.token_seconds = 0.0  # what a token of its prompt took of late; 0: not known
        self.learns = False  # its prompt was so long that it tells what its answer will want of the step
        self.done = False
        self.reason: str | None = None
        self.error: Exception | None = None
        ends = (*request.marks, len(self.history) - 1)  # the last id always runs
        self.borders = sorted({end // PAGE * PAGE for end in ends if PAGE <= end < len(self.history)})

    @property
    def decodes(self) -> bool:
        """Whether only the token that was chosen last has not been run yet."""
        return self.sequence is not None and self.stats.generated_tokens > 0 and len(self.history) - len(self.sequence.ids) == 1

    @property
    def steady(self) -> bool:
        """Whether its next tokens are chosen from whole rows one by one, whatever its caller does, until it ends."""
        simple = self.background and self.masks is None and self.collector is None and self.request.cancelled is None
        return simple and self.decodes and not (self.suspect or self.learns)

    def wanted(self) -> tuple[Wanted, ...]:
        """What the choice of its next token looks at; (): at whole rows of logits."""
        return self.sampler.wanted(self.history, None if self.masks is None else self.masks.get)

    @property
    def answers(self) -> bool:
        """Whether a token is wanted after the prompt."""
        return self.collector is None or not self.collector.reads_hidden

    @property
    def reusable(self) -> int:
        """How many of its ids need not be run if what they leave behind is held: the last one always is."""
        most, needed = len(self.history) - 1, None if self.collector is None else self.collector.reusable
        return most if needed is None else min(most, needed)

    @property
    def left_of_prompt(self) -> int:
        """Ids that have not been run."""
        return len(self.history) - (len(self.sequence.ids) if self.sequence is not None else 0)

    @property
    def wants(self) -> bool:
        """Whether it is to go on: nobody generates long for somebody who does not fetch it."""
        return self.background or len(self.tokens) < _UNFETCHED

    def waits(self, now: float) -> bool:
        """Whether another one reads what this one begins with."""
        after = self.after
        if after is None or after.done or after.stats.generated_tokens or not after.wants or after.idle(now):
            self.after = None
        return self.after is not None

    def ready(self, now: float) -> bool:
        """Whether the next run is to carry something of it."""
        return self.background or (self.wants and not self.idle(now))

    def idle(self, now: float) -> bool:
        """Whether somebody has taken a token and gone away."""
        return not (self.background or self.waiting) and now - self.left_at > _PAUSE

    def left(self, context: int) -> int:
        """Tokens that may still be generated."""
        room, limit = context - len(self.history) + 1, self.request.sampling.max_tokens
        return room if limit is None else min(room, limit - self.stats.generated_tokens)

    def next_border(self, after: int) -> int:
        """The next position behind `after` at which there is to be a resume point."""
        regular = (after // APART + 1) * APART
        return next((border for border in self.borders if after < border < regular), regular)
