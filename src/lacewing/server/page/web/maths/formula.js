// A formula on the page: as MathML, or as its source where that is not understood or not complete yet.

import { make } from "../core/dom.js";
import { FormulaError, mathmlOf } from "./parser.js";

/** The element of a formula. `closed`: it is complete. */
export function formula(source, display, closed) {
  if (closed) {
    try {
      return mathmlOf(source, display);
    } catch (error) {
      if (!(error instanceof FormulaError)) throw error;
    }
  }
  return make("code", { class: display ? "source display" : "source", dir: "ltr" }, source.trim());
}
