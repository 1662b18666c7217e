"""What clients are told about a body that is wrong."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from lacewing.server.openai import errors
from lacewing.server.openai.chat import ChatBody
from lacewing.server.responses.types import ResponseBody


def told(body: type[BaseModel], **fields: object) -> tuple[str | None, str]:
    with pytest.raises(ValidationError) as caught:
        body.model_validate({"model": "m", **fields})
    error = errors.of_validation(caught.value)
    return error.param, str(error)


@pytest.mark.parametrize(
    ("value", "place", "text"),
    [
        ([{"role": "wizard", "content": "a"}], "input[0].role", "Input should be 'user', 'assistant'"),
        ([{"role": "user", "content": "a"}] * 100_000, "input", "List should have at most"),
        ([{"role": "user", "content": 5}], "input[0].content", "a valid string or a valid list"),
        (5, "input", "Input should be a valid string or a valid list"),
    ],
)
def test_a_field_of_several_types_is_judged_by_the_closest(value, place, text):
    param, message = told(ResponseBody, input=value)
    assert param == place and text in message


def test_the_first_fault_comes_first():
    param, _ = told(ResponseBody, instructions=5, input=[{"role": "wizard", "content": "a"}])
    assert param == "input[0].role"
    messages = [{"role": "user", "content": 5}, {"role": "user", "content": [{"type": "text", "text": 5}]}]
    assert told(ChatBody, messages=messages)[0] == "messages[0].content"
