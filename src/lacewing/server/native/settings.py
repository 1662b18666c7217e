"""How tokens are chosen, in llama-server's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lacewing.options import Sampling

SAMPLERS = ("penalties", "top_k", "top_p", "min_p", "temperature")  # in this order


def settings_of(sampling: Sampling, context: int) -> dict[str, Any]:
    """The `params` of a slot, and `generation_settings` of an answer."""
    limit = -1 if sampling.max_tokens is None else sampling.max_tokens
    return {
        "n_ctx": context,
        "n_predict": limit,
        "max_tokens": limit,
        "seed": -1 if sampling.seed is None else sampling.seed,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repeat_last_n": sampling.repeat_window,
        "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "stop": list(sampling.stop),
        "ignore_eos": sampling.ignore_eos,
        "n_probs": sampling.logprobs,
        "samplers": list(SAMPLERS),
    }
