// Blocks and nodes of Markdown become elements. The text of a model is put in as text; no element has an address that loads anything.

import { icon, link, make } from "../core/dom.js";
import { copyText } from "../core/clipboard.js";
import { formula } from "../maths/formula.js";
import { parseBlocks } from "./blocks.js";
import { highlighted } from "./highlight.js";
import { parseInline } from "./inline.js";
import { visible } from "./signs.js";

/** Elements of blocks. Headings of a text stand below those of the page. */
export function renderBlocks(blocks) {
  return blocks.map(renderBlock);
}

/** The element of a block. */
export function renderBlock(block) {
  return RENDERERS[block.type](block);
}

const RENDERERS = {
  heading: (block) => make(`h${Math.min(6, block.level + 2)}`, { dir: "auto", class: `level-${block.level}` }, inline(block.text)),
  paragraph: (block) => make("p", { dir: "auto" }, inline(block.text)),
  rule: () => make("hr"),
  quote: (block) => make("blockquote", {}, renderBlocks(block.blocks)),
  code: codeBlock,
  maths: (block) =>
    make("div", { class: "formula" }, formula(block.text, true, block.closed), block.after ? ` ${block.after}` : null),
  list: renderList,
  table: renderTable,
};

/** Nodes of the text of a paragraph. */
export function inline(text) {
  return renderNodes(parseInline(text));
}

function renderNodes(nodes) {
  return nodes.map((node) => {
    if (node.type === "text") return visible(node.text);
    if (node.type === "code") return make("code", { dir: "ltr" }, visible(node.text, true));
    if (node.type === "break") return make("br");
    if (node.type === "maths") return formula(node.text, node.display, true);
    if (node.type === "link") return link(node.address, renderNodes(node.nodes));
    if (node.type === "image")
      return make(
        "span",
        { class: "image" },
        "image: ",
        link(node.address, node.nodes.length ? renderNodes(node.nodes) : visible(node.address)),
      );
    return make({ strong: "strong", emphasis: "em", struck: "del" }[node.type], {}, renderNodes(node.nodes));
  });
}

/** A code block with its language and a button that copies it. */
function codeBlock(block) {
  const label = make("span", { class: "language" }, visible(block.language.slice(0, 40) || "text"));
  const name = make("span", {}, "Copy");
  const copy = make("button", { type: "button", class: "copy", "aria-label": "Copy the code" }, icon("copy"), name);
  copy.addEventListener("click", async () => {
    name.textContent = (await copyText(block.text)) ? "Copied" : "Not allowed";
    setTimeout(() => (name.textContent = "Copy"), 1500);
  });
  const code = make("code", {}, highlighted(block.text, block.language));
  const body = make(
    "pre",
    { dir: "ltr", tabindex: "0", role: "region", "aria-label": `Code, ${block.language.slice(0, 40) || "text"}` },
    code,
  );
  return make("div", { class: "code-block" }, make("div", { class: "code-head" }, label, copy), body);
}

function renderList(block) {
  const list = make(block.ordered ? "ol" : "ul", { start: block.ordered && block.start !== 1 ? block.start : null });
  for (const item of block.items) {
    const entry = make("li", { dir: "auto", class: item.task === null ? null : "task" });
    if (item.task !== null) {
      const box = make("input", { type: "checkbox", disabled: true, "aria-label": item.task ? "done" : "to do" });
      box.checked = item.task;
      entry.append(box, " ");
    }
    for (const inner of item.blocks) {
      if (inner.type === "paragraph" && !block.loose) entry.append(...inline(inner.text));
      else entry.append(renderBlock(inner));
    }
    list.append(entry);
  }
  return list;
}

function renderTable(block) {
  const cell = (tag) => (text, column) =>
    make(tag, { dir: "auto", class: block.sides[column] || null, scope: tag === "th" ? "col" : null }, inline(text));
  const head = make("thead", {}, make("tr", {}, block.header.map(cell("th"))));
  const body = make(
    "tbody",
    {},
    block.rows.map((row) => make("tr", {}, row.map(cell("td")))),
  );
  return make("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" }, make("table", {}, head, body));
}

/** A text that grows: blocks that are over stay as they are, and only the last one is made again. */
export class GrowingText {
  constructor(container) {
    this.container = container;
    this.clear();
  }

  clear() {
    this.container.replaceChildren();
    this.text = "";
    this.settled = 0; // characters whose blocks are over
    this.tail = null; // the element of the last block
    this.over = false; // no more was to come
  }

  /** Shows `text`. `open`: more will come. */
  update(text, open) {
    if (text === this.text && this.over === !open) return;
    if (this.over || !text.startsWith(this.text)) this.clear();
    this.text = text;
    this.over = !open;
    const rest = text.slice(this.settled);
    const blocks = parseBlocks(rest, open);
    this.tail?.remove();
    this.tail = null;
    const elements = renderBlocks(blocks);
    this.container.append(...elements);
    if (!open || blocks.length === 0) return;
    this.tail = elements.at(-1);
    this.settled += startOfLine(rest, blocks.at(-1).from);
  }
}

function startOfLine(text, line) {
  let at = 0;
  for (let count = 0; count < line; count += 1) at = text.indexOf("\n", at) + 1;
  return at;
}
