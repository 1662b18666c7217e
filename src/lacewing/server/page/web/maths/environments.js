// Tables of LaTeX's mathematics: matrices, cases, aligned equations.

import { makeMath } from "../core/dom.js";
import { ENVIRONMENTS } from "./symbols.js";

const SIDES = { l: "left", c: "center", r: "right" };

/** What stands between \begin{name} and \end{name}. */
export function environment(parser) {
  const written = parser.rawArgument().trim();
  const name = written.replace(/\*$/, "");
  const found = ENVIRONMENTS.get(name);
  if (found === undefined) parser.fail(`the environment ${name} is not known`);
  const [open, close, usual] = found;
  const columns = columnsOf(parser, name) ?? usual;
  const rows = rowsOf(parser, written);
  const relations = /^(aligned|align|alignat|split|eqnarray)$/.test(name);
  const cells = rows.map((cells) =>
    makeMath(
      "mtr",
      {},
      cells.map((nodes, column) => makeMath("mtd", { class: sideOf(columns, column, relations) }, nodes)),
    ),
  );
  const table = makeMath(
    "mtable",
    {
      displaystyle: relations || name === "dcases" ? "true" : "false",
      class: relations ? "relations" : name === "smallmatrix" ? "small" : null,
    },
    cells,
  );
  if (open === "" && close === "") return table;
  const fence = (sign, form) => (sign === "" ? null : makeMath("mo", { fence: "true", stretchy: "true", form }, sign));
  return makeMath("mrow", {}, fence(open, "prefix"), table, fence(close, "postfix"));
}

/** The letters of "{lcr}" of an array; null for other environments. */
function columnsOf(parser, name) {
  if (name === "array" || name === "subarray" || name === "alignat") {
    parser.bracketed();
    const given = parser.rawArgument();
    return name === "alignat" ? null : given.replace(/[^lcr]/g, "") || "c";
  }
  if (name === "aligned" || name === "gathered") parser.bracketed();
  return null;
}

function sideOf(columns, column, repeats) {
  const letter = repeats ? columns[column % columns.length] : columns[Math.min(column, columns.length - 1)];
  return `side-${SIDES[letter]}`;
}

function rowsOf(parser, name) {
  const rows = [[]];
  const ends = (token) => token.kind === "cell" || token.kind === "row" || (token.kind === "command" && token.text === "end");
  while (true) {
    rows.at(-1).push(parser.list(ends));
    const token = parser.next();
    if (token.kind === "row") {
      parser.bracketed();
      rows.push([]);
    } else if (token.kind !== "cell") {
      break;
    }
  }
  if (parser.rawArgument().trim() !== name) parser.fail(`\\begin{${name}} ends with another name`);
  const last = rows.at(-1);
  if (rows.length > 1 && last.length === 1 && last[0].length === 0) rows.pop();
  return rows;
}
