"""The shape of the source: who may import whom, which library belongs to which part, how long a file may be. Data first."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "lacewing"

# Highest first. A part imports only from lower lines; the parts of one line never import each other.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("chat", "server"),
    ("console",),
    ("__init__",),
    ("api",),
    ("assistant",),
    ("placement",),
    ("engine",),
    ("offload",),
    ("text", "hub"),
    ("models",),
    ("weights",),
    ("backends",),
    ("program", "formats"),
    ("quants",),
    ("options", "paths"),
    ("errors",),
)
# Within the chat: a session knows none of the services that work on it, and the commands call these.
CHAT_ROOMS = ("terminal", "commands", "services", "session", "client")
# Files that may name one backend; all others see `backends` and its contract, `backends.base`.
KNOWS_A_BACKEND = {"cli/bench.py": "cpu"}  # asks for the read bandwidth

SHARED = "gpu"  # of the folders of backends the one that others there may use

# Where each library may be imported. One that is not here may not be imported at all.
LIBRARIES = {
    "numpy": ("api", "assistant", "backends", "engine", "formats", "models", "offload", "program", "quants", "text", "weights"),
    "numba": ("backends/cpu",),
    "llvmlite": ("backends/cpu",),
    "tokenizers": ("text",),
    "jinja2": ("text", "backends/webgpu"),
    "wgpu": ("backends/webgpu",),
    "wgpudawn": ("backends/webgpu/device/bindings",),
    "cuda": ("backends/cuda",),
    "huggingface_hub": ("hub",),
    "rich": ("cli", "chat"),
    "markdown_it": ("chat",),
    "typer": ("cli",),
    "prompt_toolkit": ("chat",),
    "psutil": ("weights", "backends", "server/responses/store"),
    "platformdirs": ("paths",),
    "httpx": ("chat/client",),
    "httpx_sse": ("chat/client",),
    "starlette": ("server",),
    "pydantic": ("server",),
    "uvicorn": ("server",),
    "prometheus_client": ("server",),
    "opentelemetry": ("server",),
    "llguidance": ("assistant/grammar",),
}
# What a person does not wait for: modules that must not come with these imports.
SERVER = ("httptools", "prometheus_client", "opentelemetry", "starlette", "uvicorn", "pydantic")
SLOW = (
    "numba", "cuda", "huggingface_hub", "httpx", "torch", "transformers", "gguf", "safetensors", "wgpu", "wgpudawn", "llguidance",
    *SERVER,
)  # fmt: skip
LAZY = {
    "import lacewing": ("numpy", "tokenizers", "jinja2", "typer", "rich", "llvmlite", *SLOW),
    "import lacewing.cli.app": ("numpy", "tokenizers", "jinja2", "llvmlite", *SLOW),
    "import lacewing.api, lacewing.formats, lacewing.models, lacewing.weights": ("tokenizers", "jinja2", "llvmlite", *SLOW),
    "import lacewing.engine.engine, lacewing.assistant.reply": ("tokenizers", "jinja2", "llvmlite", *SLOW),
    "import lacewing.backends.cpu": SLOW,
    "import lacewing.backends.webgpu": ("jinja2", *SLOW),
    "import lacewing.backends.cuda": ("jinja2", *SLOW),
}

WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
FILE_LINES, FUNCTION_LINES = 330, 60

FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
BACKENDS = sorted({file.split("/")[1] for file in FILES if file.startswith("backends/") and file.count("/") > 1})


def of_every_file(rule: Callable[[str], Iterator[str]]) -> Callable[[], None]:
    """A test that no file breaks a rule, which yields what is wrong with one. A test a file would be thousands."""

    @functools.wraps(rule)
    def test() -> None:
        found = [told for file in FILES for told in rule(file)]
        assert not found, "\n".join(found)

    del test.__wrapped__  # pytest would see the rule's argument
    return test


@functools.cache
def nodes_of(file: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(FILES[file].read_text(encoding="utf-8"))))


@pytest.fixture(scope="module", autouse=True)
def _forget() -> Iterator[None]:
    """The nodes of all files are some 100 MB."""
    yield
    nodes_of.cache_clear()


def part_of(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


@functools.cache
def imports(file: str) -> tuple[tuple[int, str], ...]:
    """Line and dotted name of everything that a file imports, also inside functions."""
    return tuple(_imports(file))


def _imports(file: str) -> Iterator[tuple[int, str]]:
    for node in nodes_of(file):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} is a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ((node.lineno, name) for name in names)


def own_imports(file: str) -> Iterator[tuple[int, list[str]]]:
    """Line and path under `lacewing` of the project's own modules."""
    for line, name in imports(file):
        first, *rest = name.split(".")
        if first == "lacewing" and rest and rest[0] != "__version__":
            yield line, rest


def test_every_part_has_its_place():
    placed = {part for layer in LAYERS for part in layer}
    assert {part_of(file) for file in FILES} <= placed


@of_every_file
def test_imports_go_down(file):
    height = {part: -row for row, layer in enumerate(LAYERS) for part in layer}
    part = part_of(file)
    for line, path in own_imports(file):
        target = path[0] if path[0] in height else "__init__"
        if target != part and height[target] >= height[part]:
            yield f"{file}:{line}: {part} imports {target}, which is not below it"


@of_every_file
def test_rooms_of_the_chat(file):
    if not file.startswith("chat/") or file.count("/") != 2:
        return
    below = CHAT_ROOMS[CHAT_ROOMS.index(file.split("/")[1]) :]
    for line, path in own_imports(file):
        if path[0] == "chat" and path[1] not in below:
            yield f"{file}:{line}: imports chat.{path[1]}, which is not below it"


def imported_files(file: str) -> set[str]:
    """Files of ours that a file imports from, also for types and inside functions."""
    found = set()
    for _, path in own_imports(file):
        names = ["/".join(path[:length]) for length in range(len(path), 0, -1)]
        candidates = (each for name in names for each in (f"{name}.py", f"{name}/__init__.py"))
        found.add(next((each for each in candidates if each in FILES), "__init__.py"))
    return found - {file}


def circles() -> list[set[str]]:
    """Sets of files that reach each other by imports, the largest that there are."""
    reached = {file: imported_files(file) for file in FILES}
    for middle in FILES:  # Warshall's closure
        for file in FILES:
            if middle in reached[file]:
                reached[file] |= reached[middle]
    found = {frozenset(each for each in reached[file] if file in reached[each]) for file in FILES if file in reached[file]}
    return [set(circle) for circle in found]


def test_no_import_circles():
    """Imports for types count: what names another file's types depends on it."""
    found = ["these import each other: " + ", ".join(sorted(circle)) for circle in circles()]
    assert not found


@of_every_file
def test_backends_stay_apart(file):
    own = file.split("/")[1] if part_of(file) == "backends" else KNOWS_A_BACKEND.get(file)
    for line, path in own_imports(file):
        foreign = path[0] == "backends" and len(path) > 1 and path[1] in BACKENDS and path[1] != own
        if foreign and not (own in BACKENDS and path[1] == SHARED):
            yield f"{file}:{line} reaches into the backend {path[1]}"


@of_every_file
def test_backends_are_named_in_few_places(file):
    """Others take the constants of `options`, so that no decision hangs on a word."""
    if part_of(file) in ("backends", "cli", "options"):
        return
    folders = "|".join(each for each in BACKENDS if each != SHARED)
    names = re.compile(rf"^({folders})$|--backend[ =]({folders})|webgpu")
    bodies = [node.body[0] for node in nodes_of(file) if isinstance(node, WITH_DOCSTRING) and node.body]
    docstrings = {id(body.value) for body in bodies if isinstance(body, ast.Expr)}
    for node in nodes_of(file):
        told = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
        if told and names.search(node.value):
            yield f"{file}:{node.lineno}: {node.value!r}"


@of_every_file
def test_libraries_stay_in_their_parts(file):
    for line, name in imports(file):
        library = name.split(".")[0]
        known = library == "lacewing" or library in sys.stdlib_module_names
        if not known and not file.removesuffix(".py").startswith(LIBRARIES.get(library, ())):
            yield f"{file}:{line} imports {library}"


@pytest.mark.parametrize("statement", LAZY)
def test_imports_are_light(statement):
    code = f"import sys\n{statement}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "lacewing" in loaded and not set(LAZY[statement]) & set(loaded)


@of_every_file
def test_files_and_functions_are_short(file):
    lines = len(FILES[file].read_text(encoding="utf-8").splitlines())
    if lines > FILE_LINES:
        yield f"{file} has {lines} lines: divide it"
    for node in nodes_of(file):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            length = node.end_lineno - node.lineno + 1
            if length > FUNCTION_LINES:
                yield f"{file}:{node.lineno} {node.name} has {length} lines: divide it"


def test_exceptions_are_still_needed():
    assert set(KNOWS_A_BACKEND) <= set(FILES)


@of_every_file
def test_input_is_never_asserted(file):
    """Python removes `assert` when told to optimise; what a person or a file gives is checked with an error of ours."""
    yield from (f"{file}:{node.lineno} asserts" for node in nodes_of(file) if isinstance(node, ast.Assert))


def test_public_names():
    import lacewing

    assert all(hasattr(lacewing, name) for name in lacewing.__all__)
    assert sorted(lacewing.__all__) == [
        "LacewingError",
        "Model",
        "Sampling",
        "__version__",
        "init_backend",
        "load",
        "load_tokenizer",
    ]
