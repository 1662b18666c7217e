"""The command line: flags to options, errors to one line and an exit code. No logic of its own."""

from __future__ import annotations

import importlib
import os
import sys

from typer import TyperException

from lacewing.console.output import detail, print_text
from lacewing.errors import LacewingError, OptionError


def main() -> None:
    """The command `lacewing`. Exit codes: 0; 1 for an error; 2 for wrong use; 130 after Ctrl-C."""
    for name, mode in (("stdin", "r"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the parent process: nothing can be read from it or written to it
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character must not end the answer
    try:
        from lacewing.cli.app import app

        if "_LACEWING_COMPLETE" in os.environ:  # a shell asks what may stand here
            importlib.import_module("typer.completion").completion_init()
        if sys.stdout is None:
            raise LacewingError("the standard output is closed; give it a file, a pipe or a terminal")
        sys.exit(app(prog_name="lacewing", standalone_mode=False))
    except KeyboardInterrupt:
        sys.exit(130)
    except LacewingError as error:
        print_text(f"lacewing: {' '.join(str(error).split())}", sys.stderr)
        cause = error.__cause__
        while cause is not None:
            detail(f"caused by {type(cause).__name__}: {' '.join(str(cause).split())}")
            cause = cause.__cause__
        sys.exit(2 if isinstance(error, OptionError) else 1)
    except OSError as error:  # of the output, which has no name, or of a folder that may not be entered
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered would fail once more when Python ends
        what = "cannot write" if error.filename is None else f"cannot use {os.fsdecode(error.filename)}"
        print_text(f"lacewing: {what}: {error.strerror or error}", sys.stderr)
        sys.exit(1)
    except TyperException as error:  # wrong use; its words may come from the names of files
        where = getattr(getattr(error, "ctx", None), "command_path", "lacewing")
        text = " ".join(error.format_message().split()).rstrip(".")
        print_text(f"lacewing: {text[:1].lower()}{text[1:]}; `{where} --help` shows the usage", sys.stderr)
        sys.exit(2)
