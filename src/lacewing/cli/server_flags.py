"""The flags of `lacewing serve`, and the options that they make."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lacewing.options import LoadOptions, parse_bytes
from lacewing.server.options import SEQUENCES, ServerOptions, read_keys

MaxSequences = Annotated[int, typer.Option(help="Requests that a model answers at once; the others wait.", metavar="N")]
KvTokens = Annotated[
    int | None,
    typer.Option(
        help="Tokens that all requests of a model have together in the KV cache; by default one whole context, and more where "
        "memory is left.",
        metavar="N",
    ),
]
Host = Annotated[str, typer.Option(help="The address to listen on; beyond this machine, an API key is needed.", metavar="NAME")]
Port = Annotated[int, typer.Option(help="The port; 0 takes a free one.", metavar="N")]
ModelsDir = Annotated[
    Path | None, typer.Option("--models-dir", help="Also serve every checkpoint in a folder, by its file's stem.", metavar="DIR")
]
Fetched = Annotated[bool, typer.Option("--fetched", help="Also serve every fetched model.")]
AllowPaths = Annotated[bool, typer.Option("--allow-paths", help="Requests may name a file or folder as their model.")]
OnDemand = Annotated[bool, typer.Option("--on-demand", help="Load no model before a request asks for it.")]
IdleUnload = Annotated[
    float | None, typer.Option(help="Unload a model that nobody has asked for so long; by default never.", metavar="SECONDS")
]
ApiKey = Annotated[
    list[str] | None,
    typer.Option("--api-key", help="A key that requests need; several times. Other users of this machine see it.", metavar="KEY"),
]
ApiKeyFile = Annotated[Path | None, typer.Option(help="A file of API keys, one a line.", metavar="FILE")]
AllowPublic = Annotated[bool, typer.Option("--allow-public", help="Listen on a public address without an API key.")]
AllowedHost = Annotated[
    list[str] | None,
    typer.Option(help="A name by which clients call this server, besides its address; several times; * is any.", metavar="NAME"),
]
CorsOrigin = Annotated[
    list[str] | None,
    typer.Option(help="A web page that may read answers, such as https://chat.example; several times.", metavar="ORIGIN"),
]
Queue = Annotated[int, typer.Option(help="Requests that may wait; more are refused.", metavar="N")]
QueueSeconds = Annotated[float, typer.Option(help="That a request may wait for its turn.", metavar="SECONDS")]
RequestSeconds = Annotated[float | None, typer.Option(help="That an answer may take; by default any time.", metavar="SECONDS")]
BodyBytes = Annotated[str, typer.Option(help="The largest body of a request, for example 8MiB.", metavar="SIZE")]
Connections = Annotated[int, typer.Option(help="Connections at a time; more are refused.", metavar="N")]
ShutdownSeconds = Annotated[
    float, typer.Option(help="That answers may still take when the server is told to end.", metavar="SECONDS")
]

NoStore = Annotated[bool, typer.Option("--no-store", help="Keep no responses: none can be asked for again or gone on from.")]
StoreFile = Annotated[
    Path | None, typer.Option(help="Where responses are kept; by default in your folder for data.", metavar="FILE")
]
StoreDays = Annotated[float, typer.Option(help="That a response is kept since its last use.", metavar="DAYS")]
StoreBytes = Annotated[str, typer.Option(help="All responses together; above it the oldest are deleted.", metavar="SIZE")]

ExpertMetrics = Annotated[
    bool,
    typer.Option(
        "--expert-metrics",
        help="Count the tokens of each expert of a mixture and what runs read of them, for /metrics; costs some speed.",
    ),
]
LogFormat = Annotated[str, typer.Option(help="How requests are logged: text or json.", metavar="FORMAT")]
LogPrompts = Annotated[bool, typer.Option("--log-prompts", help="Also log the bodies of requests, which hold the prompts.")]


def server_options(
    *,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    api_key: ApiKey = None,
    api_key_file: ApiKeyFile = None,
    allow_public: AllowPublic = False,
    allowed_host: AllowedHost = None,
    cors_origin: CorsOrigin = None,
    models_dir: ModelsDir = None,
    fetched: Fetched = False,
    allow_paths: AllowPaths = False,
    on_demand: OnDemand = False,
    idle_unload: IdleUnload = None,
    max_sequences: MaxSequences = SEQUENCES,
    kv_tokens: KvTokens = None,
    queue: Queue = 64,
    queue_seconds: QueueSeconds = 300.0,
    request_seconds: RequestSeconds = None,
    body_bytes: BodyBytes = "8MiB",
    connections: Connections = 256,
    shutdown_seconds: ShutdownSeconds = 10.0,
    no_store: NoStore = False,
    store_file: StoreFile = None,
    store_days: StoreDays = 30.0,
    store_bytes: StoreBytes = "1GiB",
    expert_metrics: ExpertMetrics = False,
    log_format: LogFormat = "text",
    log_prompts: LogPrompts = False,
) -> ServerOptions:
    """Without models, which are no flags; `load` has what only a server asks of it. Raises OptionError for values out of range."""
    return ServerOptions(
        models_dir=models_dir,
        fetched=fetched,
        allow_paths=allow_paths,
        on_demand=on_demand,
        idle_unload=idle_unload,
        load=LoadOptions(sequences=max_sequences, kv_tokens=kv_tokens),
        host=host,
        port=port,
        api_keys=(*(api_key or ()), *(read_keys(api_key_file) if api_key_file else ())),
        allow_public=allow_public,
        allowed_hosts=tuple(allowed_host or ()),
        cors_origins=tuple(cors_origin or ()),
        queue=queue,
        queue_seconds=queue_seconds,
        request_seconds=request_seconds,
        body_bytes=parse_bytes(body_bytes, "body_bytes") or 0,
        connections=connections,
        shutdown_seconds=shutdown_seconds,
        store=not no_store,
        store_file=store_file,
        store_days=store_days,
        store_bytes=parse_bytes(store_bytes, "store_bytes") or 0,
        expert_metrics=expert_metrics,
        log_format=log_format,
        log_prompts=log_prompts,
    )
