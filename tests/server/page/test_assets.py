"""How the files of the page are served, and what is in them; without a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import lacewing.server.page
from lacewing.server.page.assets import assets
from tests.server.page.scripted import Script, serving

WEB = Path(lacewing.server.page.__file__).parent / "web"
FILES = sorted(path.relative_to(WEB).as_posix() for path in WEB.rglob("*") if path.is_file())
HTML = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client() as made:
        yield made


def source(name: str) -> str:
    return (WEB / name).read_text(encoding="utf-8")


def test_a_browser_gets_the_page_and_others_a_text(client: httpx.Client, url: str):
    page = client.get(url, headers=HTML)
    assert page.status_code == 200 and page.headers["content-type"] == "text/html; charset=utf-8" and "<title>Lacewing" in page.text
    for headers in ({}, {"accept": "application/json"}, {"accept": "*/*"}):
        other = client.get(url, headers=headers)
        assert other.text == "Ollama is running" and other.headers["content-type"].startswith("text/plain")
    assert client.head(url).status_code == 200
    assert page.headers["vary"] == other.headers["vary"] == "Accept"  # a cache does not give one for the other


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served(client: httpx.Client, url: str, name: str):
    found = client.get(f"{url}/page/{name}")
    assert found.status_code == 200 and found.content == (WEB / name).read_bytes()
    assert found.headers["content-type"].partition(";")[0] == TYPES[name.rpartition(".")[2]]
    headers = found.headers
    assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-cache"
    again = client.get(f"{url}/page/{name}", headers={"if-none-match": headers["etag"]})
    assert again.status_code == 304 and not again.content and again.headers["etag"] == headers["etag"]
    other = client.get(f"{url}/page/{name}", headers={"if-none-match": '"another", W/"old"'})
    assert other.status_code == 200


def test_the_policy(client: httpx.Client, url: str):
    policy = client.get(url, headers=HTML).headers["content-security-policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert {name: rule for name, rule in rules.items() if "'self'" in rule} == dict.fromkeys(
        ("script-src", "style-src", "connect-src", "img-src", "manifest-src"), "'self'"
    )
    assert rules["require-trusted-types-for"] == "'script'" and not re.search(r"unsafe|\*|http|data:|blob:", policy)


@pytest.mark.parametrize(
    "path", ["", "nothing.js", "../assets.py", "..%2fassets.py", "%2e%2e/assets.py", "/etc/passwd", "assets.py", "core"]
)
def test_nothing_else_is_served(client: httpx.Client, url: str, path: str):
    assert client.get(f"{url}/page/{path}").status_code == 404


def test_files_need_no_key_and_everything_else_does(client: httpx.Client, models: Path):
    with serving(models, Script(), api_keys=("a-key-of-this-test",)) as url:
        assert client.get(url, headers=HTML).status_code == 200
        assert client.get(f"{url}/page/main.js").status_code == 200
        for path in ("/v1/models", "/models", "/page", "/pagex", "//", "/page/../v1/models"):
            assert client.get(f"{url}{path}", follow_redirects=False).status_code in (401, 404)
        assert client.get(f"{url}/v1/models").status_code == 401
        assert client.post(url, json={}).status_code == 401


@pytest.mark.parametrize("name", FILES)
def test_files_are_short(name: str):
    assert len(source(name).splitlines()) <= 300


def test_all_that_is_named_is_there():
    for name in re.findall(r'(?:href|src)="page/([^"]+)"', source("index.html")):
        assert name in assets()
    for name in FILES:
        if name.endswith(".js"):
            for path in re.findall(r'from "([^"]+)"', source(name)):
                assert path.startswith(".") and (WEB / name).parent.joinpath(path).resolve().is_file(), f"{name} imports {path}"
    named = {path for name in FILES for path in re.findall(r"([\w-]+\.(?:js|css|svg))\"", source(name))}
    assert {Path(name).name for name in FILES} - {"index.html"} == named


FORBIDDEN = (
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|\beval\(|new Function|setHTML"
)


@pytest.mark.parametrize("name", FILES)
def test_no_file_makes_markup_of_text_or_names_another_host(name: str):
    text = source(name)
    assert not re.search(FORBIDDEN, text)
    assert not re.search(r"https?://(?!www\.w3\.org/)[\w.]", text)
    assert not re.search(r"<(style|script)(?![^>]*src=)[ >]| on\w+=| style=", text) or not name.endswith((".html", ".svg"))


def test_parts_import_downwards():
    """core knows net and nothing above; text and mathematics only elements; views are known by main alone."""
    rooms = ("views", "files", "net", "text", "maths", "core")
    below = {"views": rooms, "files": ("files", "core"), "net": ("net", "core"), "text": ("text", "maths", "core"),
             "maths": ("maths", "core"), "core": ("core", "net")}  # fmt: skip
    for name in FILES:
        room = name.partition("/")[0]
        if name.endswith(".js") and room in below:
            for path in re.findall(r'from "([^"]+)"', source(name)):
                target = (WEB / name).parent.joinpath(path).resolve().relative_to(WEB).parts[0]
                assert target in below[room], f"{name} imports {path}"
