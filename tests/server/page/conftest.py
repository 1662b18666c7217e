"""Chromium, a server whose models say what a test wants, and a page of it that may do nothing wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.checkpoints import tiny
from tests.server.page.scripted import Script, serving
from tools import chromium

PATIENCE = 30_000  # ms; a machine may be busy


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and "browser_page" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One for all tests of the page, which must not run event loops in this thread: Playwright has one here."""
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium.find(), args=list(chromium.ARGUMENTS))
        yield started
        started.close()


@pytest.fixture(scope="package")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models: "llama-wide-Q4_0", and "qwen3moe-F32", a mixture."""
    folder = tmp_path_factory.mktemp("models")
    tiny("llama-wide", "gguf", folder, "Q4_0", max_position_embeddings=1 << 17)
    tiny("qwen3moe", "gguf", folder, max_position_embeddings=1 << 14)
    return folder


@pytest.fixture(scope="package")
def package_script() -> Script:
    return Script()


@pytest.fixture(scope="package")
def url(models: Path, package_script: Script) -> Iterator[str]:
    with serving(models, package_script) as address:
        yield address


@pytest.fixture
def script(package_script: Script) -> Script:
    """What the models say in this test."""
    fresh = Script()
    vars(package_script).update(vars(fresh))
    return package_script


@dataclass
class Watched:
    """What a page did that it must not: errors, messages of the console (violations of the policy are such), foreign hosts."""

    wrong: list[str] = field(default_factory=list)
    allowed: set[str] = field(default_factory=set)  # parts of messages that a test expects

    def follow(self, page: Page, url: str) -> None:
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("console", self._console)
        page.on("request", lambda request: self._request(request.url, url))
        page.on("dialog", lambda dialog: (self.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(part in message.text for part in self.allowed):
            self.wrong.append(f"console: {message.text}")

    def _request(self, asked: str, url: str) -> None:
        foreign = urlsplit(asked).scheme not in ("blob", "data") and urlsplit(asked).netloc != urlsplit(url).netloc
        if foreign and not any(part in asked for part in self.allowed):
            self.wrong.append(f"request: {asked}")


@pytest.fixture
def watched() -> Iterator[Watched]:
    found = Watched()
    yield found
    assert not found.wrong


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A person with an empty browser."""
    made = browser.new_context(viewport={"width": 1100, "height": 800}, accept_downloads=True)
    made.set_default_timeout(PATIENCE)
    yield made
    made.close()


@pytest.fixture
def browser_page(context: BrowserContext, watched: Watched) -> Page:
    """A window of that browser, empty."""
    return context.new_page()


@pytest.fixture
def page(browser_page: Page, watched: Watched, url: str, script: Script) -> Page:
    """The web page, opened."""
    watched.follow(browser_page, url)
    return opened(browser_page, url)


def opened(page: Page, url: str) -> Page:
    page.goto(url)
    page.wait_for_selector("html[data-ready]")
    return page


def ask(page: Page, text: str) -> None:
    """Sends a message."""
    page.fill("#draft", text)
    page.press("#draft", "Enter")


def finished(page: Page) -> str:
    """The text of the last answer, once it is whole."""
    page.wait_for_function("() => { const all = document.querySelectorAll('.message.assistant'); return all.length"
                           " && !document.querySelector('.message.coming') }")  # fmt: skip
    return page.locator(".message.assistant > .body > .text").last.inner_text()
