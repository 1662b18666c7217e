"""Programs outside the package keep up with it: what they import exists, also inside functions that no test calls."""

import ast
import importlib
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("lacewing", "benchmarks", "tools", "tests")


def exists(module: str, name: str) -> bool:
    """A name of a module, or a module of a package."""
    if hasattr(importlib.import_module(module), name):
        return True
    try:
        return bool(importlib.import_module(f"{module}.{name}"))
    except ModuleNotFoundError:
        return False


@pytest.fixture
def as_it_was():
    """`lacewing.__main__` takes Ctrl-C over when it is imported, as a program would want."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("as_it_was")
@pytest.mark.parametrize(
    "path",
    [path for part in ("benchmarks", "tools", "examples") for path in sorted((ROOT / part).glob("*.py"))],
    ids=lambda p: p.name,
)
def test_what_a_program_imports_exists(path):
    missing = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            missing += [f"{node.module}.{each.name}" for each in node.names if not exists(node.module, each.name)]
        elif isinstance(node, ast.Import):
            for each in node.names:
                if each.name.split(".")[0] in OURS:
                    importlib.import_module(each.name)
    assert not missing
