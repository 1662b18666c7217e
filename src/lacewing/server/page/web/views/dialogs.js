// Dialogs of the browser's own kind: they hold the focus, Escape closes them, and the focus goes back.

import { iconButton, make } from "../core/dom.js";

/** Opens a dialog with a title; returns it. `onClose` gets its return value. */
export function openDialog(title, body, { onClose = () => {}, wide = false, id = null } = {}) {
  const heading = make("h2", { id: "dialog-title" }, title);
  const dialog = make("dialog", { id, class: wide ? "wide" : null, "aria-labelledby": "dialog-title" });
  const head = make(
    "div",
    { class: "dialog-head" },
    heading,
    iconButton("close", "Close", () => dialog.close("")),
  );
  dialog.append(head, make("div", { class: "dialog-body" }, body));
  dialog.addEventListener("close", () => {
    dialog.remove();
    onClose(dialog.returnValue);
  });
  dialog.addEventListener("mousedown", (event) => event.target === dialog && dialog.close(""));
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Whether a person agrees. */
export function confirmed(question, agree) {
  return new Promise((resolve) => {
    const close = (value) => () => dialog.close(value);
    const buttons = make(
      "div",
      { class: "buttons" },
      make("button", { type: "button", on: { click: close("") } }, "Cancel"),
      make("button", { type: "button", class: "danger", on: { click: close("yes") } }, agree),
    );
    const dialog = openDialog("Are you sure?", [make("p", {}, question), buttons], {
      onClose: (value) => resolve(value === "yes"),
    });
  });
}

/** A text from a person; null if none is given. */
export function asked(title, label, value, { agree = "Save", type = "text", note = null, choice = null } = {}) {
  return new Promise((resolve) => {
    const input = make("input", { type, id: "asked", required: true, autofocus: true, autocomplete: "off", spellcheck: "false" });
    input.value = value;
    const box = choice === null ? null : make("input", { type: "checkbox", id: "asked-choice" });
    const form = make(
      "form",
      { method: "dialog" },
      note === null ? null : make("p", {}, note),
      make("label", { for: "asked" }, label),
      input,
      box === null ? null : make("label", { class: "check", for: "asked-choice" }, box, choice),
      make("div", { class: "buttons" }, make("button", { type: "submit", class: "primary", value: "yes" }, agree)),
    );
    openDialog(title, form, {
      onClose: (answer) => resolve(answer === "yes" ? { text: input.value.trim(), chosen: box?.checked ?? false } : null),
    });
    input.select();
  });
}

/** A menu below a button: [{name, run}]. Arrow keys move in it. */
export function openMenu(button, entries) {
  const close = (refocus) => {
    menu.remove();
    button.setAttribute("aria-expanded", "false");
    document.removeEventListener("pointerdown", outside, true);
    if (refocus) button.focus();
  };
  const outside = (event) => menu.contains(event.target) || close(false);
  const items = entries.map(({ name, run, danger }) =>
    make(
      "button",
      { type: "button", role: "menuitem", class: danger ? "danger" : null, on: { click: () => (close(true), run()) } },
      name,
    ),
  );
  const menu = make("div", { class: "menu", role: "menu", "aria-label": button.getAttribute("aria-label") }, items);
  menu.addEventListener("keydown", (event) => {
    const at = items.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
    if (to !== undefined) items[(to + items.length) % items.length].focus();
    else if (event.key === "Escape" || event.key === "Tab") close(true);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  const place = button.getBoundingClientRect();
  menu.style.setProperty("top", `${Math.min(place.bottom + 4, window.innerHeight - 40 * items.length - 24)}px`);
  menu.style.setProperty("left", `${Math.max(8, Math.min(place.left, window.innerWidth - 268))}px`);
  button.closest("aside, main").append(menu);
  button.setAttribute("aria-expanded", "true");
  document.addEventListener("pointerdown", outside, true);
  items[0].focus();
}
