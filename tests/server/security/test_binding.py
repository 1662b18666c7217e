"""Where a server listens, and that nobody opens it to a network by mistake."""

from __future__ import annotations

import socket

import pytest

from lacewing.errors import LacewingError, OptionError
from lacewing.server.options import ServerOptions, read_keys
from lacewing.server.security.binding import Binding, bind, is_loopback

KEY = "0123456789abcdef"


def bound(**options: object) -> Binding:
    binding = bind(ServerOptions(**{"port": 0} | options))
    binding.close()
    return binding


def test_this_machine_by_default():
    binding = bound()
    assert not binding.public and binding.port > 0 and binding.url == f"http://127.0.0.1:{binding.port}"


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::"])
def test_a_public_address_needs_a_key(host):
    if host == "::" and not socket.has_ipv6:
        return
    with pytest.raises(OptionError, match="--api-key"):
        bound(host=host)
    with pytest.raises(OptionError, match="others can guess"):
        bound(host=host, api_keys=("short",))
    assert bound(host=host, api_keys=(KEY,)).public
    assert bound(host=host, allow_public=True).public
    assert bound(host=host, allow_public=True).url.startswith(("http://127.0.0.1:", "http://[::1]:"))


def test_all_addresses_of_a_name_have_one_port():
    binding = bind(ServerOptions(host="localhost", port=0))
    try:
        assert {each.getsockname()[1] for each in binding.sockets} == {binding.port}
        assert not binding.public
    finally:
        binding.close()


def test_a_port_in_use_is_told():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(LacewingError, match=f"port {port} of 127.0.0.1 is in use; .*--port"):
            bound(port=port)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "300.1.1.1", "a" * 300, "\udc80"])
def test_a_host_that_is_none(host):
    with pytest.raises(OptionError, match="no address"):
        bound(host=host)


@pytest.mark.parametrize(
    ("address", "local"),
    [("127.0.0.1", True), ("::1", True), ("127.3.2.1", True), ("::ffff:127.0.0.1", True), ("::1%lo", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("::ffff:10.0.0.1", False), ("localhost", False)],
)  # fmt: skip
def test_loopback(address, local):
    assert is_loopback(address) is local


def test_keys_of_a_file(tmp_path):
    file = tmp_path / "keys"
    file.write_text("# ours\n one-key \n\nanother\n")
    assert read_keys(file) == ("one-key", "another")
    file.write_text("# none\n")
    with pytest.raises(OptionError, match="no API key"):
        read_keys(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OptionError, match="no text"):
        read_keys(file)
    with pytest.raises(OptionError, match="there is no file"):
        read_keys(tmp_path / "missing")
    with pytest.raises(OptionError, match="printable ASCII"):
        ServerOptions(api_keys=("two words",))
