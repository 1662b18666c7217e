"""litellm's provider for compatible servers: it rewrites what goes through it, and knows errors by their words."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest

PROMPT = [{"role": "user", "content": "Write about the sea."}]
CITY = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"], "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": CITY}}]


class Cat(pydantic.BaseModel):
    name: str
    kind: str


@pytest.fixture(scope="module")
def litellm():
    """The module, without its look at the network."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        import litellm

        patch.setenv(
            "TIKTOKEN_CACHE_DIR", str(Path(litellm.__file__).parent / "litellm_core_utils" / "tokenizers")
        )  # as it does itself
        litellm.suppress_debug_info = True
        yield litellm


@pytest.fixture
def ask(litellm, address, name):
    def ask(**more: Any) -> Any:
        given = {"model": f"openai/{name}", "api_base": f"{address}/v1", "api_key": "none", "max_retries": 0, "messages": PROMPT}
        return litellm.completion(**{**given, "temperature": 0, "max_tokens": 24, **more})

    return ask


pytestmark = pytest.mark.filterwarnings("ignore")  # it leaves sockets and loops behind


def test_answers(litellm, ask, model):
    text = "".join(model.chat(PROMPT, temperature=0, max_tokens=24))
    whole = ask()
    assert whole.choices[0].message.content == text and whole.choices[0].finish_reason == "length"
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 24
    assert litellm.stream_chunk_builder(chunks, messages=PROMPT).choices[0].message.content == text


@pytest.mark.parametrize("stream", [False, True])
def test_calls(litellm, ask, stream):
    found = ask(tools=TOOLS, tool_choice="required", parallel_tool_calls=False, max_tokens=80, stream=stream)
    found = litellm.stream_chunk_builder(list(found), messages=PROMPT) if stream else found
    (call,) = found.choices[0].message.tool_calls
    assert found.choices[0].finish_reason == "tool_calls" and call.id and call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Rome", "Oslo")


def test_an_object(ask):
    assert Cat.model_validate_json(ask(response_format=Cat, max_tokens=120).choices[0].message.content)


def test_vectors_and_texts(litellm, address, name, model):
    given = {"api_base": f"{address}/v1", "api_key": "none"}
    found = litellm.embedding(model=f"openai/{name}", input=["The sky is blue."], **given)
    assert np.array_equal(np.float32(found.data[0]["embedding"]), model.embed("The sky is blue."))
    found = litellm.text_completion(
        model=f"text-completion-openai/{name}", prompt="Once upon", temperature=0, max_tokens=8, **given
    )
    assert found.choices[0].text == model.generate("Once upon", temperature=0, max_tokens=8)


def test_errors(litellm, ask):
    with pytest.raises(litellm.BadRequestError, match="temperature"):
        ask(temperature=9)
    with pytest.raises(litellm.NotFoundError, match="no model"):
        ask(model="openai/other")
    with pytest.raises(litellm.ContextWindowExceededError):
        ask(messages=[{"role": "user", "content": "word " * 9000}])
