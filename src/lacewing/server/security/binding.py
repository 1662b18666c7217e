"""The addresses that a server listens on, and whether others than this machine reach them."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from dataclasses import dataclass

from lacewing.errors import LacewingError, OptionError
from lacewing.server.options import KEY_LENGTH, ServerOptions

_BACKLOG = 2048


@dataclass(frozen=True)
class Binding:
    """Bound sockets. `public`: others than this machine can reach one of them. `host` as a person wrote it."""

    host: str
    port: int
    public: bool
    sockets: tuple[socket.socket, ...] = ()

    @property
    def url(self) -> str:
        """By which this machine can call it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def close(self) -> None:
        for each in self.sockets:
            each.close()


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches an address such as 127.0.0.1 or ::1."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)


def bind(options: ServerOptions) -> Binding:
    """Listen on all addresses of the host.

    Raises OptionError where others could ask without a key and nobody said that they may, and for a host that is none;
    LacewingError for a port that is in use or may not be had.
    """
    addresses = _addresses(options.host, options.port)
    public = not all(is_loopback(str(address[0])) for _, address in addresses)
    _check_keys(options, public)
    sockets: list[socket.socket] = []
    port = options.port
    try:
        for family, address in addresses:
            sockets.append(_listen(family, (address[0], port, *address[2:])))
            port = sockets[0].getsockname()[1]  # a free one: the same for all
    except BaseException:
        for each in sockets:
            each.close()
        raise
    return Binding(options.host, port, public, tuple(sockets))


def _check_keys(options: ServerOptions, public: bool) -> None:
    if not public:
        return
    if not options.api_keys and not options.allow_public:
        raise OptionError(
            f"--host {options.host} lets everybody on the network use this machine; set --api-key or --api-key-file, "
            "or say --allow-public if nobody else can reach it"
        )
    short = min(map(len, options.api_keys), default=KEY_LENGTH)
    if short < KEY_LENGTH and not options.allow_public:
        raise OptionError(f"an API key has {short} characters, which others can guess; use {KEY_LENGTH} or more, or --allow-public")


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str | int, ...]]]:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise OptionError(f"--host is {host!r}, which is no address of this machine: {error}") from None
    known = (socket.AF_INET, socket.AF_INET6)
    return list(dict.fromkeys((family, (str(at[0]), *map(int, at[1:]))) for family, _, _, _, at in found if family in known))


def _listen(family: socket.AddressFamily, address: tuple[str | int, ...]) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # on Windows it would let two servers have one port
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            with contextlib.suppress(OSError):
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.listen(_BACKLOG)
        made.setblocking(False)
    except OSError as error:
        made.close()
        shown = f"port {address[1]} of {address[0]}"
        if error.errno == errno.EADDRINUSE:
            raise LacewingError(f"{shown} is in use; choose another with --port, or 0 for a free one") from None
        if error.errno == errno.EACCES:
            raise LacewingError(f"{shown} may not be had without rights of the administrator; choose one above 1023") from None
        raise LacewingError(f"cannot listen on {shown}: {error.strerror or error}") from None
    return made
