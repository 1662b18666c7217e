// Markdown: lines become blocks. CommonMark's blocks and GitHub's tables, and display mathematics; HTML is text.
// Time is linear in the text: containers nest DEPTH deep at most, and a search that failed is not made again.

const DEPTH = 12;
const COLUMNS = 100;
const FENCE = /^ {0,3}(`{3,}(?=[^`]*$)|~{3,})(.*)$/;
const HEADING = /^ {0,3}(#{1,6})(?=[ \t]|$)(.*)$/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-+*]|\d{1,9}[.)])(?=[ \t]|$)/;
const UNDERLINE = /^ {0,3}(=+|-+)[ \t]*$/;
const DELIMITERS = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const MATHS = /^ {0,3}(\$\$|\\\[)/;
const CLOSING = { $$: "$$", "\\[": "\\]" };

/** Blocks of a text: {type, from, to, ...}, where lines `from` to `to` (not included) are the block's. `open`: more may come. */
export function parseBlocks(text, open = false) {
  const lines = text.split("\n").map((line) => expandTabs(line.replace(/\r$/, "")));
  return new Blocks(lines, 0, open).parse();
}

function expandTabs(line) {
  if (!line.includes("\t")) return line;
  const indent = /^[ \t]*/.exec(line)[0];
  let columns = 0;
  for (const sign of indent) columns += sign === "\t" ? 4 - (columns % 4) : 1;
  return " ".repeat(columns) + line.slice(indent.length);
}

const isBlank = (line) => line === undefined || /^[ \t]*$/.test(line);
/** Whether a paragraph may go on after a line, even outside of the quotes and items that it is in. */
function endsInParagraph(line) {
  const inner = line.replace(/^(?: {0,3}(?:>|[-+*](?=[ \t]|$)|\d{1,9}[.)](?=[ \t]|$)) ?)*/, "");
  return !isBlank(inner) && indentOf(inner) < 4 && !FENCE.test(inner) && !HEADING.test(inner) && !RULE.test(line) && !RULE.test(inner);
}

const indentOf = (line) => /^ */.exec(line)[0].length;

class Blocks {
  constructor(lines, depth, open) {
    this.lines = lines;
    this.depth = depth;
    this.open = open; // the text may go on
    this.at = 0;
    this.unclosed = {}; // of each mark of mathematics: the line up to which none closes
  }

  parse() {
    const found = [];
    while (this.at < this.lines.length) {
      if (isBlank(this.lines[this.at])) {
        this.at += 1;
        continue;
      }
      const from = this.at;
      const block = this.block();
      found.push({ ...block, from, to: this.at });
    }
    return found;
  }

  block() {
    const line = this.lines[this.at];
    if (indentOf(line) >= 4) return this.indented();
    return (
      this.fence(line) ??
      this.heading(line) ??
      this.rule(line) ??
      this.maths(line) ??
      this.quote(line) ??
      this.list(line) ??
      this.table(line) ??
      this.paragraph()
    );
  }

  indented() {
    const lines = [];
    while (this.at < this.lines.length && (isBlank(this.lines[this.at]) || indentOf(this.lines[this.at]) >= 4)) {
      lines.push(this.lines[this.at].slice(4));
      this.at += 1;
    }
    while (isBlank(lines.at(-1))) {
      lines.pop();
      this.at -= 1;
    }
    return { type: "code", language: "", text: lines.join("\n"), closed: true };
  }

  fence(line) {
    const match = FENCE.exec(line);
    if (match === null) return null;
    const [, mark, rest] = match;
    const indent = indentOf(line);
    const end = new RegExp(`^ {0,3}\\${mark[0]}{${mark.length},}[ \\t]*$`);
    const lines = [];
    let closed = false;
    for (this.at += 1; this.at < this.lines.length && !closed; this.at += 1) {
      const next = this.lines[this.at];
      if (end.test(next)) closed = true;
      else lines.push(next.slice(Math.min(indent, indentOf(next))));
    }
    return { type: "code", language: rest.trim().split(/\s/)[0], text: lines.join("\n"), closed };
  }

  heading(line) {
    const match = HEADING.exec(line);
    if (match === null) return null;
    this.at += 1;
    let text = match[2].trim();
    const bare = text.replace(/#+$/, "");
    if (bare === "" || /[ \t]$/.test(bare)) text = bare.trim();
    return { type: "heading", level: match[1].length, text };
  }

  rule(line) {
    if (!RULE.test(line)) return null;
    this.at += 1;
    return { type: "rule" };
  }

  maths(line) {
    const match = MATHS.exec(line);
    if (match === null) return null;
    const mark = match[1];
    if (this.at < (this.unclosed[mark] ?? -1)) return null;
    const lines = [];
    let rest = line.slice(match[0].length);
    let at = this.at;
    while (true) {
      const end = rest.indexOf(CLOSING[mark]);
      if (end >= 0) {
        if (!/^[ \t]*[.,;:]?[ \t]*$/.test(rest.slice(end + 2))) return null;
        lines.push(rest.slice(0, end));
        this.at = at + 1;
        return { type: "maths", text: lines.join("\n"), closed: true, after: rest.slice(end + 2).trim() };
      }
      lines.push(rest);
      at += 1;
      rest = this.lines[at];
      if (isBlank(rest)) break;
    }
    if (this.open && at >= this.lines.length - (this.lines.at(-1) === "" ? 1 : 0)) {
      this.at = at;
      return { type: "maths", text: lines.join("\n"), closed: false, after: "" };
    }
    this.unclosed[mark] = at;
    return null;
  }

  quote(line) {
    if (this.depth >= DEPTH || !QUOTE.test(line)) return null;
    const lines = [];
    let lazy = false;
    while (this.at < this.lines.length) {
      const next = this.lines[this.at];
      const mark = QUOTE.exec(next);
      if (mark === null && (!lazy || isBlank(next) || this.begins(this.at))) break;
      const inner = mark === null ? next : next.slice(mark[0].length);
      lazy = endsInParagraph(inner);
      lines.push(inner);
      this.at += 1;
    }
    return { type: "quote", blocks: new Blocks(lines, this.depth + 1, this.open).parse() };
  }

  list(line) {
    if (this.depth >= DEPTH || ITEM.exec(line) === null) return null;
    const kind = (mark) => mark.at(-1); // "-", "+", "*", "." or ")"
    const first = ITEM.exec(line)[2];
    const items = [];
    let loose = false;
    while (this.at < this.lines.length) {
      const match = ITEM.exec(this.lines[this.at]);
      if (match === null || kind(match[2]) !== kind(first) || RULE.test(this.lines[this.at])) break;
      const { lines, blankAfter } = this.item(match);
      const blocks = new Blocks(lines, this.depth + 1, this.open).parse();
      items.push({ blocks, ...taskOf(blocks) });
      loose ||= blocks.some((block, index) => index > 0 && isBlank(lines[block.from - 1]));
      const next = this.lines[this.at];
      const follows = next !== undefined && ITEM.exec(next);
      loose ||= Boolean(blankAfter && follows && kind(follows[2]) === kind(first));
    }
    const ordered = /\d/.test(first);
    return { type: "list", ordered, start: ordered ? parseInt(first, 10) : null, loose, items };
  }

  /** The lines of an item without their indentation. */
  item(match) {
    const line = this.lines[this.at];
    const rest = line.slice(match[0].length);
    const spaces = indentOf(rest);
    const offset = match[0].length + (isBlank(rest) || spaces > 4 ? 1 : spaces);
    const lines = [line.slice(offset)];
    let lazy = endsInParagraph(lines[0]);
    let fence = FENCE.exec(lines[0])?.[1] ?? null;
    let blanks = 0;
    for (this.at += 1; this.at < this.lines.length; this.at += 1) {
      const next = this.lines[this.at];
      if (isBlank(next)) {
        if (lines.length === 1 && isBlank(lines[0])) break; // an item cannot begin with two blank lines
        blanks += 1;
        continue;
      }
      const inside = indentOf(next) >= offset;
      if (!inside && (blanks > 0 || !lazy || fence !== null || this.begins(this.at) || ITEM.test(next))) break;
      while (blanks > 0) {
        lines.push("");
        blanks -= 1;
      }
      const inner = inside ? next.slice(offset) : next.trimStart();
      const mark = FENCE.exec(inner)?.[1] ?? null;
      if (fence === null) fence = mark;
      else if (mark !== null && mark.startsWith(fence)) fence = null;
      lazy = fence === null && (inside ? endsInParagraph(inner) : true);
      lines.push(inner);
    }
    return { lines, blankAfter: blanks > 0 };
  }

  table(line) {
    const next = this.lines[this.at + 1];
    if (next === undefined || !line.includes("|") || !next.includes("-") || !DELIMITERS.test(next)) return null;
    const header = cellsOf(line);
    const marks = cellsOf(next);
    if (header.length !== marks.length || header.length > COLUMNS) return null;
    const rows = [];
    for (this.at += 2; this.at < this.lines.length; this.at += 1) {
      const row = this.lines[this.at];
      if (isBlank(row) || this.begins(this.at)) break;
      rows.push(cellsOf(row).slice(0, header.length));
    }
    const sides = marks.map((mark) => (mark.endsWith(":") ? (mark.startsWith(":") ? "center" : "end") : ""));
    return { type: "table", header, sides, rows };
  }

  paragraph() {
    const lines = [this.lines[this.at].trimStart()];
    for (this.at += 1; this.at < this.lines.length; this.at += 1) {
      const line = this.lines[this.at];
      if (isBlank(line)) break;
      const under = UNDERLINE.exec(line);
      if (under !== null) {
        this.at += 1;
        return { type: "heading", level: under[1][0] === "=" ? 1 : 2, text: lines.join("\n").trimEnd() };
      }
      if (this.begins(this.at)) break;
      lines.push(line.trimStart());
    }
    return { type: "paragraph", text: lines.join("\n").trimEnd() };
  }

  /** Whether a block begins on a line that could also go on with a paragraph. */
  begins(at) {
    const line = this.lines[at];
    if (indentOf(line) >= 4) return false;
    if (FENCE.test(line) || HEADING.test(line) || RULE.test(line)) return true;
    if (this.depth < DEPTH && QUOTE.test(line)) return true;
    const mark = MATHS.exec(line);
    if (mark !== null) return at >= (this.unclosed[mark[1]] ?? -1);
    const item = ITEM.exec(line);
    if (item !== null && this.depth < DEPTH) return !isBlank(line.slice(item[0].length)) && /^([-+*]|1[.)])$/.test(item[2]);
    const next = this.lines[at + 1];
    return line.includes("|") && next !== undefined && next.includes("-") && next.includes("|") && DELIMITERS.test(next);
  }
}

/** "[ ] text" and "[x] text" at the start of an item. */
function taskOf(blocks) {
  const first = blocks[0];
  const match = first?.type === "paragraph" ? /^\[([ xX])\][ \t]+/.exec(first.text) : null;
  if (match === null) return { task: null };
  first.text = first.text.slice(match[0].length);
  return { task: match[1] !== " " };
}

/** Cells of a row: `\\|` does not divide. */
function cellsOf(line) {
  const cells = [];
  let cell = "";
  const row = line.trim();
  for (let at = row.startsWith("|") ? 1 : 0; at < row.length; at += 1) {
    if (row[at] === "\\" && row[at + 1] === "|") {
      cell += "|";
      at += 1;
    } else if (row[at] === "|") {
      cells.push(cell.trim());
      cell = "";
    } else {
      cell += row[at];
    }
  }
  if (cell.trim() !== "" || !row.endsWith("|")) cells.push(cell.trim());
  return cells;
}
