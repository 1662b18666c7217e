"""The text of docs/server.md: endpoints, fields and limits of the server, from its routes and its typed requests."""

from __future__ import annotations

import json
from collections.abc import Iterator

from lacewing.server.app import ROUTES
from lacewing.server.metrics import HELP, PATH
from lacewing.server.native.texts import DetokenizeBody, TokenizeBody
from lacewing.server.openai.bodies import AnswerBody, Body
from lacewing.server.openai.chat import ChatBody, ConversationBody
from lacewing.server.openai.completions import CompletionBody
from lacewing.server.openai.embeddings import EmbeddingBody
from lacewing.server.openai.errors import rows
from lacewing.server.openai.fields import IGNORED, REFUSED

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

So are fields that nobody knows.

| field | |
|---|---|
"""
REFUSED_HEAD = """
## Fields that are refused

Unless they have a value that changes nothing.

| field | accepted | |
|---|---|---|
"""
STREAMS = """
## Streams

`stream` gives server-sent events: chunks as OpenAI sends them, then `data: [DONE]`. The first has the role; tool calls begin with
id, name and empty `arguments`; the last chunk of a choice has `finish_reason` and `timings`. With `stream_options.include_usage`,
a chunk without choices tells `usage` before the end. While nothing comes, because a model is being loaded, others are served, or
the prompt is being read, comments (`: still working`) show that the server is there. An error before the first event has a status
of its own; a later one is an event with `error`.

A client that leaves ends its request, streamed or not, in the queue or while its prompt is read.

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


def page(client: str) -> str:
    """`client`: the source of the example."""
    parts = [HEAD.replace("{client}", client)]
    parts += [f"| `{method} {path}` | {about} |\n" for method, path, about in endpoints()]
    parts += [_fields("Fields of `/v1/chat/completions` and `/v1/completions`", AnswerBody)]
    parts += [_fields("Further fields of `/v1/chat/completions`", ChatBody, AnswerBody)]
    parts += [_fields("Further fields of `/v1/completions`", CompletionBody, AnswerBody)]
    parts += [_fields("Fields of `/v1/embeddings`", EmbeddingBody)]
    parts += [_fields("Fields of `/tokenize`", TokenizeBody), _fields("Fields of `/detokenize`", DetokenizeBody)]
    parts += [_fields("Fields of `/apply-template`", ConversationBody)]
    parts += [IGNORED_HEAD, *(f"| `{name}` | {reason} |\n" for name, reason in IGNORED.items()), REFUSED_HEAD]
    for name, row in REFUSED.items():
        accepted = ", ".join(f"`{value}`" for value in ("null", *map(json.dumps, row.neutral)))
        parts.append(f"| `{name}` | {accepted} | {row.reason} |\n")
    parts += [STREAMS, *(f"| {status} | `{code}` |\n" for status, code in rows())]
    parts += [METRICS.replace("{path}", PATH), *(f"| `{name}` | {about} |\n" for name, about in HELP.items())]
    return "".join(parts)


def endpoints() -> Iterator[tuple[str, str, str]]:
    """Method, path and what the docstring says."""
    for route in ROUTES:
        about = (route.endpoint.__doc__ or "").strip().splitlines()[0]
        yield next(iter(sorted((route.methods or set()) - {"HEAD"}))), route.path.replace(":path", ""), about


def _fields(title: str, body: type[Body], besides: type[Body] | None = None) -> str:
    known = set() if besides is None else set(besides.model_fields)
    found = [f"\n## {title}\n\n| field | |\n|---|---|\n"]
    for name, field in body.model_fields.items():
        if name not in known:
            needed, about = " (required)" if field.is_required() else "", field.description or ""
            found.append(f"| `{name}`{needed} | {about} |\n")
    return "".join(found)
