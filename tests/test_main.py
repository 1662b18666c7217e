"""Ctrl-C at any moment from the first import on: exit code 130, and not a word."""

import random
import signal
import subprocess
import sys
import time

import pytest

# As the script that pip makes, but it says when it begins.
START = "import sys; sys.stdout.write('.'); sys.stdout.flush(); from lacewing.__main__ import main; main()"
# Presses Ctrl-C when a module is about to be imported.
AT_AN_IMPORT = """
import signal, sys
module = sys.argv.pop(1)
class Press:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Press())
from lacewing.__main__ import main
main()
"""
MODULES = ("lacewing.cli", "lacewing.cli.app", "typer", "lacewing.options", "lacewing.cli.run", "lacewing.api", "numpy",
           "lacewing.formats", "lacewing.text.tokenizer", "lacewing.models", "lacewing.engine.engine")  # fmt: skip


def words(path):
    return ["run", str(path), "Hello", "--backend", "reference", "--context", "64", "--max-tokens", "2"]


@pytest.mark.parametrize("module", MODULES)
def test_at_an_import(module, tiny_path):
    command = [sys.executable, "-c", AT_AN_IMPORT, module, *words(tiny_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("presses", [6, pytest.param(200, marks=pytest.mark.slow)])
def test_at_any_moment(presses, tiny_path):
    random.seed(presses)
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", START, *words(tiny_path)], capture_output=True, check=True)
    whole = time.monotonic() - began
    for _ in range(presses):
        process = subprocess.Popen([sys.executable, "-c", START, *words(tiny_path)], stdout=-1, stderr=-1, text=True)
        assert process.stdout.read(1) == "."
        time.sleep(random.uniform(0.03, whole))
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
        assert process.returncode in (0, 130, -signal.SIGINT)  # at the very end Python has put the system's handler back
        assert "Traceback" not in told and "KeyboardInterrupt" not in told, told


def test_in_the_background_of_a_shell_it_is_ignored():
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); import lacewing.__main__; signal.raise_signal(2); print(1)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


def test_what_cannot_be_raised():
    """Python calls the end of an object's life by itself, and would print an exception from there and go on."""
    code = """
import signal, sys
class Dies:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
import lacewing.__main__, lacewing.cli
def run():
    Dies()
    print("went on")
lacewing.cli.main = run
lacewing.__main__.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_importing_the_package_changes_no_handler():
    code = "import signal, lacewing, lacewing.cli; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"
