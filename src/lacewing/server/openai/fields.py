"""Fields of requests beside those that are taken: what is ignored, and what is refused because an answer would be another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lacewing.server.openai.errors import RequestError


class Refused(NamedTuple):
    """`neutral`: values that change nothing, and are accepted; null is always one."""

    neutral: tuple[Any, ...]
    reason: str


# Nothing of an answer depends on them here. Fields that nobody knows are ignored as well, as llama-server does.
IGNORED: Mapping[str, str] = {
    "user": "names an end user for OpenAI's abuse detection",
    "safety_identifier": "likewise",
    "metadata": "is kept with an answer that OpenAI stores",
    "service_tier": "there is one tier",
    "prompt_cache_key": "the prefix cache finds prompts by their tokens",
    "prompt_cache_retention": "the prefix cache keeps what was used last",
    "prediction": "an answer is the same without predicted output",
    "verbosity": "a hint for OpenAI's models",
    "web_search_options": "there is no search; the model is not told of one",
    "cache_prompt": "prompts are always cached",
    "id_slot": "any row of the batch gives the same answer",
    "n_keep": "contexts are never shifted",
    "n_discard": "likewise",
    "n_cache_reuse": "prefixes are shared token by token",
    "return_progress": "comments in the stream tell that a prompt is being read",
    "truncate": "prompts that are too long are refused",
    "keep_alive": "the server decides how long a model stays",
}
_SAMPLER = "this sampler is not supported"
REFUSED: Mapping[str, Refused] = {
    "add_generation_prompt": Refused((True,), "an answer is always begun, or the last message continued"),
    "audio": Refused((), "answers are text"),
    "functions": Refused(([],), "use `tools`"),
    "function_call": Refused(("none", "auto"), "use `tool_choice`"),
    "store": Refused((False,), "answers are not stored"),
    "modalities": Refused((["text"], []), "answers are text"),
    "typical_p": Refused((1,), _SAMPLER),
    "tfs_z": Refused((1,), _SAMPLER),
    "mirostat": Refused((0,), _SAMPLER),
    "dynatemp_range": Refused((0,), _SAMPLER),
    "xtc_probability": Refused((0,), _SAMPLER),
    "dry_multiplier": Refused((0,), _SAMPLER),
    "top_n_sigma": Refused((-1, 0), _SAMPLER),
    "adaptive_target": Refused((-1,), _SAMPLER),
    "lora": Refused(([],), "adapters are chosen when the server starts"),
    "post_sampling_probs": Refused((False,), "log-probabilities are those of the raw softmax"),
    "min_tokens": Refused((0,), "use `ignore_eos` or `logit_bias`"),
    "length_penalty": Refused((1,), "there is no beam search"),
    "use_beam_search": Refused((False,), "there is no beam search"),
}


def check_refused(given: Mapping[str, Any] | None, also: Mapping[str, Refused] = REFUSED) -> None:
    """Raises RequestError for a field of `given` that would be without effect though it asks for one."""
    for name, value in (given or {}).items():
        row = also.get(name)
        if row is not None and value is not None and not any(_same(value, each) for each in row.neutral):
            raise RequestError(f"`{name}` is not supported here: {row.reason}", name, code="unsupported_parameter")


def _same(value: Any, neutral: Any) -> bool:
    """Equal, and no boolean that is equal to a number."""
    return isinstance(value, bool) == isinstance(neutral, bool) and bool(value == neutral)
