"""Messages use the words that this project has agreed on; each of these was in one."""

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "lacewing"
NOT_SAID = re.compile(
    r"\b(the processor|told anew|the answer before|the conversation before|all is as it was|own memory|memory of our own|mended"
    r"|taken for|control groups included|one word too many|when nothing comes|re-rendered, has)\b"
    r"|\b1 (files|tokens|messages|lines)\b"
)


def messages(path):
    """The texts of a file that a person may see: what is neither a docstring nor a comment."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    with_docstring = (ast.Module, ast.ClassDef, ast.FunctionDef)
    first = [node.body[0] for node in ast.walk(tree) if isinstance(node, with_docstring) and node.body]
    docstrings = {id(each.value) for each in first if isinstance(each, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


@pytest.mark.parametrize("part", sorted(path.name for path in SOURCE.iterdir() if path.name != "__pycache__"))
def test_messages_are_in_our_words(part):
    place = SOURCE / part
    for path in [place] if place.is_file() else place.rglob("*.py"):
        if path.suffix == ".py":
            found = [(line, text) for line, text in messages(path) if NOT_SAID.search(text)]
            assert not found, path
