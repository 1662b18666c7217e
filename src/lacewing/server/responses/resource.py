"""The response as clients see it: an object that grows from "queued" to "completed"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lacewing.errors import ContextOverflowError, LacewingError
from lacewing.server.openai import errors
from lacewing.server.openai.types import new_id, now
from lacewing.server.responses.items import CALL, CUSTOM_CALL, MESSAGE, PREFIXES, REASONING, kind_of

if TYPE_CHECKING:
    from lacewing.server.feed import Choice
    from lacewing.server.responses.types import ResponseBody

QUEUED, RUNNING, COMPLETED, INCOMPLETE = "queued", "in_progress", "completed", "incomplete"
FAILED, CANCELLED = "failed", "cancelled"
_CODES = {429: "rate_limit_exceeded"}


def begun(body: ResponseBody, stored: bool) -> dict[str, Any]:
    """A response to which nothing has come yet. `stored`: whether it is going to be kept."""
    sampling, chosen = body.sampling, body.tool_choice
    text, reasoning = body.text, body.reasoning
    conversation = body.conversation_id
    return {
        "id": new_id("resp_") + new_id("")[:8],
        "object": "response",
        "created_at": now(),
        "completed_at": None,
        "status": QUEUED if body.background else RUNNING,
        "background": bool(body.background),
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "conversation": None if conversation is None else {"id": conversation},
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "model": body.model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": _given(body, "prompt_cache_key"),
        "reasoning": {"effort": None if reasoning is None else reasoning.effort, "summary": body.summary},
        "safety_identifier": _given(body, "safety_identifier"),
        "service_tier": "default",
        "store": stored,
        "temperature": sampling.temperature,
        "text": {
            "format": text.format.told if text is not None and text.format is not None else {"type": "text"},
            "verbosity": "medium" if text is None or text.verbosity is None else text.verbosity,
        },
        "tool_choice": "auto" if chosen is None else chosen if isinstance(chosen, str) else chosen.model_dump(exclude_none=True),
        "tools": [tool.told for tool in body.tools or ()],
        "top_logprobs": body.top or 0,
        "top_p": sampling.top_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "truncation": body.truncation or "disabled",
        "usage": None,
        "metadata": body.metadata or {},
    }


def _given(body: ResponseBody, name: str) -> str | None:
    """A field that is only told again."""
    value = (body.model_extra or {}).get(name)
    return value if isinstance(value, str) else None


def usage(choice: Choice) -> dict[str, Any]:
    """What it cost; cached are the tokens of the prompt that were found in the prefix cache."""
    stats = choice.stats
    prompt, read, generated = (0, 0, 0) if stats is None else (stats.prompt_tokens, stats.reused_tokens, stats.generated_tokens)
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": read, "cache_write_tokens": 0},
        "output_tokens": generated,
        "output_tokens_details": {"reasoning_tokens": choice.reasoning_tokens},
        "total_tokens": prompt + generated,
    }


def error_of(error: BaseException) -> dict[str, Any]:
    """Why a response failed: in the words of OpenAI, and for what no word of theirs fits in ours."""
    status, told = errors.status_of(error), errors.body_of(error)["error"]
    code = _CODES.get(status, "server_error")
    if isinstance(error, ContextOverflowError):
        code = "context_length_exceeded"  # Codex shortens its conversation then
    elif isinstance(error, LacewingError) and status < 500 and code == "server_error":
        code = "invalid_prompt"
    return {"code": code, "message": told["message"]}


def message() -> dict[str, Any]:
    """An item of text that begins."""
    return {"id": new_id(PREFIXES[MESSAGE]), "type": MESSAGE, "role": "assistant", "status": RUNNING, "content": []}


def call(id: str, name: str, custom: bool) -> dict[str, Any]:
    """An item of a call that begins."""
    kind, field = (CUSTOM_CALL, "input") if custom else (CALL, "arguments")
    return {"id": new_id(PREFIXES[kind]), "type": kind, "call_id": id, "name": name, field: "", "status": RUNNING}


def reasoning() -> dict[str, Any]:
    """An item of thoughts that begins."""
    return {"id": new_id(PREFIXES[REASONING]), "type": REASONING, "summary": [], "status": RUNNING}


def text_part(text: str = "", logprobs: list[Any] | None = None) -> dict[str, Any]:
    """The content of an item of text."""
    return kind_of("output_text", text, logprobs or ())
