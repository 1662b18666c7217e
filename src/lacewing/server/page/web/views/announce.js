// What is said to people: short notices on the page, and words for screen readers alone.

import { byId, iconButton, make } from "../core/dom.js";

const STAYS = 6000; // milliseconds

/** Tells screen readers, when they have time for it. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** A notice that goes away by itself, unless it offers something or tells of a failure. */
export function notice(text, { action = null, failed = false } = {}) {
  const shown = make("div", { class: failed ? "notice failed" : "notice" }, make("span", {}, text));
  const close = () => shown.remove();
  if (action !== null) {
    shown.append(make("button", { type: "button", class: "link", on: { click: () => (close(), action.run()) } }, action.name));
  }
  shown.append(iconButton("close", "Close the notice", close));
  byId("notices").append(shown);
  while (byId("notices").childElementCount > 3) byId("notices").firstElementChild.remove();
  setTimeout(close, failed || action !== null ? 2 * STAYS : STAYS);
}
