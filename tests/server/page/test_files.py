"""Conversations as files: of this page with all versions, of the terminal chat both ways, and what cannot be opened."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from playwright.sync_api import Download, Page, expect

from lacewing.chat.services import document, files
from lacewing.chat.services.identity import identity_of
from lacewing.chat.services.opening import open_session
from lacewing.chat.session.session import Session
from lacewing.chat.session.settings import Settings
from lacewing.options import LoadOptions, Sampling
from tests.server.page.conftest import ask, finished
from tests.server.page.scripted import Script
from tests.server.page.test_conversation import texts


def exported(page: Page, name: str) -> Download:
    page.click("#show-more")
    with page.expect_download() as download:
        page.get_by_role("menuitem", name=name).click()
    return download.value


def opened_file(page: Page, name: str, data: bytes) -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "application/json", "buffer": data})


def forget(page: Page) -> None:
    page.click("#show-more")
    page.get_by_role("menuitem", name="Delete").click()
    page.locator("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#conversations .title")).to_have_count(0)


def test_an_export_has_all_versions(page: Page, script: Script, tmp_path: Path):
    script.answers = ["One.", "<think>Hm.</think>\n\nTwo é\N{GRINNING FACE}."]
    ask(page, "Question?")
    finished(page)
    page.get_by_role("button", name="Answer again").click()
    finished(page)
    download = exported(page, "Export with all versions")
    assert download.suggested_filename == "Question.lacewing.json"
    download.save_as(tmp_path / "kept.json")
    forget(page)
    opened_file(page, "kept.json", (tmp_path / "kept.json").read_bytes())
    expect(page.locator(".message")).to_have_count(2)
    assert texts(page) == ["Question?", "Two é\N{GRINNING FACE}."]
    page.get_by_role("button", name="Previous version").click()
    assert texts(page) == ["Question?", "One."]


def test_all_conversations_in_one_file(page: Page, script: Script, tmp_path: Path):
    for text in ("First", "Second"):
        page.click("#new")
        ask(page, text)
        finished(page)
    with page.expect_download() as download:
        page.click("#export-all")
    download.value.save_as(tmp_path / "all.json")
    opened_file(page, "all.json", (tmp_path / "all.json").read_bytes())
    expect(page.locator("#conversations .title")).to_have_count(4)


def test_markdown_for_people(page: Page, script: Script, tmp_path: Path):
    script.answers = ["It is **four**."]
    ask(page, "2 + 2?")
    finished(page)
    download = exported(page, "Export as Markdown")
    assert Path(download.path()).read_text(encoding="utf-8") == "# 2 + 2?\n\n## You\n\n2 + 2?\n\n## Model\n\nIt is **four**.\n"


@pytest.fixture
def chat(models: Path) -> Iterator[Session]:
    """A session of the terminal chat with the model that the server has."""
    session = open_session(str(models / "llama-wide-Q4_0.gguf"), LoadOptions("cpu", context=512, threads=1), Sampling())
    yield session
    session.close()


def test_an_export_opens_in_the_chat(page: Page, script: Script, tmp_path: Path, chat: Session):
    page.click("#show-settings")
    page.fill("#system", "Be brief; é \N{GRINNING FACE}.")
    page.fill("#set-temperature", "0.25")
    page.fill("#set-seed", "7")
    page.fill("#stop", "END\nHALT")
    page.select_option("#effort", "low")
    page.get_by_role("button", name="Apply").click()
    script.answers = ["<think>So.</think>\n\nFirst é\N{GRINNING FACE}\u2028.", "Second."]
    for text in ("One\n\ttwo \ud7ff", "More"):
        ask(page, text)
        finished(page)
    download = exported(page, "Export for the terminal chat")
    path = tmp_path / "from-page.json"
    download.save_as(path)
    assert document.read_head(path).count == 4 and document.read_head(path).model == "llama-wide-Q4_0"

    lines = files.load(chat, str(path))
    assert [each["role"] for each in chat.messages] == ["user", "assistant"] * 2
    assert chat.messages[0]["content"] == "One\n\ttwo \ud7ff" and chat.messages[1]["content"] == "First é\N{GRINNING FACE}\u2028."
    assert chat.messages[1]["reasoning"] == "So."
    assert chat.settings.system == "Be brief; é \N{GRINNING FACE}." and chat.settings.sampling.temperature == 0.25
    assert chat.settings.sampling.seed == 7 and chat.settings.sampling.stop == ("END", "HALT") and chat.settings.thinking is True
    assert any("was saved with llama-wide-Q4_0 (http://" in line for line in lines)


def test_a_session_of_the_chat_opens_and_goes_back(page: Page, script: Script, tmp_path: Path, chat: Session):
    """Unchanged, it goes back with the model, the settings and the view that it had."""
    chat.messages += [
        {"role": "user", "content": "Hello \ud83d\ude00 there"},
        {"role": "assistant", "content": "General **Kenobi**.", "reasoning": "A greeting."},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "Nothing."},
    ]
    chat.settings = Settings(Sampling(temperature=0.5, logit_bias={5: -1.0}), system="You are terse.", overflow="drop-oldest")
    path = tmp_path / "talk.json"
    files.save(chat, str(path))
    before = document.read(path)

    opened_file(page, "talk.json", path.read_bytes())
    expect(page.locator(".message")).to_have_count(4)
    assert texts(page)[1] == "General Kenobi." and page.locator(".message strong").inner_text() == "Kenobi"
    page.locator(".reasoning > summary").first.click()
    expect(page.locator(".reasoning > .text").first).to_have_text("A greeting.")
    page.click("#show-settings")
    assert page.input_value("#system") == "You are terse." and page.input_value("#set-temperature") == "0.5"
    page.keyboard.press("Escape")
    ask(page, "Go on")
    finished(page)
    assert "You are terse." in script.prompts[0] and "General **Kenobi**." in script.prompts[0]

    again = tmp_path / "again.json"
    exported(page, "Export for the terminal chat").save_as(again)
    after = document.read(again)
    assert after["messages"][:4] == before["messages"] and after["messages"][5] == {"role": "assistant", "content": "Yes."}
    assert after["settings"] == before["settings"] and after["model"] == before["model"] == identity_of(chat.current.info).as_dict()
    assert after["template"] == before["template"] and datetime.fromisoformat(after["saved"]).tzinfo is not None
    files.load(chat, str(again))
    assert len(chat.messages) == 6


BROKEN = {
    "not JSON": b"hello",
    "another": b'{"a": 1}',
    "a list": b"[1]",
    "a later version": b'{"lacewing_page": 9, "conversations": []}',
    "no list": b'{"lacewing_page": 1}',
    "a bad message": b'{"lacewing_page": 1, "conversations": [{"messages": [{"id": 1}]}]}',
    "a stray message": b'{"lacewing_page": 1, "conversations": [{"messages": [{"id": "1", "parent": "2", "role": "user", '
    b'"content": ""}]}]}',
    "a later session": b'{"lacewing_session": 3}',
    "a damaged session": b'{"lacewing_session": 2, "checksum": "' + b"0" * 64 + b'"}',
}


def test_what_cannot_be_opened_is_told(page: Page):
    for name, data in BROKEN.items():
        opened_file(page, f"{name}.json", data)
        expect(page.locator(".notice.failed").last).to_contain_text(f"{name}.json cannot be opened. It is")
    assert page.locator("#conversations .title").count() == 0


def test_a_changed_session_is_refused(page: Page, tmp_path: Path, chat: Session):
    chat.messages += [{"role": "user", "content": "Hello"}]
    files.save(chat, str(tmp_path / "talk.json"))
    data = (tmp_path / "talk.json").read_bytes().replace(b"Hello", b"Hallo")
    assert json.loads(data)
    opened_file(page, "talk.json", data)
    expect(page.locator(".notice.failed")).to_contain_text("its checksum is wrong")
