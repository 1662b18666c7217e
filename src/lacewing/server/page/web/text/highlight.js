// Colours for code: comments, strings, numbers and keywords, which is enough to read by. One row a family of languages.

import { make } from "../core/dom.js";
import { visible } from "./signs.js";

const MOST = 40_000; // characters; longer code is shown plain
const words = (text) => new Set(text.split(" "));
const C_WORDS =
  "auto bool break case catch char class const constexpr continue default delete do double else enum explicit extern false final float for friend goto if inline int long mutable namespace new noexcept nullptr operator override private protected public return short signed sizeof static struct switch template this throw true try typedef typename union unsigned using virtual void volatile while";
const FAMILIES = [
  {
    names: "python py python3 pycon",
    comment: "#",
    quotes: ['"""', "'''", '"', "'"],
    words: words(
      "and as assert async await break case class continue def del elif else except False finally for from global if import in is lambda match None nonlocal not or pass raise return self True try while with yield",
    ),
  },
  {
    names: "javascript js typescript ts jsx tsx mjs",
    comment: "//",
    block: ["/*", "*/"],
    quotes: ["`", '"', "'"],
    words: words(
      "abstract any as async await boolean break case catch class const continue default delete do else enum export extends false finally for from function get if implements import in instanceof interface let new null number of private protected public readonly return set static string super switch this throw true try type typeof undefined var void while yield",
    ),
  },
  {
    names: "c cpp c++ h hpp cuda cu objc glsl hlsl",
    comment: "//",
    block: ["/*", "*/"],
    quotes: ['"', "'"],
    words: words(C_WORDS),
  },
  {
    names: "java kotlin kt scala csharp cs c# swift dart groovy",
    comment: "//",
    block: ["/*", "*/"],
    quotes: ['"""', '"', "'"],
    words: words(
      `${C_WORDS} abstract boolean byte extends fun func guard implements import in instanceof interface internal is let null object package super var val when where async await foreach string init self nil protocol extension throws synchronized`,
    ),
  },
  {
    names: "go golang",
    comment: "//",
    block: ["/*", "*/"],
    quotes: ["`", '"', "'"],
    words: words(
      "break case chan const continue default defer else fallthrough false for func go goto if import interface map nil package range return select struct switch true type var string int int64 float64 bool byte error",
    ),
  },
  {
    names: "rust rs wgsl zig",
    comment: "//",
    block: ["/*", "*/"],
    quotes: ['"'],
    words: words(
      "as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod move mut pub ref return self Self static struct super trait true type unsafe use where while var override u32 i32 f32 f16 vec2 vec3 vec4 array",
    ),
  },
  {
    names: "bash sh shell zsh console fish powershell ps1 dockerfile makefile make",
    comment: "#",
    quotes: ['"', "'"],
    words: words(
      "case do done elif else esac exit export fi for function if in local return set then unset until while echo cd sudo FROM RUN COPY CMD ENTRYPOINT WORKDIR ENV ARG EXPOSE",
    ),
  },
  {
    names: "sql",
    comment: "--",
    block: ["/*", "*/"],
    quotes: ["'", '"'],
    fold: true,
    words: words(
      "add all alter and as asc between by case check column constraint create cross database default delete desc distinct drop else end exists foreign from full group having in index inner insert into is join key left like limit not null on or order outer primary references right select set table then union unique update using values view when where with",
    ),
  },
  { names: "json jsonc json5", comment: "//", quotes: ['"'], words: words("true false null") },
  { names: "yaml yml toml ini conf", comment: "#", quotes: ['"', "'"], words: words("true false null yes no on off") },
  {
    names: "ruby rb perl pl r julia jl elixir ex lua haskell hs",
    comment: "#",
    quotes: ['"', "'"],
    words: words(
      "alias and begin break case class def do else elsif end ensure false for function if in let local module my next nil not or our redo require rescue retry return self sub super then true unless until use when where while yield import using data type instance deriving",
    ),
  },
  { names: "html xml svg vue markup", block: ["<!--", "-->"], quotes: ['"', "'"], words: words("") },
  { names: "css scss less", block: ["/*", "*/"], quotes: ['"', "'"], words: words("") },
];
const BY_NAME = new Map(FAMILIES.flatMap((family) => family.names.split(" ").map((name) => [name, family])));
const WORD = /[\p{L}_][\p{L}\p{N}_]*/uy;
const NUMBER = /(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][+-]?\d+)?)[a-zA-Z]?/y;

/** Texts and coloured elements of code. */
export function highlighted(code, language) {
  if (/^(diff|patch)$/i.test(language)) return diff(code);
  const family = BY_NAME.get(language.toLowerCase());
  if (family === undefined || code.length > MOST) return [visible(code, true)];
  return pieces(code, family).map(([kind, text]) =>
    kind === "" ? visible(text, true) : make("span", { class: `code-${kind}` }, visible(text, true)),
  );
}

function diff(code) {
  const kinds = { "+": "added", "-": "removed", "@": "number" };
  return code.split("\n").map((line, index, all) => {
    const text = visible(index < all.length - 1 ? `${line}\n` : line, true);
    return kinds[line[0]] ? make("span", { class: `code-${kinds[line[0]]}` }, text) : text;
  });
}

function pieces(code, family) {
  const found = [];
  let plain = "";
  let at = 0;
  while (at < code.length) {
    const [kind, end] = piece(code, at, family);
    if (kind === "") {
      plain += code.slice(at, end);
    } else {
      if (plain !== "") found.push(["", plain]);
      plain = "";
      found.push([kind, code.slice(at, end)]);
    }
    at = end;
  }
  return plain === "" ? found : [...found, ["", plain]];
}

/** The kind of what begins at a place, and where it ends. */
function piece(code, at, family) {
  if (
    family.comment !== undefined &&
    code.startsWith(family.comment, at) &&
    (family.comment !== "#" || at === 0 || /\s/.test(code[at - 1]))
  ) {
    return ["comment", lineEnd(code, at)];
  }
  if (family.block !== undefined && code.startsWith(family.block[0], at)) {
    const end = code.indexOf(family.block[1], at + family.block[0].length);
    return ["comment", end < 0 ? code.length : end + family.block[1].length];
  }
  const quote = family.quotes.find((each) => code.startsWith(each, at));
  if (quote !== undefined) return ["string", stringEnd(code, at + quote.length, quote)];
  NUMBER.lastIndex = WORD.lastIndex = at;
  const word = WORD.exec(code);
  if (word !== null) {
    const known = family.words.has(family.fold ? word[0].toLowerCase() : word[0]);
    const called = !known && code[at + word[0].length] === "(";
    return [known ? "keyword" : called ? "call" : "", at + word[0].length];
  }
  const number = NUMBER.exec(code);
  if (number !== null) return ["number", at + number[0].length];
  return ["", at + 1];
}

function lineEnd(code, at) {
  const end = code.indexOf("\n", at);
  return end < 0 ? code.length : end;
}

function stringEnd(code, from, quote) {
  const long = quote.length > 1 || quote === "`";
  for (let at = from; at < code.length; at += 1) {
    if (code[at] === "\\") at += 1;
    else if (code.startsWith(quote, at)) return at + quote.length;
    else if (code[at] === "\n" && !long) return at;
  }
  return code.length;
}
