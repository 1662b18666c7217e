"""The guard against tests that leave something changed."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests import guard

ROOT = Path(__file__).parent.parent
LEFT: dict[str, Callable[[], object]] = {
    "os.environ: {b'LACEWING_LEFT': b'1'} instead of {b'LACEWING_LEFT': None}": lambda: os.environ.update(LACEWING_LEFT="1"),
    "os.environ: {b'PATH': None}": lambda: os.environ.pop("PATH"),
    "the signals' handlers": lambda: signal.signal(signal.SIGTERM, lambda *_: None),
    "the working directory": lambda: os.chdir("/"),
    "sys.argv": lambda: sys.argv.append("left"),
    "sys.path": lambda: sys.path.insert(0, "left"),
    "the collector of cycles": gc.disable,
    "its thresholds": lambda: gc.set_threshold(123),
    "tracemalloc": tracemalloc.start,
    "the switch interval": lambda: sys.setswitchinterval(0.5),
    "the recursion limit": lambda: sys.setrecursionlimit(5000),
    "threading.excepthook": lambda: setattr(threading, "excepthook", print),
    "logging.disable": lambda: logging.disable(logging.ERROR),
    "the level of our log": lambda: logging.getLogger("lacewing").setLevel(logging.DEBUG),
    "NumPy's errors": lambda: np.seterr(divide="raise"),
    "the CPUs of this thread": lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
}


def settings() -> list[object]:
    return [each.read() for each in guard._SETTINGS.values()]


@pytest.mark.parametrize("told", LEFT)
def test_a_setting_that_is_left_changed_is_told_and_put_back(told: str) -> None:
    if told == "the CPUs of this thread" and (sys.platform != "linux" or len(os.sched_getaffinity(0)) == 1):
        pytest.skip("this thread has no CPUs to choose from")
    before = settings()
    with pytest.raises(AssertionError) as failed, guard.settings_kept():
        LEFT[told]()
    assert str(failed.value).startswith(f"a test left changed {told}") and settings() == before
    assert "LACEWING_LEFT" not in os.environ and "PATH" in os.environ and os.getenv("PATH")


def test_what_is_put_back_in_time_is_no_change() -> None:
    with guard.settings_kept():
        os.environ["LACEWING_LEFT"] = "1"
        gc.disable()
        del os.environ["LACEWING_LEFT"]
        gc.enable()


def test_every_setting_is_tried() -> None:
    assert all(any(told.startswith(name) for told in LEFT) for name in guard._SETTINGS)


class Kind:
    LIMIT = 1

    def work(self) -> None: ...


def test_functions_classes_and_constants_of_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = ModuleType("lacewing.one"), ModuleType("lacewing.other")
    kind = type("Kind", (), {**vars(Kind), "__module__": "lacewing.one"})
    vars(one).update(work=settings, PLACES=[1], Kind=kind, cache={}, guest=Kind)
    for module in (one, other):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    modules = guard.Modules()
    assert modules.restored() == []
    vars(one).update(cache={"a": 1}, new=1)  # what a module keeps in lower case may change
    assert modules.restored() == []
    one.work, one.PLACES, kind.work, kind.LIMIT = print, [1], print, 2  # type: ignore[attr-defined]
    sys.modules["lacewing.other"] = ModuleType("lacewing.other")
    names = ["lacewing.other", "lacewing.one.work", "lacewing.one.PLACES", "lacewing.one.Kind.LIMIT", "lacewing.one.Kind.work"]
    assert sorted(modules.restored()) == sorted(names) and modules.restored() == []
    assert one.work is settings and kind.work is Kind.work and kind.LIMIT == 1 and sys.modules["lacewing.other"] is other


LEAVES = """
import os
from lacewing.weights.experts import pack

def test_setting():
    os.environ["LACEWING_LEFT"] = "1"

def test_module():
    pack.pack_places = print
"""
AFTER = """
import os
from lacewing.weights.experts import pack

def test_as_it_was():
    assert pack.pack_places is not print and "LACEWING_LEFT" not in os.environ
"""


def test_the_suite_is_guarded(tmp_path: Path) -> None:
    """A file that leaves something fails, and the files after it do not."""
    (tmp_path / "test_a.py").write_text(LEAVES)
    (tmp_path / "test_b.py").write_text(AFTER)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider", "--rootdir", ROOT, tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED and "3 passed, 2 errors" in done.stdout
    assert "a test of this file left changed lacewing.weights.experts.pack.pack_places" in done.stdout
    assert "a test left changed os.environ: {b'LACEWING_LEFT': b'1'} instead of {b'LACEWING_LEFT': None}" in done.stdout
