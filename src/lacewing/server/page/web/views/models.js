// The models of the server: which one answers, what is in memory, and how.

import { byId, icon, make } from "../core/dom.js";
import { openDialog } from "./dialogs.js";
import { notice } from "./announce.js";
import { bytes, short } from "./numbers.js";
import { howItRuns } from "./running.js";

const WORDS = { unloaded: "not in memory", loading: "loading", loaded: "in memory", sleeping: "asleep" };

export class ModelsView {
  constructor(state, actions, models) {
    this.state = state;
    this.actions = actions;
    this.models = models;
    byId("model").addEventListener("click", () => this.open());
    state.on("models conversation", () => this.render());
    this.render();
  }

  render() {
    const { model, conversation } = this.state;
    const name = model?.id ?? conversation.model ?? "no model";
    const status = model?.status?.value ?? "unloaded";
    const dot = make("span", { class: `state ${status}`, "aria-hidden": "true" });
    byId("model").replaceChildren(dot, make("span", { class: "model-name" }, name), icon("down"));
    byId("model").setAttribute("aria-label", `Model: ${name}, ${model ? WORDS[status] : "not of this server"}`);
    byId("model").title = `${name}: ${model ? WORDS[status] : "not of this server"} (Ctrl+M)`;
    if (this.dialog?.open) this.renderDialog();
  }

  open() {
    if (this.dialog?.open) return;
    this.shownDetails = null;
    this.list = make("ul", { class: "models" });
    this.details = make("div", { class: "model-details" });
    this.known = make("details", { class: "more" }, make("summary", {}, "Fetch another model"));
    this.known.addEventListener("toggle", () => this.known.open && this.run(() => this.loadKnown()));
    const rest = this.models.watch();
    this.dialog = openDialog("Models", [this.list, this.details, this.known], { wide: true, id: "models", onClose: rest });
    this.run(() => this.models.refresh());
    this.renderDialog();
  }

  /** Runs what may fail at the server. */
  async run(work) {
    try {
      await work();
    } catch (error) {
      this.tell(error.message);
    }
  }

  /** Of a failure: in the dialog where it is open, since that lies over notices. */
  tell(message) {
    if (!this.dialog?.open) return notice(message, { failed: true });
    this.dialog.querySelector(".told")?.remove();
    this.list.before(make("p", { class: "problem told", role: "alert" }, message));
    return undefined;
  }

  renderDialog() {
    const focused = document.activeElement?.dataset?.key;
    this.list.replaceChildren(
      ...this.state.models.map((model) => this.row(model)),
      ...[...this.models.downloads].map(([name, progress]) => downloadRow(name, progress)),
    );
    if (focused) this.dialog.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
    const { model } = this.state;
    const key = JSON.stringify([
      model?.id,
      model?.status?.value,
      model?.residency,
      model?.context,
      model?.template,
      model?.template_choice,
    ]);
    if (key !== this.shownDetails) {
      this.shownDetails = key;
      this.details.replaceChildren(...howItRuns(model, this.models, (work) => this.run(work)));
    }
  }

  row(model) {
    const current = this.state.model === model;
    const { value, progress, message } = model.status;
    const meta = model.meta ?? {};
    const facts = [
      meta.architecture,
      meta.n_params && short(meta.n_params),
      meta.quant,
      meta.size && bytes(meta.size),
      model.experts && `${model.experts.count} experts, ${model.experts.active} active`,
    ];
    const button = (name, run, key) =>
      make(
        "button",
        {
          type: "button",
          "aria-label": `${name} ${model.id}`,
          data: { key: `${key} ${model.id}` },
          on: { click: () => this.run(run) },
        },
        name,
      );
    const choose = make(
      "button",
      {
        type: "button",
        class: "choose",
        "aria-pressed": String(current),
        data: { key: `use ${model.id}` },
        on: { click: () => this.actions.use(model.id) },
      },
      make("span", { class: `state ${value}`, "aria-hidden": "true" }),
      make("strong", {}, model.id),
      make("small", {}, facts.filter(Boolean).join(" · ")),
    );
    const load = value === "unloaded" || value === "sleeping";
    const action = load
      ? button("Load", () => this.models.change(model.id), "load")
      : button(value === "loading" ? "Cancel" : "Unload", () => this.models.unload(model.id), "unload");
    return make(
      "li",
      { class: current ? "current" : null },
      choose,
      make("span", { class: "model-state" }, WORDS[value] ?? value),
      action,
      progress ? progressBar(progress.current, progress.done, progress.total) : null,
      message ? make("p", { class: "problem" }, message) : null,
    );
  }

  async loadKnown() {
    const names = new Set(this.state.models.map((model) => model.id));
    const known = (await this.models.known()).filter((each) => !each.here && !names.has(each.name));
    const rows = known.map(({ name, about }) =>
      make(
        "li",
        {},
        make("span", {}, make("strong", {}, name), make("small", {}, about)),
        make(
          "button",
          { type: "button", "aria-label": `Fetch ${name}`, on: { click: () => this.run(() => this.models.fetch(name)) } },
          "Fetch",
        ),
      ),
    );
    this.known.querySelector("ul")?.remove();
    this.known.append(make("ul", { class: "models" }, rows.length ? rows : make("li", {}, "All of them are here.")));
  }
}

function progressBar(what, done, total) {
  const bar = make("progress", {
    max: total ? String(total) : null,
    value: total ? String(done) : null,
    "aria-label": what || "progress",
  });
  return make(
    "div",
    { class: "progress" },
    bar,
    make("small", {}, `${what || "waiting"}${total ? `, ${Math.round((100 * done) / total)} %` : ""}`),
  );
}

function downloadRow(name, { done, total }) {
  return make("li", {}, make("strong", {}, name), progressBar("fetching", done, total));
}
