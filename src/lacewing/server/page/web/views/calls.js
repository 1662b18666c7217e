// Calls of tools: what the model wants to call, and a form for what comes of it. The page itself runs nothing.

import { make } from "../core/dom.js";
import { highlighted } from "../text/highlight.js";
import { visible } from "../text/signs.js";

/** Elements of some calls. */
export function callsOf(calls) {
  return calls.map((call) =>
    make(
      "details",
      { class: "call", open: true },
      make("summary", {}, "Call of ", make("code", {}, visible(call.name, true))),
      make(
        "pre",
        { dir: "ltr", tabindex: "0", role: "region", "aria-label": "Arguments of the call" },
        make("code", {}, highlighted(indented(call.arguments), "json")),
      ),
    ),
  );
}

function indented(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text; // still coming, or not JSON
  }
}

/** Asks a person for the result of each call. */
export class ResultForm {
  constructor(message, send) {
    const areas = message.calls.map((call, index) => {
      const id = `result-${message.id}-${index}`;
      return [
        make("label", { for: id }, `Result of ${visible(call.name)}`),
        make("textarea", { id, rows: "2", spellcheck: "false" }),
      ];
    });
    const note = make("p", { class: "note" }, "The page does not run tools. Give the model the results yourself, and it goes on.");
    this.element = make(
      "form",
      { class: "results" },
      note,
      areas,
      make("button", { type: "submit", class: "primary" }, "Send the results"),
    );
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      send(areas.map(([, area]) => area.value));
    });
  }
}
