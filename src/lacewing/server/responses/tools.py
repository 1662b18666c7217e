"""Tools of a request: functions, and custom ones, which take a text instead of an object."""

from __future__ import annotations

from typing import Any, Literal

from lacewing.server.openai.errors import RequestError
from lacewing.server.openai.messages import Given

FUNCTION, CUSTOM, ALLOWED = "function", "custom", "allowed_tools"
INPUT = "input"  # the one parameter of a custom tool, as the model sees it
_SCHEMA = {"type": "object", "properties": {INPUT: {"type": "string"}}, "required": [INPUT], "additionalProperties": False}


class InputFormat(Given):
    """What a custom tool takes."""

    type: Literal["text", "grammar"]
    syntax: Literal["lark", "regex"] | None = None
    definition: str | None = None


class ToolDefinition(Given):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    format: InputFormat | None = None

    @property
    def told(self) -> dict[str, Any]:
        """As the response shows it."""
        named = {"type": self.type, "name": self.name, "description": self.description}
        if self.type == CUSTOM:
            return {**named, "format": {"type": "text"} if self.format is None else self.format.model_dump(exclude_none=True)}
        return {**named, "parameters": self.parameters or {}, "strict": bool(self.strict)}

    def definition(self, where: str) -> dict[str, Any]:
        """As the assistant takes it. Raises RequestError for a tool that OpenAI's servers run."""
        if self.type not in (FUNCTION, CUSTOM):
            hint = '; in Codex: web_search = "disabled"' if self.type.startswith("web_search") else ""
            message = f"`{where}` is {self.type[:40]!r}: this server runs no tools; it takes those of the types function and custom"
            raise RequestError(f"{message}{hint}", f"{where}.type", code="unsupported_tool")
        if self.name is None:
            raise RequestError(f"you must provide `{where}.name`", f"{where}.name", code="missing_required_parameter")
        function: dict[str, Any] = {"name": self.name, "description": self.description, "parameters": self.parameters}
        function["strict"] = self.strict
        if self.type == CUSTOM:
            function |= {"description": self._described(), "parameters": _SCHEMA, "strict": None}
        return {"type": FUNCTION, "function": {name: value for name, value in function.items() if value is not None}}

    def _described(self) -> str | None:
        """With the grammar that its input follows."""
        form = self.format
        if form is None or not form.definition:
            return self.description
        return f"{self.description or ''}\n\n`{INPUT}` must follow this {form.syntax or ''} grammar:\n{form.definition}".lstrip()


class ChosenTool(Given):
    type: str
    name: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[dict[str, Any]] | None = None

    def among(self, definitions: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
        """In the assistant's words, and the tools that may be called. Raises RequestError."""
        if self.type == ALLOWED:
            names = [each.get("name") for each in self.tools or ()]
            return self.mode or "auto", [each for each in definitions if each["function"]["name"] in names]
        if self.type not in (FUNCTION, CUSTOM):
            message = (
                f"`tool_choice` is {self.type[:40]!r}: this server runs no tools; it takes those of the types function and custom"
            )
            raise RequestError(message, "tool_choice.type", code="unsupported_tool")
        if not self.name:
            raise RequestError("you must provide `tool_choice.name`", "tool_choice.name", code="missing_required_parameter")
        return self.name, definitions
