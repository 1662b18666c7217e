"""Chat templates: messages to a prompt, as text or as token ids in which nothing that a user wrote is a control token."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

import jinja2
import jinja2.nodes

from lacewing.errors import TemplateError
from lacewing.formats.checkpoint import Checkpoint
from lacewing.formats.files import read_named
from lacewing.text.budget import Budget, spending
from lacewing.text.filters import Refusal
from lacewing.text.messages import Message, calls_tools, for_template, length
from lacewing.text.provenance import as_text, from_user, join
from lacewing.text.sandbox import Sandbox
from lacewing.text.tokenizer import Tokenizer

MAX_SOURCE = 256 << 10
MAX_OUTPUT = 16 << 20
SECONDS = 1.0
NAMES = ("mistral", "llama2", "llama3", "phi3", "gemma", "chatml", "deepseek", "gpt-oss", "raw")
_ALIASES = {"qwen": "chatml", "qwen2": "chatml", "qwen3": "chatml", "mixtral": "mistral", "llama-2": "llama2", "llama-3": "llama3"}
_ALIASES |= {"phi-3": "phi3", "gemma2": "gemma", "gemma3": "gemma", "harmony": "gpt-oss"}

# A checkpoint without a template: the first row whose tokens its vocabulary all has.
_BY_TOKENS = (
    ("chatml", ("<|im_start|>", "<|im_end|>")),
    ("llama3", ("<|start_header_id|>", "<|eot_id|>")),
    ("gemma", ("<start_of_turn>", "<end_of_turn>")),
    ("phi3", ("<|user|>", "<|assistant|>", "<|end|>")),
    ("deepseek", ("<｜User｜>", "<｜Assistant｜>")),
    ("gpt-oss", ("<|start|>", "<|message|>", "<|channel|>")),
    ("mistral", ("[INST]", "[/INST]")),
)
_BY_NAME = (("mistral", ("mistral", "mixtral")), ("llama2", ("llama-2", "llama 2", "llama2", "codellama")))
_TUNED = re.compile(r"(?i)(?<![a-z])(instruct|chat|it|assistant)(?![a-z])")  # in a model's name: trained to answer
_KEY = "tokenizer.chat_template"
# In a source: of `{"type": "text", "text": ...}`.
_READS_PARTS = re.compile(r"\.text\b|\[\s*['\"]text['\"]\s*\]|\bget\(\s*['\"]text['\"]")
_OWN_LIST = re.compile(r"\bnamespace\(\w{1,40} ?= ?\[\]")  # in linear time, as sources are anybody's
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_PROBE = "Does this reach the model?"


class ChatTemplate:
    """A chat template in Jinja, rendered in a sandbox with limits of time and size; see `sandbox.py`.

    `name` says where it comes from: "checkpoint", "checkpoint:tool_use", or the name of one of ours.
    `mutable` lets the template change lists, those of its own copy of the messages too; None: if it appends to a list in a
    namespace, as Kimi's does, which queues the ids of calls.
    """

    def __init__(
        self,
        source: str,
        name: str,
        bos_text: str = "",
        eos_text: str = "",
        *,
        variables: Mapping[str, str] | None = None,
        mutable: bool | None = None,
        seconds: float = SECONDS,
        now: Callable[[], datetime] = datetime.now,
    ):
        if len(source) > MAX_SOURCE:
            raise TemplateError(f"chat template {name!r} has {len(source)} characters; at most {MAX_SOURCE} are accepted")
        self.source, self.name = source, name
        self._variables = {"bos_token": bos_text, "eos_token": eos_text, **(variables or {})}
        self._mutable = (".append(" in source and bool(_OWN_LIST.search(source))) if mutable is None else mutable
        self._seconds, self._now = seconds, now
        self.variants: dict[str, ChatTemplate] = {}  # all of the same checkpoint, by name
        self.notice = ""  # what a person should know about it

    @classmethod
    def named(cls, name: str, tokenizer: Tokenizer | None = None) -> ChatTemplate:
        """One of our own templates: see `NAMES`; "qwen" is "chatml". With the tokenizer's BOS and EOS, where given."""
        name = _ALIASES.get(name.lower(), name.lower())
        if name not in NAMES:
            raise TemplateError(f"there is no chat template named {name!r}; known ones are {', '.join((*NAMES, 'qwen'))}")
        source = resources.files("lacewing.text").joinpath("templates", f"{name}.jinja").read_text("utf-8")
        return cls(source, name, *_ends(tokenizer))

    @classmethod
    def from_file(cls, path: str | Path, tokenizer: Tokenizer | None = None) -> ChatTemplate:
        """A template of a person's own, in Jinja. Raises TemplateError for a file that cannot be read or has no text."""
        try:
            source = read_named(path, 4 * MAX_SOURCE, TemplateError).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise TemplateError(f"the template {path} cannot be read: it is not UTF-8 text") from None
        if not source.strip():
            raise TemplateError(f"the template {path} is empty")
        template = cls(source, str(path), *_ends(tokenizer))
        if not template.renders_messages():
            raise TemplateError(f"{path} is not a chat template: it never renders the messages")
        return template

    def renders_messages(self) -> bool:
        """Whether what is said is in the prompt; a template that refuses this conversation may render others."""
        try:
            return _PROBE in self.render([{"role": "user", "content": _PROBE}])
        except TemplateError:
            return True

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, tokenizer: Tokenizer) -> ChatTemplate:
        """The checkpoint's own template, else one of ours that fits its vocabulary. TemplateError where none is known."""
        named = {
            name: cls(source, "checkpoint" if name == "default" else f"checkpoint:{name}", *_ends(tokenizer))
            for name, source in _sources(checkpoint).items()
        }
        if named:
            template = named.get("default") or next(iter(named.values()))
            template.variants = named
            return template
        title = str(checkpoint.metadata.get("general.name") or checkpoint.path.name)
        told = "" if _TUNED.search(title) else ": it is probably a base model, which continues a text rather than answers"
        name = _fitting(tokenizer, title.lower())
        if name is None:
            raise TemplateError(f"{checkpoint.path} has no chat template, and none of ours ({', '.join(NAMES)}) fits it{told}")
        template = cls.named(name, tokenizer)
        template.notice = (
            f"{checkpoint.path.name} has no chat template{told}; the template {name} is used, which fits its vocabulary"
        )
        return template

    def parse(self) -> jinja2.nodes.Template:
        """Its syntax tree. Raises jinja2.TemplateError, TemplateError."""
        return Sandbox(mutable=self._mutable, now=self._now).parse(self.source)

    @property
    def sha256(self) -> str:
        """Of the source, for people who pin a template."""
        return hashlib.sha256(self.source.encode("utf-8", "surrogatepass")).hexdigest()

    def render(self, messages: Sequence[Message], **options: Any) -> str:
        """The prompt as text. Options as for `segments`. Raises TemplateError."""
        return "".join(text for text, _ in self.segments(messages, **options))

    def encode(
        self, messages: Sequence[Message], tokenizer: Tokenizer, *, tail: Sequence[tuple[str, bool]] = (), **options: Any
    ) -> list[int]:
        """The prompt as ids. Markup of the template becomes control tokens; text of messages and tools never does.

        BOS stands in front once: where the template writes it, or where the tokenizer asks for it. `tail`: (text, trusted)
        parts after the prompt, such as an answer that is to be continued. Options as for `segments`.
        """
        ids = tokenizer.encode_segments([*self.segments(messages, **options), *tail])
        bos = tokenizer.bos_id
        if bos is None:
            return ids
        while ids[:2] == [bos, bos]:
            del ids[0]
        return [bos, *ids] if tokenizer.add_bos and ids[:1] != [bos] else ids

    def segments(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True, tools: Sequence[Any] | None = None, **options: Any
    ) -> list[tuple[str, bool]]:
        """The prompt as (text, trusted) parts: what the template wrote is trusted, what came with the messages is not.

        `options` are variables for the template, such as enable_thinking. Raises TemplateError.
        """
        if tools and "tool_use" in self.variants:
            return self.variants["tool_use"].segments(messages, add_generation_prompt=add_generation_prompt, tools=tools, **options)
        reads_parts = bool(_READS_PARTS.search(self.source))
        try:
            given = {key: from_user(value) for key, value in options.items()}
            given["tools"] = None if tools is None else from_user(list(tools))
            given["add_generation_prompt"] = add_generation_prompt
            blank = self._blank if calls_tools(messages) else ""
            given["messages"] = for_template(messages, parts=reads_parts, blank=blank)
        except (ValueError, TypeError, RecursionError) as error:
            raise TemplateError(str(error)) from error
        if reads_parts and any(isinstance(message["content"], list) for message in given["messages"]):
            with contextlib.suppress(TemplateError):  # the parts that it reads may be of something else
                return self._run(given)
            given["messages"] = for_template(messages, parts=False, blank=blank)
        return self._run(given)

    @cached_property
    def _blank(self) -> str | None:
        """The content of a message that only calls tools: None if the template shows calls then alone, as DeepSeek R1's does."""
        call = {"id": "000000000", "type": "function", "function": {"name": "f", "arguments": f'{{"asked": "{_PROBE}"}}'}}
        messages: list[Message] = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None, "tool_calls": [call]}]

        def shown(blank: str | None) -> bool:
            given = {"tools": None, "add_generation_prompt": False, "messages": for_template(messages, parts=False, blank=blank)}
            try:
                return _PROBE in "".join(text for text, _ in self._run(given))
            except TemplateError:
                return False

        return None if not shown("") and shown(None) else ""

    def _run(self, given: dict[str, Any]) -> list[tuple[str, bool]]:
        """The (text, trusted) parts, within the budget."""
        variables = {"documents": None, **self._variables, **given}
        size = min(MAX_OUTPUT, 8 * (length(given) + len(self.source)) + (64 << 10))
        try:
            template = self._template
            with spending(Budget(seconds=self._seconds, size=size, mutable=self._mutable)) as budget:
                return _write(template, variables, budget)
        except TemplateError as error:
            raise TemplateError(f"chat template {self.name!r}: {error}") from error
        except Refusal as error:
            raise TemplateError(f"the chat template refuses this conversation: {error.message}") from error
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"chat template {self.name!r}, line {error.lineno}: {error.message}") from error
        except Exception as error:  # whatever a stranger's program raises
            problem = _ADDRESS.sub("", str(error)[:500])
            raise TemplateError(f"chat template {self.name!r} fails: {type(error).__name__}: {problem}") from error

    @cached_property
    def _template(self) -> Any:
        return Sandbox(mutable=self._mutable, now=self._now).template(self.source)


def _write(template: jinja2.Template, variables: dict[str, Any], budget: Budget) -> list[tuple[str, bool]]:
    """Renders within the budget, to (text, trusted) parts."""
    parts: list[str] = []
    written = 0
    for part in template.root_render_func(template.new_context(variables)):
        parts.append(part)
        written += len(part) + 1
        if written > budget.size:
            raise TemplateError(f"it writes more than {budget.size} characters")
        budget.tick()
    return as_text(join(parts)).segments()


def _fitting(tokenizer: Tokenizer, title: str) -> str | None:
    """The name of the template of ours for a model that brings none."""
    by_tokens = (name for name, tokens in _BY_TOKENS if all(map(tokenizer.has, tokens)))
    by_name = (name for name, words in _BY_NAME if any(word in title for word in words))
    return next(by_tokens, None) or next(by_name, None)


def _ends(tokenizer: Tokenizer | None) -> tuple[str, str]:
    """BOS and EOS as text."""
    ids = (None, None) if tokenizer is None else (tokenizer.bos_id, tokenizer.eos_id)
    bos, eos = ("" if token is None or tokenizer is None else tokenizer.token_text(token) for token in ids)
    return bos, eos


def _sources(checkpoint: Checkpoint) -> dict[str, str]:
    """The checkpoint's templates by name; "default" is the usual one. What stands later takes precedence, as in transformers."""
    metadata, found = checkpoint.metadata, dict[str, Any]()
    if checkpoint.format == "gguf":
        found = {key.removeprefix(f"{_KEY}."): value for key, value in metadata.items() if key.startswith(f"{_KEY}.")}
        found["default"] = metadata.get(_KEY, found.get("default"))
    else:
        for file in ("tokenizer_config.json", "chat_template.json"):  # the latter of multimodal models
            config = metadata.get(file)
            inside = config.get("chat_template") if isinstance(config, dict) else None
            if isinstance(inside, list):
                inside = {str(item.get("name")): item.get("template") for item in inside if isinstance(item, dict)}
            found |= inside if isinstance(inside, dict) else {} if inside is None else {"default": inside}
        found |= {PurePosixPath(name).stem: metadata[name] for name in metadata if name.startswith("additional_chat_templates/")}
        found["default"] = metadata.get("chat_template.jinja", found.get("default"))
    for name, source in found.items():
        if source is not None and not isinstance(source, str):
            raise TemplateError(f"{checkpoint.path}: chat template {name!r} must be text, it is {type(source).__name__}")
    return {name: source for name, source in found.items() if source and source.strip()}
