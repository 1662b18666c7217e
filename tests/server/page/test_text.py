"""Markdown, mathematics and code as elements: many cases, in the browser that shows them."""

from __future__ import annotations

import hashlib
import re

import pytest
from playwright.sync_api import Browser, Page

from tests.server.page.conftest import Watched

RENDER = """async ([path, name, ...given]) => {
  const found = await import(new URL(path, document.baseURI));
  const holder = document.createElement("div");
  holder.append(...[found[name](...given)].flat());
  return holder.innerHTML;
}"""
MARKDOWN = """async (source) => {
  const { renderBlocks } = await import(new URL("page/text/render.js", document.baseURI));
  const { parseBlocks } = await import(new URL("page/text/blocks.js", document.baseURI));
  const holder = document.createElement("div");
  holder.append(...renderBlocks(parseBlocks(source)));
  return holder.innerHTML;
}"""


@pytest.fixture(scope="module")
def bare(browser: Browser, url: str):
    """A page for all cases of this file."""
    context = browser.new_context()
    page, watched = context.new_page(), Watched()
    watched.follow(page, url)
    page.goto(url)
    page.wait_for_selector("html[data-ready]")
    yield page
    assert not watched.wrong
    context.close()


def shown(page: Page, source: str) -> str:
    """The elements of a Markdown text, without what only looks."""
    html = page.evaluate(MARKDOWN, source)
    html = re.sub(r' (dir|rel|target|title|tabindex|role|aria-label)="[^"]*"', "", html)
    return re.sub(r' class="(level-\d|code-block|formula|table)"', "", html)


def table(left: str, centre: str) -> str:
    """The start of one."""
    head = f'<tr><th scope="col">{left}</th><th class="center" scope="col">{centre}</th></tr>'
    return f"<div><table><thead>{head}</thead><tbody>"


CASES = [
    ("plain", "<p>plain</p>"),
    ("two\nlines", "<p>two\nlines</p>"),
    ("hard  \nbreak\\\nhere", "<p>hard<br>break<br>here</p>"),
    ("a<br>b<br/>c", "<p>a<br>b<br>c</p>"),
    ("**bold** and *it* and ***both***", "<p><strong>bold</strong> and <em>it</em> and <em><strong>both</strong></em></p>"),
    ("__bold__ _it_ snake_case_name", "<p><strong>bold</strong> <em>it</em> snake_case_name</p>"),
    ("**bold *nested* end**", "<p><strong>bold <em>nested</em> end</strong></p>"),
    ("*a **b* c**", "<p><em>a <em><em>b</em> c</em></em></p>"),
    ("2 * 3 * 4 and **open", "<p>2 * 3 * 4 and **open</p>"),
    ("~~gone~~ and ~5 to ~6", "<p><del>gone</del> and ~5 to ~6</p>"),
    ("`code` and ``a ` b``", "<p><code>code</code> and <code>a ` b</code></p>"),
    ("`**no**` and ` open", "<p><code>**no**</code> and ` open</p>"),
    (r"\*no\* \# \\ \a", r"<p>*no* # \ \a</p>"),
    ("&amp; &lt;b&gt; &#65; &#x42; &nope; &", "<p>&amp; &lt;b&gt; A B &amp;nope; &amp;</p>"),
    ("[t](https://a.example/x)", '<p><a href="https://a.example/x">t</a></p>'),
    ('[t](<https://a.example/x y> "title")', '<p><a href="https://a.example/x%20y">t</a></p>'),
    ("[a **b**](https://a.example/(x))", '<p><a href="https://a.example/(x)">a <strong>b</strong></a></p>'),
    ("[me](mailto:me@a.example)", '<p><a href="mailto:me@a.example">me</a></p>'),
    ("[x](relative/path) [y](//host/z)", '<p><span class="no-link">x</span> <span class="no-link">y</span></p>'),
    ("[not a link] (and this)", "<p>[not a link] (and this)</p>"),
    ("see https://a.example/b_c_(d), ok?", '<p>see <a href="https://a.example/b_c_(d)">https://a.example/b_c_(d)</a>, ok?</p>'),
    ("<https://a.example>", '<p><a href="https://a.example/">https://a.example</a></p>'),
    ("# One\n## Two #\n### Three ###\n#no", "<h3>One</h3><h4>Two</h4><h5>Three</h5><p>#no</p>"),
    ("Title\n===\nSub\n---", "<h3>Title</h3><h4>Sub</h4>"),
    ("a\n\n---\n\n***\nb", "<p>a</p><hr><hr><p>b</p>"),
    ("> a\n> b\nlazy\n\nc", "<blockquote><p>a\nb\nlazy</p></blockquote><p>c</p>"),
    ("> ## Title\nafter", "<blockquote><h4>Title</h4></blockquote><p>after</p>"),
    ("- # Title\nafter", "<ul><li><h3>Title</h3></li></ul><p>after</p>"),
    ("- > \nafter", "<ul><li><blockquote></blockquote></li></ul><p>after</p>"),
    ("> - a\nlazy", "<blockquote><ul><li>a\nlazy</li></ul></blockquote>"),
    ("> > deep\n> up", "<blockquote><blockquote><p>deep\nup</p></blockquote></blockquote>"),
    ("- a\n- b\n  - c\n- d", "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>"),
    ("1. a\n2. b\n\n   more\n3. c", "<ol><li><p>a</p></li><li><p>b</p><p>more</p></li><li><p>c</p></li></ol>"),
    ("3) a\n4) b", '<ol start="3"><li>a</li><li>b</li></ol>'),
    ("- a\n\n- b", "<ul><li><p>a</p></li><li><p>b</p></li></ul>"),
    ("text\n- item", "<p>text</p><ul><li>item</li></ul>"),
    ("text\n2. no item", "<p>text\n2. no item</p>"),
    ("- [x] done\n- [ ] not", '<ul><li class="task"><input type="checkbox" disabled=""> done</li>'
     '<li class="task"><input type="checkbox" disabled=""> not</li></ul>'),
    ("| a | b |\n|---|:-:|\n| 1 | `x` |\n| 2 \\| 3 |", table("a", "b") + "<tr><td>1</td>"
     "<td class=\"center\"><code>x</code></td></tr><tr><td>2 | 3</td></tr></tbody></table></div>"),
    ("before\n| a | b |\n|---|:-:|\nafter", "<p>before</p>" + table("a", "b") + "<tr><td>after</td></tr></tbody></table></div>"),
    ("a | b\nno table", "<p>a | b\nno table</p>"),
    ("It costs $5 or $10.", "<p>It costs $5 or $10.</p>"),
    ("<b>no</b> <script>alert(1)</script>", "<p>&lt;b&gt;no&lt;/b&gt; &lt;script&gt;alert(1)&lt;/script&gt;</p>"),
    ("![cat](https://a.example/cat.png)", '<p><span class="image">image: <a href="https://a.example/cat.png">cat</a></span></p>'),
]  # fmt: skip


@pytest.mark.parametrize(("source", "expected"), CASES)
def test_markdown(bare: Page, source: str, expected: str):
    assert shown(bare, source) == expected


def test_code_blocks(bare: Page):
    html = shown(bare, "```python\nx = 1  # one\n```\n~~~\n```\n~~~\n    indented\n\n```js\nunclosed")
    texts = re.findall(r"<code>(.*?)</code>", html, re.DOTALL)
    plain = [re.sub("<[^>]*>", "", text) for text in texts]
    assert plain == ["x = 1  # one", "```", "indented", "unclosed"]
    assert '<span class="code-comment"># one</span>' in html and re.findall(r'class="language">(\w+)', html) == [
        "python", "text", "text", "js"]  # fmt: skip


def test_code_in_a_list_keeps_its_lines(bare: Page):
    html = shown(bare, "1. do:\n\n   ```sh\n   a\n\n   b\n   ```\n2. then")
    assert re.sub("<[^>]*>", "", html.partition("<code>")[2].partition("</code>")[0]) == "a\n\nb" and html.count("<li>") == 2


FORMULAS = [
    ("x", "<mi>x</mi>"),
    ("3.14", "<mn>3.14</mn>"),
    ("x_1^2", "<msubsup><mi>x</mi><mn>1</mn><mn>2</mn></msubsup>"),
    ("f''(x)", '<mrow><msup><mi>f</mi><mo>′′</mo></msup><mo stretchy="false">(</mo><mi>x</mi><mo stretchy="false">)</mo></mrow>'),
    (r"\frac12", "<mfrac><mn>1</mn><mn>2</mn></mfrac>"),
    (r"\sqrt[3]{x}", "<mroot><mi>x</mi><mn>3</mn></mroot>"),
    (r"\alpha\le\infty", "<mrow><mi>α</mi><mo>≤</mo><mi>∞</mi></mrow>"),
    (r"\mathbb{R}^n", '<msup><mi mathvariant="normal">ℝ</mi><mi>n</mi></msup>'),
    (r"\mathbf{x}", '<mi mathvariant="normal">\U0001d431</mi>'),
    (r"\text{if } x", '<mrow><mtext>if&nbsp;</mtext><mi>x</mi></mrow>'),
    (r"\hat{x}", '<mover accent="true"><mi>x</mi><mo stretchy="false">^</mo></mover>'),
    (r"\not=", "<mo>=\u0338</mo>"),
    (r"a \ne b", "<mrow><mi>a</mi><mo>≠</mo><mi>b</mi></mrow>"),
    (r"\boxed{42}", '<mrow class="boxed"><mn>42</mn></mrow>'),
    (r"50\%", '<mrow><mn>50</mn><mo stretchy="false">%</mo></mrow>'),
]  # fmt: skip


@pytest.mark.parametrize(("source", "expected"), FORMULAS)
def test_mathematics(bare: Page, source: str, expected: str):
    html = bare.evaluate(RENDER, ["page/maths/formula.js", "formula", source, False, True])
    assert re.fullmatch(r'<math display="inline" alttext="[^"]*">(.*)</math>', html)[1] == expected


KNOWN = [
    r"\sum_{i=1}^{n} x_i = \int_0^1 f(x)\,dx",
    r"e^{i\pi} + 1 = 0",
    r"\lim_{x \to 0} \frac{\sin x}{x} = 1",
    r"\left( \frac{a}{b} \right)^{2} \cdot \left| x \right|",
    r"\left\{ x \in \mathbb{Z} \;\middle|\; x > 0 \right\}",
    r"\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}",
    r"\begin{aligned} a &= b + c \\ &= d \end{aligned}",
    r"\begin{align*} x &= 1 \\[4pt] y &= 2 \end{align*}",
    r"f(x) = \begin{cases} 1 & x > 0 \\ 0 & \text{otherwise} \end{cases}",
    r"\begin{array}{c|c} a & b \\ \hline c & d \end{array}",
    r"\nabla \times \vec{E} = -\frac{\partial \vec{B}}{\partial t}",
    r"P(A \mid B) = \frac{P(B \mid A)\,P(A)}{P(B)}",
    r"\underbrace{a + b}_{\text{sum}} \overbrace{c}^{n}",
    r"\operatorname{softmax}(z)_i = \frac{\exp(z_i)}{\sum_j \exp(z_j)}",
    r"\binom{n}{k} = \dfrac{n!}{k!\,(n-k)!}",
    r"A \xrightarrow{f} B \Rightarrow C \iff D",
    r"\mathcal{L}(\theta) \approx \mathcal{O}(n \log n)",
    r"\overline{AB} \perp \overrightarrow{CD} \quad \angle ABC = 90^\circ",
    r"\bigl( x \bigr) \Big[ y \Big]",
    r"a \equiv b \pmod{n}",
    r"\mathrm{d}x \; \mathrm{CO_2} \; \textbf{bold}",
    r"x = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a} \tag{1}",
    r"\sum\limits_{k} a_k \prod\nolimits_k b_k",
    r"\sum_{\substack{i < j \\ i > 0}} a_{ij}",
    r"\color{red} x \textcolor{blue}{y} \cancel{z}",
]


@pytest.mark.parametrize("source", KNOWN)
def test_formulas_that_models_write_are_understood(bare: Page, source: str):
    html = bare.evaluate(RENDER, ["page/maths/formula.js", "formula", source, True, True])
    assert html.startswith("<math") and "\\" not in re.sub(r'alttext="[^"]*"', "", html)


@pytest.mark.parametrize(
    "source", [r"\frac{1", r"\unknown{x}", "x^1^2", r"\begin{pmatrix} 1", "}", r"\left( x", "a & b", "{" * 500, r"\begin{a}\end{b}"]
)
def test_what_is_no_formula_is_shown_as_its_source(bare: Page, source: str):
    html = bare.evaluate(RENDER, ["page/maths/formula.js", "formula", source, False, True])
    assert html.startswith("<code") and source.replace("&", "&amp;") in html


def test_mathematics_within_text(bare: Page):
    html = shown(bare, "Let $x^2$ and \\(y\\).\n\n$$\na + b\n$$\n\n\\[ c \\]\n\nText $$z$$ here.\n\n\\$5 and $x$-axis")
    assert html.count("<math") == 6 and html.count('display="block"') == 3 and "$5 and " in html


GROWING = """async (source) => {
  const { GrowingText, renderBlocks } = await import(new URL("page/text/render.js", document.baseURI));
  const { parseBlocks } = await import(new URL("page/text/blocks.js", document.baseURI));
  const [grown, whole] = [document.createElement("div"), document.createElement("div")];
  const text = new GrowingText(grown);
  for (let end = 1; end <= source.length; end += 3) text.update(source.slice(0, end), true);
  text.update(source, false);
  text.update(source, false);
  whole.append(...renderBlocks(parseBlocks(source)));
  return [grown.innerHTML, whole.innerHTML];
}"""


def test_a_text_that_grows_ends_as_the_whole(bare: Page):
    source = "\n\n".join(source for source, _ in CASES) + "\n\n$$\nx\n$$\n\n```py\nx = 1\n\ny = 2\n```\n\n- a\n\n  b\n\nend"
    grown, whole = bare.evaluate(GROWING, source)
    assert grown == whole


HOSTILE = {
    "quotes": lambda n: "> " * n + "x",
    "lists": lambda n: "".join(" " * (depth % 40) + "- x\n" for depth in range(n // 4)),
    "stars": lambda n: "*a " * n,
    "pairs": lambda n: "*_" * n,
    "closers": lambda n: "a**" * n,
    "brackets": lambda n: "[" * n + "](" * n,
    "images": lambda n: "![" * n + "](x)" * n,
    "ticks": lambda n: "`" * 5 + " ``` `` ` " * n,
    "dollars": lambda n: "$a " * n,
    "maths": lambda n: "\\(" * n,
    "formula": lambda n: ("$" + "{" * 900 + "x" + "}" * 900 + "$ ") * (n // 100),
    "display": lambda n: "\\[ x\n" * n,
    "table": lambda n: "|" + "a|" * 90 + "\n|" + "-|" * 90 + "\n" + "|x\n" * n,
    "wide": lambda n: "|" + "a|" * n + "\n|" + "-|" * n + "\n",
    "fence": lambda n: "```\n" * n,
    "spaces": lambda n: "# " + " " * n + "#x",
    "entities": lambda n: "&" * n + "&#" * n,
    "links": lambda n: "http://" * n,
    "rules": lambda n: "* " * n + "x",
}
TIMES = """async (sources) => {
  const { renderBlocks } = await import(new URL("page/text/render.js", document.baseURI));
  const { parseBlocks } = await import(new URL("page/text/blocks.js", document.baseURI));
  return sources.map((source) => Math.min(...[1, 2, 3].map(() => {
    const began = performance.now();
    renderBlocks(parseBlocks(source));
    return performance.now() - began;
  })));
}"""


@pytest.mark.parametrize("name", HOSTILE)
def test_time_is_linear_in_the_text(bare: Page, name: str):
    """Four times the text takes four times as long, and not sixteen times; measured again while others disturb it."""
    sources, times = [HOSTILE[name](1500), HOSTILE[name](6000)], []
    for _ in range(5):
        times.append(bare.evaluate(TIMES, sources))
        short, long = map(min, zip(*times, strict=True))
        if long < 9 * short + 100:
            return
    raise AssertionError(times)


def test_signs_that_deceive_are_visible(bare: Page):
    html = shown(bare, "a\x1b[31mred\x07\n\n```\nx = 1 # \u202e }\n```")
    assert "a\u241b[31mred\u2407" in html and "\u27e8U+202E\u27e9" in html and "\u202e" not in html


def test_sha256(bare: Page):
    texts = ["", "abc", "x" * 55, "x" * 56, "x" * 64, "é\N{GRINNING FACE}" * 1000]
    found = bare.evaluate("async (texts) => { const { sha256 } = await import(new URL('page/files/sha256.js', document.baseURI));"
                          " return texts.map((text) => sha256(new TextEncoder().encode(text))); }", texts)  # fmt: skip
    assert found == [hashlib.sha256(text.encode()).hexdigest() for text in texts]
