"""A conversation in the browser: asked, stopped, edited, retried, with another model, and there again after a reload."""

from __future__ import annotations

from playwright.sync_api import Page, Route, expect

from tests.server.page.conftest import Watched, ask, finished, opened
from tests.server.page.scripted import Script

SLOW = "word " * 4000


def texts(page: Page) -> list[str]:
    return page.locator(".message > .body > .text").all_inner_texts()


def test_an_answer_streams_and_is_kept(page: Page, script: Script, url: str):
    script.answers = ["<think>Let me see.</think>\n\nIt is **blue**.", "Because of `Rayleigh`."]
    ask(page, "What colour is the sky?")
    assert finished(page) == "It is blue."
    assert page.locator(".message.assistant strong").inner_text() == "blue"
    ask(page, "Why?")
    assert finished(page) == "Because of Rayleigh."
    assert "What colour is the sky?" in script.prompts[1] and "It is **blue**." in script.prompts[1]
    expect(page.locator(".message.assistant .stats").last).to_contain_text("tokens/s · first after")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert texts(page) == ["What colour is the sky?", "It is blue.", "Why?", "Because of Rayleigh."]
    assert page.locator("#conversations .title").all_inner_texts() == ["What colour is the sky?"]
    assert page.title() == "What colour is the sky? – Lacewing"


def test_thoughts_are_folded(page: Page, script: Script):
    script.answers = ["<think>One *two* three.</think>\n\nFour."]
    ask(page, "Count.")
    finished(page)
    summary = page.locator(".reasoning > summary")
    expect(summary).to_contain_text("Thought for")
    expect(page.locator(".reasoning > .text")).to_be_hidden()
    summary.click()
    assert page.locator(".reasoning em").inner_text() == "two"


def test_a_stopped_answer_keeps_what_came_and_goes_on(page: Page, script: Script):
    script.answers, script.pause, script.piece = [SLOW, "and more."], 0.05, 5
    ask(page, "Talk.")
    page.wait_for_function("() => document.querySelector('.message.assistant > .body > .text').innerText.length > 30")
    page.click("#send")
    said = finished(page)
    assert said.startswith("word word") and len(said) < len(SLOW) // 2
    expect(page.locator(".stats").last).to_contain_text("stopped")
    script.pause = 0
    page.get_by_role("button", name="Go on with the answer").click()
    page.wait_for_function("() => document.querySelector('.message.assistant > .body > .text').innerText.endsWith('and more.')")
    assert finished(page).startswith(said)
    assert page.locator(".message.assistant").count() == 1


def test_escape_stops_and_the_server_is_free_again(page: Page, script: Script):
    script.answers, script.pause, script.piece = [SLOW], 0.05, 5
    ask(page, "Talk.")
    page.wait_for_selector(".message.coming > .body > .text:not([hidden])")
    page.keyboard.press("Escape")
    finished(page)
    ask(page, "Again.")
    assert finished(page) == "Yes."


def test_edits_and_retries_make_versions(page: Page, script: Script):
    script.answers = ["One.", "Two.", "Three."]
    ask(page, "First question")
    finished(page)
    page.get_by_role("button", name="Answer again").click()
    assert finished(page) == "Two."
    page.hover(".message.user")
    page.get_by_role("button", name="Edit the message").click()
    area = page.get_by_role("textbox", name="Edit the message")
    area.fill("Second question")
    area.press("Control+Enter")
    page.wait_for_function("() => document.querySelector('.message.user > .body > .text').innerText === 'Second question'")
    assert finished(page) == "Three."
    assert script.prompts[2].count("question") == 1 and "Second question" in script.prompts[2]

    page.locator(".message.user").get_by_role("button", name="Previous version").click()
    assert texts(page) == ["First question", "Two."]
    expect(page.locator(".message.assistant .versions")).to_contain_text("2 / 2")
    page.locator(".message.assistant").get_by_role("button", name="Previous version").click()
    assert texts(page) == ["First question", "One."]
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert texts(page) == ["First question", "One."]
    page.locator(".message.user").get_by_role("button", name="Next version").click()
    assert texts(page) == ["Second question", "Three."]


def test_an_edit_that_is_given_up_changes_nothing(page: Page, script: Script):
    ask(page, "Question")
    finished(page)
    page.hover(".message.user")
    page.get_by_role("button", name="Edit the message").click()
    page.get_by_role("textbox", name="Edit the message").press("Escape")
    expect(page.locator(".message.user .text")).to_be_visible()
    expect(page.get_by_role("button", name="Edit the message")).to_be_focused()
    assert texts(page) == ["Question", "Yes."] and page.locator(".versions").count() == 0


def test_another_model_with_the_history_kept(page: Page, script: Script):
    script.answers = ["From one.", "From another."]
    ask(page, "First")
    finished(page)
    page.click("#model")
    page.locator("#models .choose", has_text="qwen3moe-F32").click()
    page.keyboard.press("Escape")
    ask(page, "Second")
    assert finished(page) == "From another."
    assert page.locator(".message.assistant h2").all_inner_texts() == ["llama-wide-Q4_0", "qwen3moe-F32"]
    assert "First" in script.prompts[1] and "From one." in script.prompts[1]


def test_a_reload_while_an_answer_comes_keeps_its_beginning(page: Page, script: Script):
    script.answers, script.pause, script.piece = [SLOW], 0.05, 10
    ask(page, "Talk.")
    page.wait_for_function("() => document.querySelector('.message.assistant > .body > .text').innerText.length > 300")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.locator(".message.assistant > .body > .text").inner_text().startswith("word word word")
    expect(page.get_by_role("button", name="Go on with the answer")).to_be_visible()


def test_two_windows_show_the_same(page: Page, script: Script, url: str, watched: Watched):
    ask(page, "Shared")
    finished(page)
    other = page.context.new_page()
    watched.follow(other, url)
    opened(other, url)
    assert texts(other) == ["Shared", "Yes."]
    ask(page, "More")
    finished(page)
    other.wait_for_function("() => document.querySelectorAll('.message').length === 4")


def test_several_conversations_answer_at_once(page: Page, script: Script):
    script.answers, script.pause, script.piece = [SLOW, "Quick."], 0.05, 5
    ask(page, "Slow one")
    page.wait_for_selector(".message.coming > .body > .text:not([hidden])")
    page.click("#new")
    ask(page, "Quick one")
    assert finished(page) == "Quick."
    expect(page.locator("#conversations .dot")).to_have_count(1)
    page.locator("#conversations .title", has_text="Slow one").click()
    expect(page.locator(".message.coming")).to_have_count(1)
    page.click("#send")
    finished(page)


def test_a_message_may_be_sent_before_the_models_are_known(browser_page: Page, watched: Watched, url: str, script: Script):
    held: list[Route] = []
    release: list[bool] = []
    watched.follow(browser_page, url)
    browser_page.route("**/v1/models", lambda route: route.continue_() if release else held.append(route))
    browser_page.goto(url)
    browser_page.fill("#draft", "Early")
    browser_page.press("#draft", "Enter")
    browser_page.wait_for_selector(".message.coming")
    assert not script.prompts
    release.append(True)
    for route in held:
        route.continue_()
    assert finished(browser_page) == "Yes." and "Early" in script.prompts[0]


def test_settings_reach_the_model(page: Page, script: Script):
    page.click("#show-settings")
    page.fill("#system", "You are a pirate.")
    page.fill("#set-max_tokens", "7")
    page.get_by_role("button", name="Apply").click()
    with page.expect_request("**/v1/chat/completions") as asked:
        ask(page, "Hello")
    body = asked.value.post_data_json
    assert body["max_tokens"] == 7 and body["messages"][0] == {"role": "system", "content": "You are a pirate."}
    finished(page)
    assert "You are a pirate." in script.prompts[0]


def test_a_tool_is_called_and_its_result_given(page: Page, script: Script):
    page.click("#show-settings")
    page.locator("summary", has_text="Tools").click()
    page.fill("#tools", '[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]')
    page.get_by_role("button", name="Apply").click()
    script.answers = ['<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>', "It is sunny."]
    ask(page, "Weather in Bern?")
    page.get_by_label("Result of weather").fill("sunny, 21 degrees")
    call = page.locator(".call")
    assert "weather" in call.inner_text() and '"city": "Bern"' in call.inner_text()
    page.get_by_role("button", name="Send the results").click()
    page.wait_for_function("() => document.body.innerText.includes('It is sunny.')")
    assert "sunny, 21 degrees" in script.prompts[1]
    finished(page)


def test_what_the_server_refuses_is_told(page: Page, script: Script, watched: Watched):
    watched.allowed.add("400 (Bad Request)")
    page.route("**/v1/chat/completions", lambda route: route.continue_(post_data='{"model": "llama-wide-Q4_0", "messages": []}'))
    ask(page, "Hello")
    problem = page.locator(".message .problem")
    expect(problem).to_contain_text("messages")
    page.unroute("**/v1/chat/completions")
    page.get_by_role("button", name="Answer again").click()
    assert finished(page) == "Yes."
    assert page.locator(".versions").count() == 0  # the failed answer has gone


def test_a_server_that_is_gone_is_told(page: Page, script: Script, watched: Watched):
    watched.allowed.add("net::ERR")
    page.route("**/v1/chat/completions", lambda route: route.abort("connectionrefused"))
    ask(page, "Hello")
    expect(page.locator(".message .problem")).to_contain_text("cannot be reached")


def test_a_deleted_conversation_can_be_had_back(page: Page, script: Script):
    ask(page, "Precious")
    finished(page)
    page.click("#show-more")
    page.get_by_role("menuitem", name="Delete").click()
    page.locator("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#conversations .title")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".message")).to_have_count(2)
    assert texts(page) == ["Precious", "Yes."]
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert texts(page) == ["Precious", "Yes."]


def test_a_conversation_that_is_deleted_while_its_answer_comes_stays_deleted(page: Page, script: Script):
    script.answers, script.pause, script.piece = [SLOW], 0.05, 5
    ask(page, "Talk.")
    page.wait_for_selector(".message.coming > .body > .text:not([hidden])")
    page.click("#show-more")
    page.get_by_role("menuitem", name="Delete").click()
    page.locator("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("The conversation was deleted.")).to_be_visible()
    page.wait_for_function("() => !document.querySelector('.message.coming')")
    page.wait_for_timeout(500)  # what must not come
    assert page.locator("#conversations .title").count() == 0
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.locator("#conversations .title").count() == 0
