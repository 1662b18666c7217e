"""How a server is to run: what it serves, who may ask, and how much of everything."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from lacewing.errors import OptionError
from lacewing.options import LoadOptions, shown_value

LOG_FORMATS = ("text", "json")
SEQUENCES = 16  # that a served model runs at once, where nobody says how many
KEY_LENGTH = 16  # characters that an API key has at least, where others than this machine can try keys


@dataclass(frozen=True)
class ServerOptions:
    """Names are models to serve, the first of them the default. Sizes are bytes, times seconds.

    `load`: for every model; its `sequences` share the KV cache of `kv_tokens` positions, by default as many as memory allows.
    """

    models: tuple[str, ...] = ()
    models_dir: Path | None = None  # every checkpoint in it is served under its file's stem
    fetched: bool = False  # and every model of the cache
    allow_paths: bool = False  # a request may name a file or a folder
    on_demand: bool = False  # no model is loaded before a request asks for it
    idle_unload: float | None = None  # a model that nobody asked for so long leaves the memory
    load: LoadOptions = field(default_factory=lambda: LoadOptions(sequences=SEQUENCES))

    host: str = "127.0.0.1"
    port: int = 8080  # 0: a free one
    api_keys: tuple[str, ...] = ()
    allow_public: bool = False  # others than this machine may ask without a key
    allowed_hosts: tuple[str, ...] = ()  # names by which clients may call this server, besides its address
    cors_origins: tuple[str, ...] = ()  # web pages that may read answers

    queue: int = 64  # requests that wait; more are refused
    queue_seconds: float = 300.0  # that one waits
    request_seconds: float | None = None  # that an answer may take in all
    connections: int = 256
    header_bytes: int = 32 << 10
    body_bytes: int = 8 << 20
    receive_seconds: float = 30.0  # in which a request has to be there as a whole
    ping_seconds: float = 5.0  # between two signs of life while nothing else comes
    write_seconds: float = 30.0  # that a client may leave its answer unread
    shutdown_seconds: float = 10.0  # that answers may still take when the server is told to end

    store: bool = True  # keep responses that go on from each other
    store_file: Path | None = None  # by default in the user's folder for data
    store_days: float = 30.0  # since its last use, after which a response is deleted
    store_bytes: int = 1 << 30  # of the file, above which the oldest are deleted

    expert_metrics: bool = False  # count the tokens of each expert of a mixture
    log_format: str = "text"
    log_prompts: bool = False

    def __post_init__(self) -> None:
        for name, low, high in (("port", 0, 65535), ("queue", 0, 1 << 20), ("connections", 1, 1 << 20),
                                ("header_bytes", 1 << 10, 1 << 20), ("body_bytes", 1 << 10, 1 << 40),
                                ("store_bytes", 1 << 20, 1 << 50)):  # fmt: skip
            self._check(name, low, high, int)
        for name in ("queue_seconds", "receive_seconds", "ping_seconds", "write_seconds"):
            self._check(name, 0.01, 1e9)
        self._check("shutdown_seconds", 0, 1e9)
        self._check("store_days", 0.001, 1e6)
        for name in ("idle_unload", "request_seconds"):
            if getattr(self, name) is not None:
                self._check(name, 0.01, 1e9)
        if self.log_format not in LOG_FORMATS:
            raise OptionError(f"--log-format is {shown_value(self.log_format)}; it must be one of {', '.join(LOG_FORMATS)}")
        for origin in self.cors_origins:
            scheme, found, rest = origin.partition("://")
            if not (scheme and found and rest) or any(mark in rest for mark in "/*?# "):
                raise OptionError(f"--cors-origin is {origin!r}; it must be an origin such as https://chat.example, without a path")
        for key in self.api_keys:
            if not key or not key.isascii() or not key.isprintable() or " " in key:
                raise OptionError("an API key must be printable ASCII without spaces; one of those given is not")

    def _check(self, name: str, low: float, high: float, kind: type = float) -> None:
        value: object = getattr(self, name)
        number = isinstance(value, (int, kind)) and not isinstance(value, bool)
        if not (number and isinstance(value, (int, float)) and math.isfinite(value) and low <= value <= high):
            raise OptionError(f"--{name.replace('_', '-')} is {shown_value(value)}; it must be from {low:g} to {high:g}")


def read_keys(path: Path) -> tuple[str, ...]:
    """API keys of a file: one a line; blank lines and those that begin with # are none. Raises OptionError."""
    from lacewing.formats.files import read_named

    try:
        lines = read_named(path, 1 << 20).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise OptionError(f"{path} is no text, so it has no API keys") from None
    keys = tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    if not keys:
        raise OptionError(f"{path} has no API key; write one a line")
    return keys
