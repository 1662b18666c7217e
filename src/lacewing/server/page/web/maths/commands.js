// The commands of LaTeX's mathematics: each reads its arguments from the parser and gives a node.

import { makeMath } from "../core/dom.js";
import { environment } from "./environments.js";
import {
  ACCENTS,
  ALPHABETS,
  DELIMITERS,
  FUNCTIONS,
  INTEGRALS,
  LARGE,
  LETTERS,
  MOVED,
  OPERATORS,
  SPACES,
  STRETCHY,
  UNDER,
} from "./symbols.js";

const SIZES = { big: 1.2, Big: 1.8, bigg: 2.4, Bigg: 3 };
const TEXTS = new Set([
  "text",
  "textrm",
  "textnormal",
  "mbox",
  "hbox",
  "textup",
  "mathrm",
  "textbf",
  "textit",
  "texttt",
  "textsf",
  "mathit",
  "operatorname",
  "operatorname*",
  "mathop",
  "emph",
]);
const IGNORED = new Set([
  "displaystyle",
  "textstyle",
  "scriptstyle",
  "scriptscriptstyle",
  "nonumber",
  "notag",
  "hline",
  "allowbreak",
  "nobreak",
  "relax",
  "limits",
  "nolimits",
]);
const WITH_ARGUMENT_IGNORED = new Set(["label", "hspace", "hspace*", "vspace", "color"]);
const ESCAPED = new Set(["%", "$", "#", "&", "_", "{", "}", "|"]);

const row = (nodes) => (nodes.length === 1 ? nodes[0] : makeMath("mrow", {}, nodes));
const operator = (text, attributes = {}) => makeMath("mo", attributes, text);

/** Names that no table has: each with what it does. */
const READERS = {
  frac: (parser) => makeMath("mfrac", {}, parser.argument(), parser.argument()),
  binom: (parser) =>
    row([operator("("), makeMath("mfrac", { linethickness: "0" }, parser.argument(), parser.argument()), operator(")")]),
  sqrt: (parser) => {
    const degree = parser.bracketed();
    const body = parser.argument();
    return degree === null ? makeMath("msqrt", {}, body) : makeMath("mroot", {}, body, makeMath("mn", {}, degree.trim()));
  },
  left: (parser) => {
    const open = parser.delimiter();
    const parts = [];
    const ends = (token) => token.kind === "command" && (token.text === "right" || token.text === "middle");
    while (true) {
      parts.push(row(parser.list(ends)));
      if (parser.next().text === "right") break;
      parts.push(operator(parser.delimiter(), { stretchy: "true" }));
    }
    const close = parser.delimiter();
    return makeMath("mrow", {}, fence(open, "prefix"), ...parts, fence(close, "postfix"));
  },
  begin: environment,
  overset: (parser) => {
    const above = parser.argument();
    return makeMath("mover", {}, parser.argument(), above);
  },
  underset: (parser) => {
    const below = parser.argument();
    return makeMath("munder", {}, parser.argument(), below);
  },
  not: (parser) => {
    const node = parser.atom();
    if (node.localName !== "mo" && node.localName !== "mi") parser.fail("\\not stands before what it cannot strike out");
    node.textContent = `${node.textContent}\u0338`;
    return node;
  },
  boxed: (parser) => makeMath("mrow", { class: "boxed" }, parser.argument()),
  cancel: (parser) => makeMath("mrow", { class: "cancelled" }, parser.argument()),
  phantom: (parser) => makeMath("mphantom", {}, parser.argument()),
  textcolor: (parser) => {
    parser.rawArgument();
    return parser.argument();
  },
  tag: (parser) => row([makeMath("mspace", { width: "2em" }), makeMath("mtext", {}, `(${parser.rawArgument()})`)]),
  bmod: () => operator("mod", { lspace: "0.2em", rspace: "0.2em" }),
  pmod: (parser) =>
    row([
      makeMath("mspace", { width: "0.5em" }),
      operator("(", { stretchy: "false" }),
      makeMath("mi", { mathvariant: "normal" }, "mod"),
      makeMath("mspace", { width: "0.3em" }),
      parser.argument(),
      operator(")", { stretchy: "false" }),
    ]),
  xrightarrow: (parser) => arrow(parser, "→"),
  xleftarrow: (parser) => arrow(parser, "←"),
  substack: (parser) => {
    parser.next();
    const body = parser.rows((token) => token.kind === "end");
    parser.next();
    return body;
  },
};
Object.assign(READERS, {
  dfrac: READERS.frac,
  tfrac: READERS.frac,
  cfrac: READERS.frac,
  dbinom: READERS.binom,
  tbinom: READERS.binom,
  stackrel: READERS.overset,
  bcancel: READERS.cancel,
  fbox: READERS.boxed,
  vphantom: READERS.phantom,
  hphantom: READERS.phantom,
});

/** The commands by name, and how letters look. */
export const COMMANDS = {
  find(name) {
    if (Object.hasOwn(READERS, name)) return READERS[name];
    if (LETTERS.has(name)) return () => makeMath("mi", {}, LETTERS.get(name));
    if (OPERATORS.has(name)) return () => operator(OPERATORS.get(name));
    if (LARGE.has(name)) return () => operator(LARGE.get(name), { largeop: "true", movablelimits: "false" });
    if (INTEGRALS.has(name)) return () => operator(INTEGRALS.get(name), { largeop: "true" });
    if (FUNCTIONS.has(name)) return () => named(name, FUNCTIONS.get(name));
    if (TEXTS.has(name)) return text;
    if (ALPHABETS.has(name)) return (parser) => parser.within("font", name, () => parser.argument());
    if (ACCENTS.has(name) || UNDER.has(name)) return accent;
    if (SPACES.has(name)) return () => makeMath("mspace", { width: `${SPACES.get(name)}em` });
    if (IGNORED.has(name)) return () => row([]);
    if (WITH_ARGUMENT_IGNORED.has(name)) return (parser) => (parser.rawArgument(), row([]));
    if (ESCAPED.has(name)) return () => operator(name === "|" ? "‖" : name, { stretchy: "false" });
    const size = /^(big|Big|bigg|Bigg)([lrm]?)$/.exec(name);
    if (size !== null) return (parser) => sized(parser, SIZES[size[1]]);
    if (DELIMITERS.has(name)) return () => operator(DELIMITERS.get(name), { stretchy: "false" });
    return null;
  },

  letter(parser, letter) {
    if (parser.font === null) return makeMath("mi", {}, letter);
    return makeMath("mi", { mathvariant: "normal" }, this.inFont(parser.font, letter));
  },

  /** Letters and digits in an alphabet, as signs of Unicode. */
  inFont(font, text) {
    const starts = ALPHABETS.get(font);
    if (starts === undefined) return text;
    return [...text].map((sign) => MOVED.get(`${font}${sign}`) ?? moved(sign, starts)).join("");
  },
};

function moved(sign, [capital, small, digit]) {
  if (/[A-Z]/.test(sign)) return String.fromCodePoint(capital + sign.charCodeAt(0) - 65);
  if (/[a-z]/.test(sign)) return String.fromCodePoint(small + sign.charCodeAt(0) - 97);
  return /[0-9]/.test(sign) ? String.fromCodePoint(digit + sign.charCodeAt(0) - 48) : sign;
}

function fence(sign, form) {
  return sign === "" ? row([]) : operator(sign, { fence: "true", stretchy: "true", form });
}

function sized(parser, em) {
  const sign = parser.delimiter();
  return sign === "" ? row([]) : operator(sign, { stretchy: "true", minsize: `${em}em`, maxsize: `${em}em` });
}

/** A function such as sin, with a little space behind it. */
function named(name, below) {
  const shown = { limsup: "lim sup", liminf: "lim inf", argmax: "arg max", argmin: "arg min" }[name] ?? name;
  return makeMath("mo", { form: "prefix", lspace: "0.1em", rspace: "0.16em", ...(below ? { "data-limits": "below" } : {}) }, shown);
}

function text(parser, name) {
  const raw = parser.rawArgument();
  if (name === "operatorname" || name === "operatorname*" || name === "mathop")
    return named(raw.replace(/\\[,;: ]/g, " ").replace(/\\/g, ""), name.endsWith("*"));
  if (name === "mathrm" && /^[A-Za-z]+$/.test(raw.trim())) return makeMath("mi", { mathvariant: "normal" }, raw.trim());
  const fonts = { textbf: "bold", textit: "italic", mathit: "italic", emph: "italic", texttt: "monospace" };
  const clean = raw
    .replace(/\$([^$]*)\$/g, "$1")
    .replace(/\\([%$#&_{} ])/g, "$1")
    .replace(/~/g, "\u00a0");
  return makeMath("mtext", { class: fonts[name] ?? null }, clean.replace(/^ | $/g, "\u00a0"));
}

function accent(parser, name) {
  const base = parser.argument();
  const stretchy = STRETCHY.has(name) || UNDER.has(name) ? "true" : "false";
  const tag = UNDER.has(name) ? "munder" : "mover";
  const mark = operator(UNDER.get(name) ?? ACCENTS.get(name), { stretchy });
  const braced = /brac/.test(name);
  return makeMath(tag, { class: braced ? "limits" : null, [tag === "mover" ? "accent" : "accentunder"]: "true" }, base, mark);
}

function arrow(parser, sign) {
  const below = parser.bracketed();
  const above = parser.argument();
  const shaft = operator(sign, { stretchy: "true", minsize: "2em" });
  return below === null
    ? makeMath("mover", {}, shaft, above)
    : makeMath("munderover", {}, shaft, makeMath("mtext", {}, below), above);
}
