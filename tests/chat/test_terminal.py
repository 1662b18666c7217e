"""The chat in a real terminal."""

import sys

import pytest

pexpect = pytest.importorskip("pexpect")
if not hasattr(pexpect, "spawn"):
    pytest.skip("needs a pseudo-terminal", allow_module_level=True)


def test_chat_in_a_terminal(tiny_path):
    words = [
        "-m",
        "lacewing",
        "chat",
        str(tiny_path),
        "--backend",
        "reference",
        "--context",
        "2048",
        "--temperature",
        "2",
        "--seed",
        "1",
    ]
    terminal = pexpect.spawn(sys.executable, words, encoding="utf-8", timeout=20, echo=False)
    terminal.expect("> ")
    terminal.sendline("Hello")
    terminal.expect(r"\S")  # the answer begins
    terminal.sendintr()
    terminal.expect("> ")  # only the answer ended
    terminal.sendintr()
    terminal.expect("/quit leaves")
    terminal.expect("> ")
    terminal.sendline("/quit")
    terminal.expect(pexpect.EOF)
    terminal.wait()
    assert terminal.exitstatus == 0 and "Traceback" not in terminal.before
