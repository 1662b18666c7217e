"""The documentation cannot drift: its snippets run, its commands, files, tables and limits are those of the source."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from lacewing.chat.commands.table import load_commands
from lacewing.cli.app import app

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "lacewing"
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
}
README = PAGES["README.md"]
COMMANDS = typer.main.get_command(app).commands
UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE)


def row(name: str) -> str:
    """The second cell of a row of the README's tables."""
    return re.search(rf"^\| {re.escape(name)} \| (.*?) \|", README, re.MULTILINE)[1]


def shell_lines() -> Iterator[list[str]]:
    """Every command line of the shell blocks, in words."""
    for page in PAGES:
        yield from (shlex.split(line, comments=True) for line in "".join(blocks(page, "sh")).splitlines())


def inline(program: str) -> set[str]:
    """What follows a program's name in backticks, anywhere: a command or a target."""
    return {name for text in PAGES.values() for name in re.findall(rf"`(?:[A-Z]+=\S+\s)?{program} (\w+)[^`]*`", text)}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_python_snippets_run(page, smollm2_path, tmp_path):
    assert smollm2_path.exists()  # the snippets name the default model
    code = "".join(blocks(page, "python"))
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_commands_are_taken_as_written():
    seen = set()
    for words in shell_lines():
        if words[0] == "lacewing":
            COMMANDS[words[1]].make_context(words[1], words[2:])  # parses them, runs nothing
            seen.add(words[1])
    assert seen == set(COMMANDS), "the README shows every command"
    assert inline("lacewing") <= seen


def test_options_exist():
    known = {option for command in COMMANDS.values() for parameter in command.params for option in parameter.opts} | {"--help"}
    for name in {"benchmarks.compare", *re.findall(r"-m ((?:benchmarks|tools)\.[\w.]+)", "".join(PAGES.values()))}:
        command = [sys.executable, "-m", name, "--help"]
        known |= set(re.findall(r"--[a-z-]+", subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout))
    known |= {f"--{option.name}" for row in load_commands().rows.values() for option in row.options}
    for page, text in PAGES.items():
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
        assert named <= known, f"{page}: {named - known}"


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {words[1] for words in shell_lines() if words[0] == "make"} | inline("make")
    assert {"run", "test", "check", "bench"} <= named <= targets, named - targets


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)", PAGES[page]):
        assert target.startswith("https://") or (ROOT / page).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_files_named_exist(page):
    """Paths in backticks, from the root, below src/lacewing, or below the folder that the page is about."""
    cpu, webgpu, cuda = (SOURCE / "backends" / name for name in ("cpu", "webgpu", "cuda"))
    bases = [ROOT, SOURCE, SOURCE / "backends", cpu, cpu / "kernels", webgpu, cuda]
    for name in re.findall(r"`([\w./-]+(?:\.py|\.jinja|\.md|/))`", PAGES[page]):
        assert any((base / name).exists() for base in bases), f"{page} names {name}"


def test_the_tree_is_the_tree():
    tree = blocks("README.md", "text")[0].splitlines()
    path, named = [], {}
    for line in tree:
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        path[depth:] = [name]
        assert len(line.split(maxsplit=1)) == 2 or line == tree[0], f"{name} has no comment"
        named["".join(path)] = True
        assert (ROOT / "".join(path)).exists(), "".join(path)
    for entry in SOURCE.iterdir():
        if not entry.name.startswith(("_", "py.typed")):
            assert f"src/lacewing/{entry.name}{'/' if entry.is_dir() else ''}" in named, entry


def test_tables_are_those_of_the_source():
    from lacewing.backends.cpu.quants import FLOATS, GENERIC, SCALED_FLOATS, TILES
    from lacewing.models import known_architectures
    from lacewing.text.template import NAMES

    assert set(re.findall(r"`(\w+)`", row("architectures"))) <= set(known_architectures())
    assert set(row("quants with SIMD kernels").split(", ")) == {*TILES, *FLOATS, *SCALED_FLOATS}
    assert set(row("quants dequantised inside the kernel").split(", ")) == set(GENERIC)
    assert set(re.findall(r"`([\w-]+)`", row("chat templates"))) == set(NAMES)


def test_the_page_of_architectures_is_current():
    """Every row of `models/architectures` with its models, blocks, and what tests it."""
    from tools import architecture_docs

    assert PAGES["docs/architectures.md"] == architecture_docs.page(), "run python tools/make_docs.py"


def test_the_number_of_architectures_is_that_of_their_files():
    count = len([path for path in (SOURCE / "models" / "architectures").glob("*.py") if path.name != "__init__.py"])
    assert row("architectures").startswith(f"{count} of GGUF"), "run python tools/make_docs.py"


def test_every_kind_of_op_has_words():
    from lacewing.program import ops, stream_ops
    from lacewing.program.operands import Buffer, Op
    from tools import architecture_docs

    class Unknown(Op):
        pass

    x = Buffer("x", 4).view()
    assert list(architecture_docs.words([stream_ops.GaussianTopK(x, 1.0), ops.Embed("e", x)])) == ["sparse activations"]
    with pytest.raises(KeyError, match="Unknown has no words"):
        list(architecture_docs.words([Unknown()]))


def test_limits_are_those_of_the_source():
    rows = re.findall(r"^\| `lacewing\.([\w.]+)\.(\w+)` \| ([^|]+) \|$", PAGES["SECURITY.md"], re.MULTILINE)
    assert len(rows) > 20
    for module, name, text in rows:
        number, _, unit = text.partition(" ")
        base, _, power = number.partition("**")
        value = float(base) ** float(power or 1) * UNITS.get(unit, 1)
        assert getattr(importlib.import_module(f"lacewing.{module}"), name) == value, f"{module}.{name}"


def test_the_changelog_names_this_version():
    import lacewing

    assert re.search(rf"^## \[(Unreleased\]: )?{re.escape(lacewing.__version__)}", PAGES["CHANGELOG.md"], re.MULTILINE)
    assert f'version = "{lacewing.__version__}"' in (ROOT / "pyproject.toml").read_text()
