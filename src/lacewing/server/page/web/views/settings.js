// The settings of a conversation: what the system prompt says, how tokens are chosen, and which tools the model may call.

import { byId, icon, make } from "../core/dom.js";
import { preference, setPreference } from "../core/preferences.js";
import { DEFAULTS, SAMPLING } from "../net/request.js";
import { openDialog } from "./dialogs.js";
import { notice } from "./announce.js";

const EFFORTS = [
  ["", "as the model decides"],
  ["none", "none"],
  ["minimal", "minimal"],
  ["low", "low"],
  ["medium", "medium"],
  ["high", "high"],
];

export class Settings {
  constructor(state, actions) {
    this.state = state;
    this.actions = actions;
    byId("show-settings").append(icon("settings"));
    byId("show-settings").addEventListener("click", () => this.open());
  }

  open() {
    const { conversation } = this.state;
    this.problem = make("p", { class: "problem", role: "alert", hidden: true });
    const form = make(
      "form",
      { class: "settings" },
      this.system(conversation),
      this.thinking(conversation),
      this.sampling(conversation),
      this.tools(conversation),
      this.problem,
    );
    const usual = make("button", { type: "button", on: { click: () => this.keep(form, true) } }, "Use for new conversations");
    form.append(make("div", { class: "buttons" }, usual, make("button", { type: "submit", class: "primary" }, "Apply")));
    form.addEventListener("submit", (event) => (event.preventDefault(), this.keep(form, false)));
    this.dialog = openDialog("Settings of this conversation", form, { wide: true, id: "settings" });
  }

  system(conversation) {
    const area = make("textarea", {
      id: "system",
      rows: "4",
      autofocus: true,
      placeholder: "What the model should know or be, before anything else",
    });
    area.value = conversation.system ?? "";
    return make(
      "fieldset",
      {},
      make("legend", {}, "System prompt"),
      make("label", { class: "visually-hidden", for: "system" }, "System prompt"),
      area,
    );
  }

  thinking(conversation) {
    const list = make(
      "select",
      { id: "effort" },
      EFFORTS.map(([value, name]) => make("option", { value }, name)),
    );
    list.value = conversation.sampling.reasoning_effort ?? "";
    return make("fieldset", {}, make("legend", {}, "Thinking"), make("label", { for: "effort" }, "Effort"), list);
  }

  sampling(conversation) {
    const fields = SAMPLING.map(([name, label, low, high, step, about]) => {
      const input = make("input", {
        id: `set-${name}`,
        type: "number",
        min: String(low),
        max: String(high),
        step: String(step),
        placeholder: String(DEFAULTS[name] ?? ""),
        "aria-describedby": `about-${name}`,
      });
      input.value = conversation.sampling[name] ?? "";
      return make(
        "div",
        { class: "field" },
        make("label", { for: `set-${name}` }, label),
        input,
        make("small", { id: `about-${name}` }, about),
      );
    });
    const stop = make("textarea", { id: "stop", rows: "2", spellcheck: "false", "aria-describedby": "about-stop" });
    stop.value = (conversation.sampling.stop ?? []).join("\n");
    const stops = make(
      "div",
      { class: "field whole" },
      make("label", { for: "stop" }, "Stop at"),
      stop,
      make("small", { id: "about-stop" }, "texts that end the answer, one a line"),
    );
    return make("fieldset", {}, make("legend", {}, "Sampling"), make("div", { class: "fields" }, fields, stops));
  }

  tools(conversation) {
    const area = make("textarea", {
      id: "tools",
      rows: "4",
      spellcheck: "false",
      class: "code",
      placeholder: '[{"type": "function", "function": {"name": "weather", "parameters": {...}}}]',
    });
    area.value = conversation.tools?.length ? JSON.stringify(conversation.tools, null, 2) : "";
    const about =
      "Functions that the model may call, as OpenAI's API takes them. The page shows a call and asks you for its result.";
    return make(
      "details",
      { class: "more", open: area.value !== "" },
      make("summary", {}, "Tools"),
      make("label", { for: "tools" }, about),
      area,
    );
  }

  keep(form, asUsual) {
    if (!form.reportValidity()) return;
    const text = (id) => form.querySelector(`#${id}`).value;
    const sampling = {};
    for (const [name] of SAMPLING) if (text(`set-${name}`) !== "") sampling[name] = Number(text(`set-${name}`));
    if (text("effort") !== "") sampling.reasoning_effort = text("effort");
    const stop = text("stop")
      .split("\n")
      .filter((line) => line !== "");
    if (stop.length > 0) sampling.stop = stop;
    const tools = toolsOf(text("tools"));
    if (tools === null) {
      this.problem.textContent = "The tools are not a list in JSON.";
      this.problem.hidden = false;
      return;
    }
    const changes = { system: text("system"), sampling, tools };
    if (asUsual) setPreference("defaults", { ...preference("defaults", {}), ...changes });
    this.actions.set(changes);
    this.dialog.close("");
    if (asUsual) notice("New conversations begin with these settings.");
  }
}

function toolsOf(text) {
  if (text.trim() === "") return [];
  try {
    const found = JSON.parse(text);
    return Array.isArray(found) && found.every((each) => typeof each === "object" && each !== null) ? found : null;
  } catch {
    return null;
  }
}
