// How a model is in memory: its weights, its context and its chat template, and a form that changes them.

import { make } from "../core/dom.js";

const RESIDENCIES = [
  ["eager", "read into RAM"],
  ["lazy", "mapped from the file"],
  ["auto", "as the server decides"],
];
const STREAMED = ["streamed", "in RAM, except experts"]; // of mixtures only

/** Elements for a model. `run` does what may fail at the server. */
export function howItRuns(model, models, run) {
  if (!model || model.status.value === "loading") return [];
  const loaded = model.status.value === "loaded";
  const fields = { residency: residencyOf(model), context: contextOf(model), template: templateOf(model) };
  const before = { residency: fields.residency.value, context: fields.context.value };
  const force = make("input", { type: "checkbox", id: "force" });
  const findings = make("p", { class: "note findings whole", hidden: true });
  const form = make(
    "form",
    { class: "fields" },
    field("residency", "Weights", fields.residency),
    field("context", "Context, tokens", fields.context),
    field("template", "Chat template", fields.template),
    findings,
    make("label", { class: "check whole", for: "force" }, force, "Even where the server advises against it"),
    make("div", { class: "buttons" }, make("button", { type: "submit", class: "primary" }, loaded ? "Change it" : "Load it so")),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run(() => models.change(model.id, { ...changesOf(fields, before), ...(force.checked ? { force: true } : {}) }));
  });
  if (loaded) fillTemplates(model, models, fields.template, findings);
  const note = make("p", { class: "note" }, "For everybody who uses this server. Answers under way go on.");
  return [make("h3", {}, `How ${model.id} runs`), note, form];
}

function field(id, label, input) {
  return make("div", { class: "field" }, make("label", { for: id }, label), input);
}

function residencyOf(model) {
  const known = model.experts ? [STREAMED, ...RESIDENCIES] : [...RESIDENCIES];
  if (model.residency === "device") known.unshift(["device", "on the GPU"]);
  const list = make(
    "select",
    { id: "residency" },
    known.map(([value, name]) => make("option", { value }, name)),
  );
  list.value = model.residency ?? "auto";
  return list;
}

function contextOf(model) {
  const most = String(model.meta?.n_ctx_train ?? 2 ** 27);
  const input = make("input", {
    id: "context",
    type: "number",
    min: "1",
    max: most,
    step: "1",
    placeholder: "as the server decides",
  });
  input.value = model.context ?? "";
  return input;
}

/** The one in use; the others are asked for where the model is in memory. */
function templateOf(model) {
  return make("select", { id: "template" }, make("option", { value: "" }, model.template ?? "none"));
}

function changesOf({ residency, context, template }, before) {
  const changes = {};
  if (residency.value !== before.residency && residency.value !== "device") changes.residency = residency.value;
  if (context.value !== before.context) changes.context = context.value === "" ? null : Number(context.value);
  if (template.value !== "" && template.value !== template.dataset.before) changes.template = template.value;
  return changes;
}

async function fillTemplates(model, models, list, findings) {
  let found;
  try {
    found = await models.templates(model.id);
  } catch {
    return; // it has just left the memory: the name of the one in use stays
  }
  const named = ({ name, title }) => (title && title !== name ? `${name} (${title})` : name);
  list.replaceChildren(...found.map((each) => make("option", { value: each.name, disabled: !each.usable }, named(each))));
  list.value = model.template_choice;
  list.dataset.before = list.value;
  const tell = () => {
    const chosen = found.find(({ name }) => name === list.value);
    findings.textContent = chosen?.findings.join("; ") ?? "";
    findings.hidden = findings.textContent === "";
  };
  list.addEventListener("change", tell);
  tell();
}
