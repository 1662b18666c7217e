// How much of the model's context the conversation fills.

import { byId, make } from "../core/dom.js";
import { post } from "../net/api.js";
import { basisOf } from "../net/answer.js";
import { conversationBody } from "../net/request.js";
import { pathOf } from "../core/tree.js";
import { counted, short } from "./numbers.js";

const PAUSE = 400; // milliseconds without a change before the server is asked to count

export class Meter {
  constructor(state) {
    this.state = state;
    this.fill = make("div", { class: "meter-fill" });
    this.bar = make("div", { class: "meter-bar", role: "meter", "aria-label": "Context", "aria-valuemin": "0" }, this.fill);
    this.label = make("span", { class: "meter-label" });
    byId("meter").append(this.bar, this.label);
    this.counted = { key: "", tokens: null };
    state.on("conversation models answering", () => this.update());
    state.on("growing", () => this.render());
    this.update();
  }

  update() {
    this.render();
    clearTimeout(this.timer);
    if (this.known() === null) this.timer = setTimeout(() => this.count(), PAUSE);
  }

  /** Tokens of the path: of the last answer's prompt and of the answer; null if the path is another one since. */
  known() {
    const { conversation, model } = this.state;
    const last = pathOf(conversation).at(-1);
    if (last === undefined) return conversation.system ? null : 0;
    const { stats } = last;
    if (last.role === "assistant" && stats?.prompt && last.model === model?.id && last.basis === basisOf(conversation))
      return stats.prompt + (stats.generated ?? 0);
    return this.counted.key === this.key() ? this.counted.tokens : null;
  }

  key() {
    const { conversation, model } = this.state;
    const path = pathOf(conversation);
    return [
      model?.id,
      model?.template,
      conversation.left,
      conversation.system,
      path.at(-1)?.id,
      path.at(-1)?.content.length,
    ].join();
  }

  /** Asks the server, where the model is in memory: counting is no reason to load one. */
  async count() {
    const { conversation, model } = this.state;
    if (model?.status?.value !== "loaded" || this.state.answers.has(conversation.id)) return;
    const key = this.key();
    const body = conversationBody(conversation);
    if (body.messages.length === 0) return;
    try {
      const { prompt } = await post("apply-template", { ...body, model: model.id });
      const { tokens } = await post("tokenize", { content: prompt, parse_special: true, model: model.id });
      this.counted = { key, tokens: tokens.length };
    } catch {
      this.counted = { key, tokens: null }; // a template that refuses the conversation says so when it is to be answered
    }
    this.render();
  }

  render() {
    const { model } = this.state;
    const context = model?.context ?? null;
    const tokens = this.known();
    byId("meter").hidden = !context;
    if (!context) return;
    const share = Math.min(1, (tokens ?? 0) / context);
    this.fill.style.setProperty("width", `${Math.max(share > 0 ? 2 : 0, 100 * share)}%`);
    this.bar.classList.toggle("nearly-full", share > 0.85);
    const text =
      tokens === null
        ? `context of ${counted(context, "token")}`
        : `${tokens.toLocaleString("en")} of ${counted(context, "token")} of context`;
    this.label.textContent = `${tokens === null ? "–" : short(tokens)} / ${short(context)}`;
    byId("meter").title = text;
    this.bar.setAttribute("aria-valuemax", String(context));
    this.bar.setAttribute("aria-valuenow", String(Math.min(tokens ?? 0, context)));
    this.bar.setAttribute("aria-valuetext", text);
  }
}
