// LaTeX's mathematics becomes MathML. What is not known raises FormulaError; the caller then shows the source.

import { makeMath } from "../core/dom.js";
import { COMMANDS } from "./commands.js";
import { DELIMITERS, LARGE } from "./symbols.js";
import { tokensOf } from "./tokens.js";

const DEPTH = 40;
const TOKENS = 6000;

/** A formula that is not understood. */
export class FormulaError extends Error {}

/** MathML of a formula. Raises FormulaError. */
export function mathmlOf(source, display) {
  const tokens = tokensOf(source);
  if (tokens.length > TOKENS) throw new FormulaError("the formula is too long");
  const parser = new Parser(source, tokens, display);
  const body = parser.rows(() => false);
  if (parser.peek() !== undefined) throw new FormulaError(`unexpected ${parser.peek().text}`);
  const math = makeMath("math", { display: display ? "block" : "inline" }, body);
  math.setAttribute("alttext", source.trim());
  return math;
}

/** Reads tokens. `font`: the alphabet of letters; `display`: whether limits stand above and below. */
export class Parser {
  constructor(source, tokens, display) {
    this.source = source;
    this.tokens = tokens;
    this.display = display;
    this.at = 0;
    this.depth = 0;
    this.font = null;
  }

  peek() {
    return this.tokens[this.at];
  }

  next() {
    const token = this.tokens[this.at];
    if (token === undefined) throw new FormulaError("the formula ends too early");
    this.at += 1;
    return token;
  }

  fail(message) {
    throw new FormulaError(message);
  }

  /** What `read` gives, with another value of a field meanwhile. */
  within(field, value, read) {
    const before = this[field];
    this[field] = value;
    try {
      return read();
    } finally {
      this[field] = before;
    }
  }

  /** Rows of a formula that is not in an environment: `\\` divides lines. */
  rows(ends) {
    const rows = [[]];
    while (this.peek() !== undefined && !ends(this.peek())) {
      if (this.peek().kind === "row") {
        this.next();
        this.bracketed();
        rows.push([]);
      } else if (this.peek().kind === "cell") {
        throw new FormulaError("& stands outside of an environment");
      } else {
        rows.at(-1).push(this.scripted());
      }
    }
    if (rows.length === 1) return row(rows[0]);
    const cells = rows.map((nodes) => makeMath("mtr", {}, makeMath("mtd", {}, row(nodes))));
    return makeMath("mtable", { displaystyle: "true" }, cells);
  }

  /** Nodes until a token that `ends` the list, which is not taken. */
  list(ends) {
    const nodes = [];
    while (this.peek() !== undefined && !ends(this.peek())) nodes.push(this.scripted());
    return nodes;
  }

  /** A group in braces, or one token, as the argument of a command. */
  argument() {
    const token = this.peek();
    if (token?.kind === "begin") return this.group();
    if (token === undefined || token.kind === "end") throw new FormulaError("an argument is missing");
    if (/^[0-9]$/.test(token.text)) return makeMath("mn", {}, COMMANDS.inFont(this.font, this.next().text)); // \frac12 is a half
    return this.atom();
  }

  group() {
    this.next();
    return this.within("depth", this.depth + 1, () =>
      this.within("font", this.font, () => {
        if (this.depth > DEPTH) throw new FormulaError("the formula is nested too deep");
        const nodes = this.list((token) => token.kind === "end");
        this.next();
        return row(nodes);
      }),
    );
  }

  /** The text of an argument as it is written. */
  rawArgument() {
    const first = this.next();
    if (first.kind !== "begin") return first.text;
    let level = 1;
    while (true) {
      const token = this.next();
      if (token.kind === "begin") level += 1;
      if (token.kind === "end") level -= 1;
      if (level === 0) return this.source.slice(first.at + 1, token.at);
    }
  }

  /** "[...]" if it is next, as text; else null. */
  bracketed() {
    if (this.peek()?.text !== "[" || this.peek().kind !== "sign") return null;
    const first = this.next();
    while (this.peek() !== undefined && this.peek().text !== "]") this.next();
    return this.source.slice(first.at + 1, this.next().at);
  }

  /** An atom with what stands above and below it. */
  scripted() {
    this.depth += 1;
    if (this.depth > DEPTH) throw new FormulaError("the formula is nested too deep");
    const token = this.peek();
    const base = ["up", "down", "prime"].includes(token.kind) ? row([]) : this.atom();
    let limits = this.hasLimits(token, base);
    while (this.peek()?.kind === "command" && ["limits", "nolimits"].includes(this.peek().text))
      limits = this.next().text === "limits";
    let [under, over, primes] = [null, null, ""];
    for (let kind = this.peek()?.kind; ["up", "down", "prime"].includes(kind); kind = this.peek()?.kind) {
      this.next();
      if (kind === "prime") primes += "′";
      else if (kind === "up" && over === null) over = this.argument();
      else if (kind === "down" && under === null) under = this.argument();
      else throw new FormulaError("a superscript or subscript stands twice");
    }
    this.depth -= 1;
    if (primes !== "") over = row([operator(primes), ...(over === null ? [] : [over])]);
    return withScripts(base, under, over, limits);
  }

  hasLimits(token, base) {
    if (base.classList?.contains("limits")) return true;
    return this.display && token.kind === "command" && (LARGE.has(token.text) || base.dataset?.limits === "below");
  }

  atom() {
    const token = this.peek();
    if (token.kind === "begin") return this.group();
    this.next();
    if (token.kind === "command") return this.command(token.text);
    if (token.kind === "sign") return this.sign(token.text);
    throw new FormulaError(`unexpected ${token.text}`);
  }

  sign(text) {
    if (/[0-9]/.test(text)) return this.number(text);
    if (/[\p{L}]/u.test(text)) return COMMANDS.letter(this, text);
    if (text === "-") return operator("−");
    if (text === "*") return operator("∗");
    if (text === ":") return operator(":");
    if (text === "/") return makeMath("mo", { stretchy: "false", lspace: "0", rspace: "0" }, "/");
    if (/[()[\]|]/.test(text)) return makeMath("mo", { stretchy: "false" }, text);
    if (/[\p{S}\p{P}]/u.test(text)) return operator(text);
    return makeMath("mtext", {}, text);
  }

  number(first) {
    let text = first;
    let end = this.tokens[this.at - 1].at + 1;
    while (this.peek()?.kind === "sign" && this.peek().at === end && /[0-9.]/.test(this.peek().text)) {
      const token = this.peek();
      const after = this.tokens[this.at + 1];
      if (token.text === "." && !(after?.at === end + 1 && /[0-9]/.test(after.text))) break;
      text += this.next().text;
      end += 1;
    }
    return makeMath("mn", {}, COMMANDS.inFont(this.font, text));
  }

  command(name) {
    const command = COMMANDS.find(name);
    if (command === null) throw new FormulaError(`\\${name} is not known`);
    return command(this, name);
  }

  /** A delimiter after \left, \right or \big: a sign, or nothing for ".". */
  delimiter() {
    const token = this.next();
    if (token.kind === "sign" && token.text === ".") return "";
    if (token.kind === "command" && DELIMITERS.has(token.text)) return DELIMITERS.get(token.text);
    if (token.kind === "sign" && token.text === "<") return "⟨";
    if (token.kind === "sign" && token.text === ">") return "⟩";
    if (token.kind === "sign" && /[()[\]|/]/.test(token.text)) return token.text;
    throw new FormulaError(`${token.text} is not a delimiter`);
  }
}

/** One node for some. */
export function row(nodes) {
  return nodes.length === 1 ? nodes[0] : makeMath("mrow", {}, nodes);
}

export function operator(text, attributes = {}) {
  return makeMath("mo", attributes, text);
}

function withScripts(base, under, over, limits) {
  if (under === null && over === null) return base;
  const names = limits ? ["munder", "mover", "munderover"] : ["msub", "msup", "msubsup"];
  if (over === null) return makeMath(names[0], {}, base, under);
  if (under === null) return makeMath(names[1], {}, base, over);
  return makeMath(names[2], {}, base, under, over);
}
