// The keyboard, and the API key.

import { byId, icon, make } from "../core/dom.js";
import { setApiKey } from "../core/preferences.js";
import { asked, openDialog } from "./dialogs.js";

/** [keys, what they do, whether an event is meant, action]. */
function shortcuts({ state, actions, sidebar, settings, models }) {
  const command = (event) => (event.ctrlKey || event.metaKey) && !event.altKey;
  const lastOfPerson = () => [...document.querySelectorAll(".message.user")].at(-1);
  return [
    ["Enter", "send the message"],
    ["Shift + Enter", "begin a new line"],
    [
      "Escape",
      "stop the answer, or close what is open",
      (event) => event.key === "Escape" && actions.busy && !document.querySelector("dialog[open], .menu"),
      () => actions.stop(),
    ],
    [
      "Ctrl + Shift + O",
      "new conversation",
      (event) => command(event) && event.shiftKey && event.code === "KeyO",
      () => sidebar.begin(),
    ],
    [
      "Ctrl + K",
      "search the conversations",
      (event) => command(event) && !event.shiftKey && event.code === "KeyK",
      () => (sidebar.toggle(true), byId("filter").focus()),
    ],
    ["Ctrl + M", "choose the model", (event) => event.ctrlKey && event.code === "KeyM", () => models.open()],
    ["Ctrl + ,", "settings of the conversation", (event) => command(event) && event.key === ",", () => settings.open()],
    [
      "Arrow up in the empty box",
      "edit your last message",
      (event) =>
        event.key === "ArrowUp" && event.target === byId("draft") && byId("draft").value === "" && lastOfPerson() !== undefined,
      () => lastOfPerson().querySelector('[aria-label="Edit the message"]')?.click(),
    ],
    ["Ctrl + Enter while editing", "send what was edited"],
    [
      "Ctrl + Shift + ;",
      "copy the last code block",
      (event) => command(event) && event.shiftKey && event.code === "Semicolon",
      () => [...document.querySelectorAll(".code-block .copy")].at(-1)?.click(),
    ],
    [
      "Shift + ?",
      "this list, outside of a text field",
      (event) => event.key === "?" && !/^(TEXTAREA|INPUT|SELECT)$/.test(event.target.tagName),
      () => showKeys(),
    ],
  ].map(([keys, about, meant, run]) => ({ keys, about, meant, run }));
}

let table = [];

export function setUpKeys(parts) {
  table = shortcuts(parts);
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || (document.querySelector("dialog[open]") && event.key !== "Escape")) return;
    const found = table.find(({ meant }) => meant?.(event));
    if (found === undefined) return;
    event.preventDefault();
    found.run();
  });
  byId("show-keys").prepend(icon("keyboard"));
  byId("show-keys").addEventListener("click", showKeys);
}

function showKeys() {
  const rows = table.map(({ keys, about }) =>
    make(
      "tr",
      {},
      make(
        "th",
        { scope: "row" },
        keys.split(" + ").flatMap((key, index) => [index ? " + " : null, make("kbd", {}, key)]),
      ),
      make("td", {}, about),
    ),
  );
  openDialog("Keyboard", make("table", { class: "keys" }, make("tbody", {}, rows)));
}

let asking = null;

/** Asks once, however many requests need a key. */
export function askForKey(wrong) {
  asking ??= askPerson(wrong).finally(() => (asking = null));
  return asking;
}

async function askPerson(wrong) {
  const note = wrong ? "The server does not accept the API key that this page has." : "This server wants an API key.";
  const given = await asked("API key", "Key", "", {
    agree: "Use it",
    type: "password",
    note,
    choice: "Remember it in this browser",
  });
  if (given === null || given.text === "") return false;
  setApiKey(given.text, given.chosen);
  return true;
}
