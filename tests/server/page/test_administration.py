"""Models from the page: loaded, changed, unloaded, the context's meter, and the load of experts; and a real model that answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from lacewing.options import LoadOptions
from lacewing.server.options import ServerOptions
from lacewing.server.worker import Worker
from tests.server.page.conftest import Watched, ask, finished, opened
from tests.server.page.scripted import Script, serving_with

MIXTURE, DENSE = "qwen3moe-F32", "llama-wide-Q4_0"


@pytest.fixture(scope="module")
def real_url(models: Path):
    """A server whose models really run."""
    options = ServerOptions(models_dir=models, on_demand=True, load=LoadOptions("cpu", sequences=2, context=4096, threads=1))
    with serving_with(Worker, options) as url:
        yield url


@pytest.fixture
def real_page(browser_page: Page, watched: Watched, real_url: str) -> Page:
    watched.follow(browser_page, real_url)
    return opened(browser_page, real_url)


def use(page: Page, name: str) -> None:
    page.click("#model")
    page.locator("#models .choose", has_text=name).click()


def row(page: Page, name: str):
    return page.locator("#models li", has_text=name)


def load(page: Page, name: str) -> None:
    """In the open dialog, unless another test has done it."""
    button = page.get_by_role("button", name=f"Load {name}", exact=True)
    unload = page.get_by_role("button", name=f"Unload {name}", exact=True)
    expect(button.or_(unload)).to_be_visible()
    if button.is_visible():
        button.click()
    expect(unload).to_be_visible()


def limit(page: Page, tokens: int) -> None:
    page.click("#show-settings")
    page.fill("#set-max_tokens", str(tokens))
    page.get_by_role("button", name="Apply").click()


def test_models_are_loaded_and_unloaded(real_page: Page):
    page = real_page
    use(page, DENSE)
    load(page, DENSE)
    expect(row(page, DENSE)).to_contain_text("llama · 1.3 M · Q4_0")
    page.get_by_role("button", name=f"Unload {DENSE}", exact=True).click()
    expect(row(page, DENSE)).to_contain_text("not in memory")
    page.keyboard.press("Escape")
    limit(page, 8)
    ask(page, "Hello")
    finished(page)
    expect(page.locator("#model")).to_have_attribute("aria-label", f"Model: {DENSE}, in memory")


def test_template_and_residency_change_with_the_history_kept(real_page: Page):
    page = real_page
    use(page, DENSE)
    load(page, DENSE)  # the form begins anew when a model has been loaded
    page.keyboard.press("Escape")
    limit(page, 8)
    ask(page, "Hello")
    finished(page)
    page.click("#model")
    page.select_option("#template", "chatml")
    page.select_option("#residency", "lazy")
    page.get_by_role("button", name="Change it").click()
    page.wait_for_function("() => document.querySelector('#template')?.dataset.before === 'chatml'")
    page.wait_for_function("() => document.querySelector('#residency')?.value === 'lazy'")
    page.keyboard.press("Escape")
    with page.expect_request("**/v1/chat/completions") as asked:
        ask(page, "Again")
    assert [each["content"] for each in asked.value.post_data_json["messages"]][0::2] == ["Hello", "Again"]
    finished(page)
    page.click("#model")
    page.select_option("#template", "auto")
    page.get_by_role("button", name="Change it").click()
    page.wait_for_function("() => document.querySelector('#template')?.dataset.before === 'auto'")


def test_only_mixtures_are_streamed(real_page: Page):
    page = real_page
    use(page, DENSE)
    load(page, DENSE)
    expect(page.locator("#residency option[value=streamed]")).to_have_count(0)
    page.keyboard.press("Escape")
    use(page, MIXTURE)
    load(page, MIXTURE)
    for residency in ("streamed", "eager"):
        page.select_option("#residency", residency)
        page.evaluate("document.querySelector('#residency').dataset.old = ''")
        page.get_by_role("button", name="Change it").click()
        expect(page.locator("#residency:not([data-old])")).to_have_value(residency)


def test_a_change_that_fails_is_told(real_page: Page, watched: Watched):
    watched.allowed.add("400 (Bad Request)")
    page = real_page
    use(page, DENSE)
    load(page, DENSE)
    page.select_option("#template", "llama3")
    expect(page.locator(".findings")).to_contain_text("the vocabulary lacks")
    page.get_by_role("button", name="Change it").click()
    expect(page.locator("#models .problem")).to_contain_text("<|start_header_id|>")
    page.get_by_label("Even where the server advises against it").check()
    page.get_by_role("button", name="Change it").click()
    page.wait_for_function("() => document.querySelector('#template')?.dataset.before === 'llama3'")
    page.select_option("#template", "auto")
    page.get_by_role("button", name="Change it").click()
    page.wait_for_function("() => document.querySelector('#template')?.dataset.before === 'auto'")


def test_the_meter_tells_how_full_the_context_is(real_page: Page):
    page = real_page
    use(page, DENSE)
    page.keyboard.press("Escape")
    bar = page.get_by_role("meter", name="Context")
    limit(page, 8)
    ask(page, "Hello there")
    finished(page)
    expect(bar).to_have_attribute("aria-valuemax", "4096")
    first = int(bar.get_attribute("aria-valuenow") or 0)
    assert 20 < first < 100
    ask(page, "word " * 60)
    finished(page)
    assert int(bar.get_attribute("aria-valuenow") or 0) > first + 100
    page.click("#show-settings")
    page.fill("#system", "pirate " * 50)
    page.get_by_role("button", name="Apply").click()
    page.locator(".message.user").last.hover()
    page.locator(".message.user").last.get_by_role("button", name="Delete this").click()
    page.wait_for_function(
        f"() => Number(document.querySelector('[role=meter]').ariaValueNow) > {first + 100}"
    )  # counted by the server


def test_a_full_context_is_told_and_the_oldest_left_out(real_page: Page, watched: Watched):
    watched.allowed.add("400 (Bad Request)")
    page = real_page
    use(page, DENSE)
    page.keyboard.press("Escape")
    limit(page, 8)
    for text in ("first " + "x" * 1500, "second " + "y" * 1500):
        ask(page, text)
        finished(page)
    ask(page, "third " + "z" * 1500)
    expect(page.locator(".message .problem")).to_contain_text("4096")
    with page.expect_request("**/v1/chat/completions") as asked:
        page.get_by_role("button", name="Leave out the oldest messages and try again").click()
    assert [each["content"].split(" ")[0] for each in asked.value.post_data_json["messages"]][0::2] == ["second", "third"]
    finished(page)
    expect(page.locator(".left-note")).to_contain_text("2 messages above")
    assert page.locator(".message .problem").count() == 0


def test_the_experts_of_a_mixture(real_page: Page):
    page = real_page
    use(page, DENSE)
    page.keyboard.press("Escape")
    expect(page.locator("#show-experts")).to_be_hidden()
    use(page, MIXTURE)
    load(page, MIXTURE)
    page.keyboard.press("Escape")
    page.click("#show-experts")
    expect(page.locator("#experts")).to_contain_text("Ask something")
    limit(page, 40)
    ask(page, "Hello")
    finished(page)
    expect(page.locator("#experts")).to_contain_text("2 layers of 8 experts, 3 for each token.")
    page.locator("#experts summary").click()
    expect(page.locator("#experts tbody tr")).to_have_count(2)
    expect(page.locator("#experts tbody")).to_contain_text("×")
    painted = page.evaluate("""() => {
      const canvas = document.querySelector('#experts canvas');
      const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      return new Set(Array.from({ length: data.length / 4 }, (_, at) => data.slice(4 * at, 4 * at + 4).join())).size;
    }""")
    assert painted >= 4  # shades of several loads
    page.hover("#experts canvas", position={"x": 5, "y": 5})
    expect(page.locator("#experts .note")).to_contain_text("Layer 0, expert 0:")
    with page.expect_response("**/models/experts?*"):
        pass  # the load is drawn again each second
    page.wait_for_timeout(50)
    expect(page.locator("#experts .note")).to_contain_text("Layer 0, expert 0:")
    page.mouse.move(0, 0)
    expect(page.locator("#experts .note")).to_contain_text("2 layers of 8 experts")
    page.get_by_role("button", name="Close the experts").click()
    expect(page.locator("#experts")).to_be_hidden()


def test_loading_is_shown_while_an_answer_waits(page: Page, script: Script):
    """Slowed down on its way, since these models load at once."""
    page.route("**/models/sse", lambda route: route.fulfill(content_type="text/event-stream", body=LOADING))
    page.route("**/v1/chat/completions", lambda route: None)
    page.route("**/v1/models", lambda route: route.fulfill(json={"object": "list", "data": [UNLOADED]}))
    page.reload()
    page.wait_for_selector("html[data-ready]")
    ask(page, "Hello")
    expect(page.locator(".waiting")).to_contain_text("Loading the model: reading weights, 25 %")
    page.click("#send")
    finished(page)


UNLOADED = {"id": DENSE, "default": True, "status": {"value": "unloaded"}, "context": 4096, "capabilities": [], "experts": None}
PROGRESS = {"stages": ["reading weights"], "current": "reading weights", "value": 0.25, "done": 1, "total": 4}
STATUS = {"model": DENSE, "event": "model_status", "data": {"status": "loading", "progress": PROGRESS}}
LOADING = f"data: {json.dumps(STATUS)}\n\n"


def test_a_real_model_answers(browser_page: Page, watched: Watched, smollm2_path: Path):
    options = ServerOptions(
        models=(str(smollm2_path),), on_demand=True, load=LoadOptions("cpu", sequences=1, context=1024, threads=2)
    )
    with serving_with(Worker, options) as url:
        watched.follow(browser_page, url)
        page = opened(browser_page, url)
        page.click("#show-settings")
        page.fill("#set-temperature", "0")
        page.fill("#set-max_tokens", "24")
        page.get_by_role("button", name="Apply").click()
        ask(page, "Name the capital of Italy.")
        assert "Rome" in finished(page)
        ask(page, "Thanks. Say it again.")
        assert finished(page)
        expect(page.locator(".message.assistant .stats").last).to_contain_text("prompt tokens cached")
