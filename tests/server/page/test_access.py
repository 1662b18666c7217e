"""Keyboards, screen readers, narrow screens, dark ones; and the API key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Page, expect

from tests.server.page.conftest import PATIENCE, Watched, ask, finished, opened
from tests.server.page.scripted import Script, serving

RICH = """# Title

Some **text** with `code`, a [link](https://a.example) and $x^2$.

```python
print("hello")
```

| a | b |
|---|---|
| 1 | 2 |

1. one
2. two"""
KEY = "a-key-of-this-test-server"


def faults(page: Page) -> list[str]:
    """What axe finds; the page is asked with its policy off, since axe is a script of somebody else."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [f"{each['id']}: {each['help']}: {[node['html'][:200] for node in each['nodes']]}" for each in found]


@pytest.fixture
def context(browser):
    made = browser.new_context(viewport={"width": 1100, "height": 800}, bypass_csp=True)
    made.set_default_timeout(PATIENCE)
    yield made
    made.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(page: Page, script: Script, scheme: str):
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    assert not faults(page)
    script.answers = [f"<think>Hm.</think>\n\n{RICH}"]
    ask(page, "Show everything")
    finished(page)
    page.get_by_role("button", name="Answer again").click()
    finished(page)
    assert not faults(page)
    for button in ("#show-settings", "#model", "#show-keys"):
        page.click(button)
        assert not faults(page)
        page.keyboard.press("Escape")
    page.click("#show-more")
    assert not faults(page)


def test_everything_with_the_keyboard(page: Page, script: Script):
    expect(page.locator("#draft")).to_be_focused()
    page.keyboard.type("Hello")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("there")
    page.keyboard.press("Enter")
    finished(page)
    assert "Hello\nthere" in script.prompts[0]
    expect(page.locator("#draft")).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("textbox", name="Edit the message")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Shift+KeyO")
    expect(page.locator(".welcome")).to_be_visible()
    page.keyboard.press("Control+KeyK")
    expect(page.locator("#filter")).to_be_focused()
    page.keyboard.type("there")
    page.keyboard.press("Tab")
    expect(page.locator("#conversations .title")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".message")).to_have_count(2)
    page.keyboard.press("Control+Comma")
    expect(page.locator("#system")).to_be_focused()
    page.keyboard.press("Escape")
    page.locator("#show-more").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("menuitem", name="Rename")).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("menuitem", name="Delete")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#show-more")).to_be_focused()
    page.keyboard.press("Shift+Slash")
    expect(page.locator("dialog")).to_contain_text("new conversation")


def test_screen_readers_hear_the_answer_once(page: Page, script: Script):
    script.answers, script.piece, script.held = ["First sentence. " * 20], 8, True
    ask(page, "Speak")
    expect(page.locator("#announcer")).to_have_text("The model answers.")
    expect(page.locator(".message.assistant")).to_have_attribute("aria-busy", "true")
    script.held = False
    finished(page)
    expect(page.locator("#announcer")).to_contain_text("Answer: First sentence.")
    assert page.locator(".message.assistant").get_attribute("aria-busy") is None
    assert page.locator("#messages[aria-live], #path[aria-live]").count() == 0


def test_nothing_sticks_out_at_360_pixels(page: Page, script: Script):
    page.set_viewport_size({"width": 360, "height": 740})
    script.answers = [
        RICH + "\n\n" + "unbroken" * 60 + "\n\n```\n" + "x" * 500 + "\n```\n\n$$" + "+".join("abcdefghijklmnop" * 6) + "$$"
    ]
    ask(page, "y" * 300)
    finished(page)
    wide = "(names) => [...document.querySelectorAll(names)].filter((each) => each.scrollWidth > 360).map((each) => each.outerHTML)"
    assert page.evaluate(wide, "body, main, #bar, #messages, #path, .message, #composer") == []
    page.click("#open-sidebar")
    expect(page.locator("#close-sidebar")).to_be_focused()
    page.locator("#conversations .title").click()
    expect(page.locator("#sidebar")).not_to_be_visible()
    page.click("#show-settings")
    assert page.evaluate("() => document.querySelector('dialog').scrollWidth <= document.querySelector('dialog').clientWidth")
    heights = page.evaluate("() => [...document.querySelectorAll('button')].map((each) => each.offsetHeight)")
    assert all(height == 0 or height >= 24 for height in heights)  # large enough for a finger; 0: hidden


def test_the_theme_is_the_systems_or_a_persons(page: Page):
    ground = "() => getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ground)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(ground)
    assert light != dark
    page.click("#theme")
    assert page.locator("#theme").inner_text() == "Theme: light" and page.evaluate(ground) == light
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.evaluate(ground) == light


def test_dark_is_the_same_whoever_says_it():
    """The two places where the style sheet has the dark colours agree."""
    source = (Path(__file__).parents[3] / "src/lacewing/server/page/web/styles/base.css").read_text(encoding="utf-8")
    places = [re.findall(r"(--[\w-]+): ([^;]+);", block) for block in re.findall(r"color-scheme: dark;(.*?)\}", source, re.DOTALL)]
    assert len(places) == 2 and places[0] == places[1] and len(places[0]) > 15


@pytest.mark.parametrize("stay", [False, True])
def test_an_api_key_is_asked_for_and_kept(context: BrowserContext, watched: Watched, models: Path, stay: bool):
    watched.allowed.add("401 (Unauthorized)")
    script = Script()
    with serving(models, script, api_keys=(KEY,)) as url:
        page = context.new_page()
        watched.follow(page, url)
        page.goto(url)
        page.get_by_label("Key", exact=True).fill("wrong")
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("dialog")).to_contain_text("does not accept")
        page.get_by_label("Key", exact=True).fill(KEY)
        page.get_by_label("Remember it").set_checked(stay)
        page.get_by_role("button", name="Use it").click()
        ask(page, "Hello")
        assert finished(page) == "Yes."
        page.reload()
        page.wait_for_selector("html[data-ready]")
        assert page.locator("dialog").count() == 0
        other = context.new_page()  # a later visit
        if stay:
            opened(other, url)
        else:
            other.goto(url)
            expect(other.get_by_label("Key", exact=True)).to_be_visible()
        assert page.evaluate("() => Object.keys(localStorage).includes('lacewing.key')") is stay
