// Which experts of a mixture are used: a row a layer, a column an expert. Asked for while it is shown.

import { byId, icon, iconButton, make } from "../core/dom.js";
import { get } from "../net/api.js";
import { announce } from "./announce.js";

const EVERY = 1000; // milliseconds
const CELL = 14; // pixels at most
const COLOURS = ["--heat-0", "--heat-1", "--heat-2", "--heat-3", "--heat-4", "--heat-5"];
const BOUNDS = [0, 0.5, 1, 1.5, 3]; // shares of an even load at which the next colour begins

export class Experts {
  constructor(state) {
    this.state = state;
    this.pane = byId("experts");
    byId("show-experts").append(icon("heat"));
    byId("show-experts").addEventListener("click", () => (this.pane.hidden ? this.open() : this.close()));
    state.on("models conversation", () => this.change());
    this.change();
  }

  change() {
    const { model } = this.state;
    byId("show-experts").hidden = !model?.experts;
    if (!this.pane.hidden && this.name !== model?.id) this.close();
  }

  open() {
    this.name = this.state.model.id;
    this.canvas = make("canvas", { role: "img", "aria-label": "Load of the experts" });
    this.pointed = null; // [x, y] within the canvas, in pixels
    const point = (at) => ((this.pointed = at), this.describe());
    this.canvas.addEventListener("pointermove", (event) => point([event.offsetX, event.offsetY]));
    this.canvas.addEventListener("pointerleave", () => point(null));
    this.about = make("p", { class: "note" });
    this.recent = make("input", { type: "checkbox", id: "recent" });
    this.recent.addEventListener("change", () => this.draw());
    this.layers = make(
      "details",
      { class: "more" },
      make("summary", {}, "As a table"),
      (this.table = make("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Busiest experts" })),
    );
    const head = make(
      "div",
      { class: "panel-head" },
      make("h2", {}, "Experts"),
      make("label", { class: "check", for: "recent" }, this.recent, "last second only"),
      iconButton("close", "Close the experts", () => this.close()),
    );
    const legend = make(
      "p",
      { class: "legend" },
      "none",
      COLOURS.map((_, level) => make("span", { class: `heat heat-${level}`, "aria-hidden": "true" })),
      "over three times an even share",
    );
    this.pane.replaceChildren(head, make("div", { class: "canvas" }, this.canvas), legend, this.about, this.layers);
    this.pane.hidden = false;
    byId("show-experts").setAttribute("aria-pressed", "true");
    this.found = this.before = null;
    announce("The load of the experts is shown.");
    this.control = new AbortController();
    this.poll(this.control.signal);
  }

  close() {
    this.pane.hidden = true;
    this.control?.abort();
    byId("show-experts").setAttribute("aria-pressed", "false");
  }

  async poll(signal) {
    while (!signal.aborted) {
      try {
        const found = await get(`models/experts?model=${encodeURIComponent(this.name)}`, signal);
        this.before = this.found;
        this.found = found;
        this.draw();
      } catch (error) {
        if (error.name === "AbortError") return;
        this.about.textContent = error.message;
      }
      await new Promise((resolve) => setTimeout(resolve, EVERY));
    }
  }

  /** [{layer, loads}]: of each expert its share of an even load. */
  loads() {
    const { layers } = this.found;
    return layers.map(({ layer, tokens }, index) => {
      const old = this.recent.checked ? this.before?.layers[index]?.tokens : null;
      const counts = old ? tokens.map((count, expert) => Math.max(0, count - old[expert])) : tokens;
      const total = counts.reduce((sum, count) => sum + count, 0);
      return { layer, counts, total, loads: counts.map((count) => (total ? (count * counts.length) / total : 0)) };
    });
  }

  draw() {
    if (!this.found) return;
    this.rows = this.loads();
    const experts = this.rows[0]?.loads.length ?? 0;
    this.describe();
    if (experts === 0) return;
    const width = this.pane.clientWidth - 32;
    this.cell = Math.max(2, Math.min(CELL, Math.floor(width / experts)));
    this.high = Math.max(3, Math.min(this.cell, 10));
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [this.cell * experts, this.high * this.rows.length];
    Object.assign(this.canvas, { width: w * ratio, height: h * ratio });
    this.canvas.style.setProperty("width", `${w}px`);
    this.canvas.style.setProperty("height", `${h}px`);
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const style = getComputedStyle(this.pane);
    const colours = COLOURS.map((name) => style.getPropertyValue(name));
    const gap = this.cell > 4 ? 1 : 0;
    this.rows.forEach(({ loads }, y) =>
      loads.forEach((load, x) => {
        pen.fillStyle = colours[levelOf(load)];
        pen.fillRect(x * this.cell, y * this.high, this.cell - gap, this.high - (this.high > 4 ? 1 : 0));
      }),
    );
    if (this.layers.open) this.renderTable();
  }

  hits() {
    const { hit_ratio: ratio, found } = this.found;
    const chosen = found ? found.gpu + found.ram + found.disk : 0;
    const share = (count) => `${Math.round((100 * count) / chosen)} %`;
    if (chosen) {
      const gpu = found.gpu ? `${share(found.gpu)} were on the GPU, ` : "";
      return ` ${gpu}${share(found.ram)} were in RAM, ${share(found.disk)} were read from the disk.`;
    }
    return ratio === null || ratio === undefined || found ? "" : ` ${Math.round(100 * ratio)} % were on the GPU.`;
  }

  describe() {
    if (!this.found) return;
    const total = this.rows[0]?.total ?? 0;
    const hits = this.hits();
    const text =
      total === 0
        ? "No token has been routed yet. Ask something."
        : `${this.rows.length} layers of ${this.found.experts} experts, ${this.found.active} for each token.${hits}`;
    this.about.textContent = this.ofPointed() ?? text;
    this.canvas.setAttribute("aria-label", `Load of the experts: ${text}`);
  }

  /** What is said of the expert that is pointed at; null where there is none. */
  ofPointed() {
    if (this.pointed === null) return null;
    const row = this.rows[Math.floor(this.pointed[1] / this.high)];
    const expert = Math.floor(this.pointed[0] / this.cell);
    if (row?.loads[expert] === undefined) return null;
    return `Layer ${row.layer}, expert ${expert}: ${row.counts[expert].toLocaleString("en")} choices, ${row.loads[expert].toFixed(1)} times an even share.`;
  }

  renderTable() {
    const lines = this.rows.map(({ layer, loads }) => {
      const busiest = loads
        .map((load, expert) => [load, expert])
        .sort(([one], [other]) => other - one)
        .slice(0, 3);
      return make(
        "tr",
        {},
        make("th", { scope: "row" }, String(layer)),
        make("td", {}, busiest.map(([load, expert]) => `${expert} (${load.toFixed(1)}×)`).join(", ")),
        make("td", {}, String(loads.filter((load) => load === 0).length)),
      );
    });
    const head = make(
      "tr",
      {},
      ["Layer", "Busiest experts", "Not used"].map((name) => make("th", { scope: "col" }, name)),
    );
    this.table.replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, lines)));
  }
}

function levelOf(load) {
  if (load === 0) return 0;
  return BOUNDS.filter((bound) => load > bound).length;
}
