"""The parts of docs/server.md about the APIs of Ollama and llama-server, and about administration."""

from __future__ import annotations

from lacewing.server.admin.models import FetchBody, LoadBody, UnloadBody
from lacewing.server.native.bodies import CompletionBody, InfillBody, NativeFields
from lacewing.server.native.rerank import RerankBody
from lacewing.server.ollama import options
from lacewing.server.ollama.chat import ChatBody
from lacewing.server.ollama.embed import EmbedBody
from lacewing.server.ollama.generate import GenerateBody
from lacewing.server.ollama.models import ShowBody
from lacewing.server.ollama.pull import PullBody
from lacewing.server.openai.bodies import AnswerBody
from tools.server_tables import fields_of, ignored, refused

OLLAMA = """
## Ollama's API

Clients of Ollama (its own, Open WebUI, Continue, aider) talk to `http://127.0.0.1:8080` as they do to Ollama; `--port 11434` is
where they look first. A model has its name of `/v1/models`; `:latest` behind it is understood, and a size as a tag
(`qwen2.5-coder:0.5b`).

`options.num_ctx` bounds prompt and answer of its request and never loads a model anew; how large the context itself is says
`POST /models/load`. Durations are nanoseconds, `prompt_eval_count` counts the whole prompt, and `done_reason` is "stop",
"length", "load" or "unload". Tool calls come whole; one that a limit has cut is left out. Lines have no comments between them,
as these clients parse each. Errors are `{"error": "message"}`, in a stream the last line.

`POST /api/pull` fetches models by names of ours, and they are served from then on. `/api/create`, `copy`, `push` and `delete`
answer 501.

| client | how it finds the server |
|---|---|
| Open WebUI | `OLLAMA_BASE_URL=http://HOST:8080` |
| Continue | in `config.yaml` a model with `provider: ollama`, `apiBase: http://HOST:8080`, `model: NAME` |
| aider | `OLLAMA_API_BASE=http://HOST:8080 aider --model ollama_chat/NAME` |
| Ollama's command line | `OLLAMA_HOST=http://HOST:8080 ollama run NAME` |

From a container, or another machine, the server has to listen there (`--host`) and be called by a name that it knows
(`--allowed-host`).
"""
NATIVE = """
## llama-server's API

`POST /completion` and `/infill` answer as llama-server's own API: pieces are `{"content", "tokens", "stop": false}`, and the
last event has `stop_type` ("eos", "limit" or "word"), `stopping_word`, `generation_settings` and `timings`; there is no
`[DONE]` behind it. They take the fields of `/v1/completions` for sampling as well. `/infill` needs a model that was trained to
fill in, which its metadata or its vocabulary tells (`insert` among the `capabilities` of `/models`). `GET /props` and `GET
/slots` tell of `?model=` what is known without loading it. Slots are rows of the batch; their states cannot be saved or erased.
`/v1/rerank` takes a model that was trained to rank (`rerank` among its `capabilities`), which here are Qwen3's rerankers:
as a GGUF file with the pooling "rank", or named so. The score is the probability that the model answers "yes" rather than "no"
to its own prompt. Other models answer 501.
"""
ADMINISTRATION = """
## Administration

`GET /models` and `GET /v1/models` tell of each model its `status` (`value` "unloaded", "loading", "loaded", or "sleeping" if it
is in memory and its weights are not; `progress` while something is done; `failed` with a `message`), `capabilities` as Ollama
names them, or `rerank`, `meta` as llama-server has it, `context`, `residency` ("lazy", "eager", "streamed", or "device" where all
weights are on a GPU),
`template`, `experts` of a mixture, and what it takes of the memory.

`POST /models/load` loads a model, or changes one that is in memory; nobody's answer is cut. A template is another one at once;
answers under way keep theirs. The residency changes between two steps, after the weights have been read; streams go on, with
the same tokens. For another context the model is loaded anew: beside the old one if there is room for both, else once the
answers under way are over. It answers `{"success": true}` at once, as llama-server does, and with `wait` when it is done:
`{"success": true, "changed": ["residency"], "model": {...}}`. If it fails, the model stays as it was.

A proxy may give up a request in which nothing comes for a minute, and a large model takes longer. With `wait` and the header
`Prefer: respond-async, wait=5` the answer is 202 after 5 s (at most 60; without a number at once): `{"success": true, "change":
"change_...", "model": "...", "status": {...}}`, with its address in `Location`. `GET /models/changes/ID` answers as the request
itself would have, or 202 while the change goes on, after the seconds of `Prefer: wait=5`. The last 64 that are over are kept.

`GET /models/sse` streams events as llama-server's router does: `{"model", "event", "data"}` with `event` "model_status" (its
`data` has `status`, `progress`, and `info` of one that is loaded), "change_failed", "download_progress", "download_finished",
"download_failed", "models_reload", "model_remove". `GET /models/activity?model=` tells sequences that run, tokens a second and
how full the KV cache is; `GET /models/experts?model=` how many tokens each expert of each layer of a mixture got, counted until
30 s after the last question; `GET /models/templates?model=` which templates there are. None of these loads a model.

A program that sends JSON, or has the API key if there is one, may do all of this.
"""


def of_ollama() -> str:
    """Ollama's API."""
    parts = [OLLAMA, fields_of("Fields of `/api/chat` and `/api/generate`", options.AnswerBody)]
    parts += [fields_of("Further fields of `/api/chat`", ChatBody, options.AnswerBody)]
    parts += [fields_of("Further fields of `/api/generate`", GenerateBody, options.AnswerBody)]
    parts += [fields_of("`options` of Ollama's API", options.Options)]
    parts += ["\nIgnored:\n\n| field | |\n|---|---|\n", *ignored(options.IGNORED)]
    parts += ["\nRefused:\n\n| field | accepted | |\n|---|---|---|\n", *refused(options.REFUSED)]
    parts += [fields_of("Fields of `/api/embed`", EmbedBody), fields_of("Fields of `/api/show`", ShowBody)]
    return "".join([*parts, fields_of("Fields of `/api/pull`", PullBody)])


def of_llama_server() -> str:
    """llama-server's own API."""
    parts = [NATIVE, fields_of("Further fields of `/completion`", CompletionBody, AnswerBody)]
    parts += [
        fields_of("Fields of `/infill` beside these", InfillBody, NativeFields),
        fields_of("Fields of `/v1/rerank`", RerankBody),
    ]
    return "".join(parts)


def administration() -> str:
    """Models that come, change and go."""
    bodies = (("/models/load", LoadBody), ("/models/unload", UnloadBody), ("/models", FetchBody))
    return ADMINISTRATION + "".join(fields_of(f"Fields of `POST {path}`", body) for path, body in bodies)
