"""The command line with all of its commands, in the order in which the help lists them."""

from __future__ import annotations

from lacewing.cli.application import app
from lacewing.cli.commands import answering, describing, files, machine

__all__ = ["answering", "app", "describing", "files", "machine"]
