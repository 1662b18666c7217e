// Markdown: the text of a paragraph becomes nodes {type, ...}: CommonMark's emphasis, code and links, GitHub's strikethrough,
// mathematics. HTML is text, but for a line break. Nodes nest DEPTH deep at most.

import { DEPTH, depthOf, emphasise, nested } from "./emphasis.js";

const MATHS_LENGTH = 2000; // characters of mathematics between dollars
const CLOSING_DOLLAR = /(?<=[^\s\\]|(?<!\\)(?:\\\\)+)\$(?![0-9$])/g; // not escaped, and no price begins there
const PUNCTUATION = /[!-/:-@[-`{-~\p{P}\p{S}]/u;
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const ENTITY = /&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|([a-zA-Z]{2,8}));/y;
const NAMED = {
  amp: "&",
  lt: "<",
  gt: ">",
  quot: '"',
  apos: "'",
  nbsp: "\u00a0",
  copy: "©",
  mdash: "—",
  ndash: "–",
  hellip: "…",
  times: "×",
  rarr: "→",
  larr: "←",
  le: "≤",
  ge: "≥",
  ne: "≠",
  deg: "°",
  euro: "€",
};
const ANGLE = /<((?:https?:\/\/|mailto:)[^\s<>]{1,2000})>/iy;
const BARE = /https?:\/\/[^\s<>"`\\]{1,2000}/iy;
const BREAK = /<br[ \t]*\/?>/iy;

/** Nodes of a text. */
export function parseInline(text) {
  return new Inline(text).parse();
}

class Inline {
  constructor(text) {
    this.text = text;
    this.at = 0;
    this.items = []; // nodes, and runs of delimiters that are not matched yet
    this.brackets = [];
    this.pending = "";
    this.missing = new Set(); // marks that close nothing in the rest of the text
    this.ticks = null;
  }

  parse() {
    while (this.at < this.text.length) this.step();
    this.flush();
    return emphasise(this.items);
  }

  step() {
    const sign = this.text[this.at];
    if (sign === "\\") return this.escape();
    if (sign === "`") return this.code();
    if (sign === "$") return this.dollars();
    if (sign === "*" || sign === "_" || sign === "~") return this.delimiters(sign);
    if (sign === "[" || (sign === "!" && this.text[this.at + 1] === "[")) return this.open(sign === "!");
    if (sign === "]") return this.close();
    if (sign === "\n") return this.newline();
    if (sign === "<" && this.angle()) return undefined;
    if (sign === "&" && this.entity()) return undefined;
    if ((sign === "h" || sign === "H") && this.bare()) return undefined;
    this.pending += sign;
    this.at += 1;
    return undefined;
  }

  flush() {
    if (this.pending !== "") this.items.push({ type: "text", text: this.pending });
    this.pending = "";
  }

  push(node) {
    this.flush();
    this.items.push(node);
  }

  match(pattern) {
    pattern.lastIndex = this.at;
    return pattern.exec(this.text);
  }

  /** Where `mark` is next, or -1; what is not there is searched once. */
  find(mark, from) {
    if (this.missing.has(mark)) return -1;
    const at = this.text.indexOf(mark, from);
    if (at < 0) this.missing.add(mark);
    return at;
  }

  escape() {
    const next = this.text[this.at + 1];
    if (next === "(" || next === "[") {
      const end = this.find(next === "(" ? "\\)" : "\\]", this.at + 2);
      if (end > 0 && this.text.slice(this.at + 2, end).trim() !== "") {
        this.push({ type: "maths", text: this.text.slice(this.at + 2, end), display: next === "[" });
        this.at = end + 2;
        return;
      }
    }
    if (next === "\n") {
      this.push({ type: "break" });
      this.at += 2;
    } else if (next !== undefined && ESCAPABLE.test(next)) {
      this.pending += next;
      this.at += 2;
    } else {
      this.pending += "\\";
      this.at += 1;
    }
  }

  code() {
    const run = this.run("`");
    if (this.ticks === null) this.findTicks();
    const places = this.ticks.get(run) ?? [];
    while (places.length > 0 && places.at(-1) < this.at + run) places.pop();
    if (places.length === 0) {
      this.pending += "`".repeat(run);
      this.at += run;
      return;
    }
    const end = places.pop();
    let text = this.text.slice(this.at + run, end).replace(/\n/g, " ");
    if (/^ .* $/.test(text) && text.trim() !== "") text = text.slice(1, -1);
    this.push({ type: "code", text });
    this.at = end + run;
  }

  findTicks() {
    this.ticks = new Map();
    for (const match of this.text.matchAll(/`+/g)) {
      if (!this.ticks.has(match[0].length)) this.ticks.set(match[0].length, []);
      this.ticks.get(match[0].length).push(match.index);
    }
    for (const places of this.ticks.values()) places.reverse(); // the next one is the last of the list
  }

  run(sign) {
    let length = 1;
    while (this.text[this.at + length] === sign) length += 1;
    return length;
  }

  /** Between dollars, as pandoc has it: no space inside beside them, and no digit behind, so that prices are prices. */
  dollars() {
    const run = this.run("$");
    const from = this.at + run;
    const end = run > 2 ? -1 : run === 2 ? this.find("$$", from) : this.closingDollar(from);
    const text = end < 0 ? "" : this.text.slice(from, end);
    if (text.trim() === "") {
      this.pending += "$".repeat(run);
      this.at = from;
      return;
    }
    this.push({ type: "maths", text, display: run === 2 });
    this.at = end + run;
  }

  closingDollar(from) {
    if (/[\s$]/.test(this.text[from] ?? " ")) return -1;
    this.dollarEnds ??= [...this.text.matchAll(CLOSING_DOLLAR)].map((match) => match.index).reverse();
    while (this.dollarEnds.length > 0 && this.dollarEnds.at(-1) <= from) this.dollarEnds.pop();
    const end = this.dollarEnds.at(-1) ?? Infinity;
    return end - from <= MATHS_LENGTH ? end : -1;
  }

  delimiters(sign) {
    const count = this.run(sign);
    const before = charBefore(this.text, this.at);
    const after = String.fromCodePoint(this.text.codePointAt(this.at + count) ?? 10);
    this.flush();
    this.at += count;
    if (sign === "~" && count !== 2) return this.items.push({ type: "text", text: "~".repeat(count) });
    const [spaceBefore, spaceAfter] = [/\s/.test(before), /\s/.test(after)];
    const [signBefore, signAfter] = [PUNCTUATION.test(before), PUNCTUATION.test(after)];
    const left = !spaceAfter && (!signAfter || spaceBefore || signBefore);
    const right = !spaceBefore && (!signBefore || spaceAfter || signAfter);
    const opens = sign === "_" ? left && (!right || signBefore) : left;
    const closes = sign === "_" ? right && (!left || signAfter) : right;
    return this.items.push({ type: "delimiter", sign, count, original: count, opens, closes });
  }

  newline() {
    const hard = / {2,}$/.test(this.pending.slice(-3));
    this.pending = this.pending.trimEnd();
    if (hard) this.push({ type: "break" });
    else this.pending += "\n";
    this.at += 1;
    while (this.text[this.at] === " ") this.at += 1;
  }

  angle() {
    const found = this.match(BREAK);
    if (found !== null) {
      this.push({ type: "break" });
      this.at += found[0].length;
      return true;
    }
    const link = this.match(ANGLE);
    if (link === null) return false;
    this.push({ type: "link", address: link[1], nodes: [{ type: "text", text: link[1] }] });
    this.at += link[0].length;
    return true;
  }

  entity() {
    const found = this.match(ENTITY);
    if (found === null) return false;
    const code = found[1] ? parseInt(found[1], 10) : found[2] ? parseInt(found[2], 16) : 0;
    if (found[3] && !Object.hasOwn(NAMED, found[3])) return false;
    const valid = code > 0 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
    this.pending += found[3] ? NAMED[found[3]] : valid ? String.fromCodePoint(code) : "\ufffd";
    this.at += found[0].length;
    return true;
  }

  bare() {
    if (this.at > 0 && /[\p{L}\p{N}]/u.test(this.text[this.at - 1])) return false;
    if (this.brackets.some((each) => !each.image && each.active)) return false; // inside what may become a link
    const found = this.match(BARE);
    if (found === null) return false;
    let address = found[0].replace(/[?!.,:;*_~'"]+$/, "");
    const count = (sign) => address.split(sign).length - 1;
    while (address.endsWith(")") && count(")") > count("(")) address = address.slice(0, -1);
    if (address.endsWith("]")) address = address.replace(/\]+$/, "");
    if (!/^https?:\/\/./i.test(address)) return false;
    this.push({ type: "link", address, nodes: [{ type: "text", text: address }] });
    this.at += address.length;
    return true;
  }

  open(image) {
    this.flush();
    this.brackets.push({ index: this.items.length, image, active: true });
    this.items.push({ type: "text", text: image ? "![" : "[" });
    this.at += image ? 2 : 1;
  }

  close() {
    const bracket = this.brackets.pop();
    this.at += 1;
    const target = bracket?.active ? this.target() : null;
    if (target === null) {
      this.pending += "]";
      return;
    }
    this.flush();
    const nodes = emphasise(this.items.splice(bracket.index).slice(1));
    if (depthOf(nodes) >= DEPTH) {
      this.items.push(...nodes);
      return;
    }
    this.items.push(nested({ type: bracket.image ? "image" : "link", address: target, nodes }));
    if (!bracket.image) {
      for (const each of this.brackets) each.active &&= each.image; // a link has no link in it
    }
  }

  /** "(address "title")" at this place; null if there is none. */
  target() {
    const found = this.match(
      /\([ \t]*(?:<([^<>\n]{0,2000})>|([^\s()<>]{0,2000}(?:\([^\s()]{0,500}\)[^\s()<>]{0,500}){0,8}))(?:[ \t]+(?:"[^"\n]{0,500}"|'[^'\n]{0,500}'))?[ \t]*\)/y,
    );
    if (found === null) return null;
    this.at += found[0].length;
    return found[1] ?? found[2];
  }
}

function charBefore(text, at) {
  if (at === 0) return "\n";
  const last = text.charCodeAt(at - 1);
  return last >= 0xdc00 && last <= 0xdfff && at > 1 ? text.slice(at - 2, at) : text[at - 1];
}
