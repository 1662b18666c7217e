// One message: its text, thoughts and calls, what it cost, and what can be done with it.

import { copyText } from "../core/clipboard.js";
import { iconButton, make } from "../core/dom.js";
import { versionsOf } from "../core/tree.js";
import { GrowingText } from "../text/render.js";
import { visible } from "../text/signs.js";
import { notice } from "./announce.js";
import { callsOf, ResultForm } from "./calls.js";
import { Editor } from "./editor.js";
import { seconds, short } from "./numbers.js";

/** The element of a message. `context`: {state, actions, nextRole(message)}. */
export class MessageView {
  constructor(message, context) {
    this.message = message;
    this.context = context;
    this.body = make("div", { class: "body" });
    this.text = make("div", { class: "text" });
    this.element = make("article", { class: `message ${message.role}`, data: { id: message.id } });
    if (message.role === "assistant") this.makeAnswer();
    else this.makePlain();
    this.foot = make("div", { class: "foot" });
    this.head = make("h2", { class: message.role === "user" ? "visually-hidden" : "who" });
    this.element.append(this.head, this.body, this.foot);
    this.render();
  }

  makeAnswer() {
    this.thoughts = make("div", { class: "text" });
    this.summary = make("summary", {});
    this.reasoning = make("details", { class: "reasoning", hidden: true }, this.summary, this.thoughts);
    this.reasoning.addEventListener("toggle", () => this.renderThoughts());
    this.calls = make("div", { class: "calls" });
    this.end = make("div", { class: "end" });
    this.body.append(this.reasoning, this.text, this.calls, this.end);
    this.growing = new GrowingText(this.text);
    this.growingThoughts = new GrowingText(this.thoughts);
  }

  makePlain() {
    this.text.classList.add("plain");
    this.text.dir = "auto";
    if (this.message.role === "tool") {
      const name = this.message.name ? ` of ${this.message.name}` : "";
      this.body.append(make("details", { class: "reasoning" }, make("summary", {}, visible(`Result${name}`)), this.text));
    } else {
      this.body.append(this.text);
    }
  }

  get coming() {
    return this.context.state.answers.get(this.context.state.conversation.id)?.message === this.message;
  }

  render() {
    const { message } = this;
    const names = { user: "You", tool: "Tool" };
    this.head.textContent = names[message.role] ?? message.model ?? "Model";
    this.element.classList.toggle("coming", this.coming);
    if (this.coming) this.element.setAttribute("aria-busy", "true");
    else this.element.removeAttribute("aria-busy");
    if (message.role === "assistant") this.renderAnswer();
    else if (this.text.textContent !== visible(message.content)) this.text.textContent = visible(message.content);
    this.renderFoot();
  }

  renderAnswer() {
    const { message } = this;
    const open = this.coming;
    this.growing.update(message.content, open);
    this.text.hidden = message.content === "";
    this.renderThoughts();
    this.renderCalls();
    this.renderEnd();
  }

  renderThoughts() {
    const { message } = this;
    const text = message.reasoning ?? "";
    this.reasoning.hidden = text === "";
    const thinking = this.coming && message.content === "" && !message.calls?.length;
    this.reasoning.classList.toggle("thinking", thinking);
    this.summary.textContent = thinking ? "Thinking…" : message.thought ? `Thought for ${seconds(message.thought)}` : "Thoughts";
    if (this.reasoning.open) this.growingThoughts.update(text, thinking);
  }

  renderCalls() {
    const { message, context } = this;
    const calls = message.calls ?? [];
    const state = JSON.stringify([calls, this.coming, message.end, context.nextRole(message)]);
    if (state === this.shownCalls) return;
    this.shownCalls = state;
    this.calls.replaceChildren(...callsOf(calls));
    const waits = message.end === "tool_calls" && !this.coming && context.nextRole(message) === null;
    if (waits) this.calls.append(new ResultForm(message, (results) => context.actions.giveResults(message, results)).element);
  }

  renderEnd() {
    const { message, context } = this;
    const parts = [];
    if (this.coming && message.content === "" && !message.reasoning && !message.calls?.length) {
      parts.push(
        make(
          "span",
          { class: "waiting" },
          make("span", { class: "dots", "aria-hidden": "true" }, make("i"), make("i"), make("i")),
          context.waiting(),
        ),
      );
    }
    if (message.end === "error") {
      parts.push(make("p", { class: "problem", role: "alert" }, visible(message.error ?? "The answer failed.")));
      if (message.code === "context_length_exceeded") {
        parts.push(
          make(
            "button",
            { type: "button", on: { click: () => context.actions.leaveOut(message) } },
            "Leave out the oldest messages and try again",
          ),
        );
      }
    }
    if (message.end === "length")
      parts.push(make("p", { class: "note" }, "The answer reached its limit of tokens or the end of the context."));
    const state = parts.map((part) => part.textContent).join("|");
    if (state !== this.shownEnd) this.end.replaceChildren(...parts);
    this.shownEnd = state;
  }

  renderFoot() {
    const { message, context } = this;
    const { actions, state } = context;
    const versions = versionsOf(state.conversation, message);
    const key = [
      versions.length,
      versions.indexOf(message),
      this.coming,
      actions.busy,
      message.end,
      JSON.stringify(message.stats),
      this.editing,
    ].join();
    if (key === this.shownFoot) return;
    this.shownFoot = key;
    if (this.editing) return this.foot.replaceChildren();
    const parts = [];
    if (versions.length > 1) parts.push(this.arrows(versions));
    if (!this.coming) parts.push(this.buttons());
    if (message.role === "assistant") parts.push(make("span", { class: "stats" }, statsText(message)));
    const focused = this.foot.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    this.foot.replaceChildren(...parts);
    if (focused) this.foot.querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
    return undefined;
  }

  arrows(versions) {
    const { actions } = this.context;
    const at = versions.indexOf(this.message);
    const step = (name, label, by) =>
      iconButton(name, label, () => actions.turn(this.message, by), { disabled: versions[at + by] === undefined || actions.busy });
    return make(
      "span",
      { class: "versions", role: "group", "aria-label": "Versions" },
      step("left", "Previous version", -1),
      make("span", {}, `${at + 1} / ${versions.length}`),
      step("right", "Next version", 1),
    );
  }

  buttons() {
    const { message, context } = this;
    const { actions } = context;
    const disabled = actions.busy;
    const parts = [iconButton("copy", message.role === "user" ? "Copy the message" : "Copy the answer", () => this.copy())];
    if (message.role !== "tool")
      parts.push(
        iconButton("edit", message.role === "user" ? "Edit the message" : "Edit the answer", () => this.edit(), { disabled }),
      );
    if (message.role === "assistant") {
      parts.push(iconButton("retry", "Answer again", () => actions.retry(message), { disabled }));
      const cut =
        ["stopped", "length", "error"].includes(message.end) && message.content !== "" && context.nextRole(message) === null;
      if (cut) parts.push(iconButton("forward", "Go on with the answer", () => actions.goOn(message), { disabled }));
    }
    parts.push(iconButton("delete", "Delete this and what follows", () => actions.remove(message), { disabled }));
    return make("span", { class: "actions" }, parts);
  }

  async copy() {
    if (await copyText(this.message.content)) notice("Copied.");
    else notice("The browser does not let the page copy.", { failed: true });
  }

  edit() {
    const { message, context } = this;
    this.editing = true;
    const editor = new Editor(message.content, message.role === "user" ? "Send" : "Save", (text) => {
      this.editing = false;
      editor.element.remove();
      this.body.hidden = false;
      if (text !== null) context.actions.edit(message, text);
      this.renderFoot();
      if (text === null) this.foot.querySelector('[aria-label^="Edit"]')?.focus();
    });
    this.body.hidden = true;
    this.body.after(editor.element);
    this.renderFoot();
    editor.begin();
  }
}

/** "42 tokens · 31 tokens/s · first after 0.4 s" */
function statsText({ stats, end }) {
  const ended = end === "stopped" ? ["stopped"] : [];
  if (!stats?.generated) return ended.join("");
  const parts = [`${short(stats.generated)} ${stats.generated === 1 ? "token" : "tokens"}`];
  if (stats.rate) parts.push(`${stats.rate < 10 ? stats.rate.toFixed(1) : Math.round(stats.rate)} tokens/s`);
  if (stats.first) parts.push(`first after ${seconds(stats.first)}`);
  if (stats.cached) parts.push(`${short(stats.cached)} of ${short(stats.prompt)} prompt tokens cached`);
  return [...parts, ...ended].join(" · ");
}
