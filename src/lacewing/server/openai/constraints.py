"""`response_format` and its relatives as grammars."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lacewing.assistant.grammar.source import Grammar
from lacewing.server.openai.errors import RequestError


class JsonSchema(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", populate_by_name=True)

    name: str | None = None
    described: dict[str, Any] | bool | None = Field(None, alias="schema")


class ResponseFormat(BaseModel):
    """As OpenAI has it, and with the schema beside the type as llama-server takes it."""

    model_config = ConfigDict(strict=True, extra="ignore", populate_by_name=True)

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    described: dict[str, Any] | bool | None = Field(None, alias="schema")

    def grammar(self) -> Grammar | None:
        """None: any text. Raises GrammarError, RequestError."""
        if self.type == "text":
            return None
        schema = self.described if self.json_schema is None else self.json_schema.described
        if schema is not None:
            return Grammar.json_schema(schema)
        if self.type == "json_schema":
            where = "response_format.json_schema.schema"
            raise RequestError(f"you must provide `{where}`", where, code="missing_required_parameter")
        return Grammar.json_object()


def grammar_of(form: ResponseFormat | None, schema: dict[str, Any] | None, grammar: str | None) -> Grammar | None:
    """Of the fields `response_format`, `json_schema` and `grammar`: one at most. Raises GrammarError, RequestError."""
    given = [name for name, value in (("response_format", form), ("json_schema", schema), ("grammar", grammar)) if value]
    if form is not None and form.type == "text":
        given.remove("response_format")
    if len(given) > 1:
        raise RequestError(f"`{given[0]}` and `{given[1]}` exclude each other", given[1], code="invalid_value")
    if grammar:
        return Grammar.of_text(grammar)
    if schema is not None:
        return Grammar.json_schema(schema)
    return None if form is None else form.grammar()
