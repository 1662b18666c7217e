// A message that is being edited, in its place.

import { make } from "../core/dom.js";

/** `done(text)` is called once; null: nothing is to change. */
export class Editor {
  constructor(text, name, done) {
    this.area = make("textarea", { "aria-label": "Edit the message", rows: "1" });
    this.area.value = text;
    this.area.addEventListener("input", () => this.fit());
    this.area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") done(null);
      else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) done(this.area.value);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    const buttons = make(
      "div",
      { class: "buttons" },
      make("button", { type: "button", on: { click: () => done(null) } }, "Cancel"),
      make("button", { type: "button", class: "primary", title: "Ctrl+Enter", on: { click: () => done(this.area.value) } }, name),
    );
    this.element = make("div", { class: "editor" }, this.area, buttons);
  }

  begin() {
    this.fit();
    this.area.focus();
    this.area.setSelectionRange(this.area.value.length, this.area.value.length);
  }

  fit() {
    this.area.style.setProperty("height", "auto");
    this.area.style.setProperty("height", `${Math.min(this.area.scrollHeight + 2, 0.6 * window.innerHeight)}px`);
  }
}
