// The box for a message, with the button that sends it or stops the answer.

import { byId, icon } from "../core/dom.js";

export class Composer {
  constructor(state, actions) {
    this.state = state;
    this.actions = actions;
    this.draft = byId("draft");
    this.drafts = new Map(); // what was begun in other conversations
    this.shown = state.conversation.id;
    byId("composer").addEventListener("submit", (event) => (event.preventDefault(), this.press()));
    this.draft.addEventListener("input", () => this.fit());
    this.draft.addEventListener("keydown", (event) => this.key(event));
    state.on("conversation", () => this.change());
    state.on("answering", () => this.render());
    this.render();
  }

  key(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !event.altKey) {
      event.preventDefault();
      if (!this.actions.busy) this.press();
    }
  }

  press() {
    if (this.actions.busy) return this.actions.stop();
    const text = this.draft.value;
    if (text.trim() === "") return undefined;
    this.draft.value = "";
    this.fit();
    return this.actions.send(text);
  }

  /** Another conversation is shown, with its own draft. */
  change() {
    const { id } = this.state.conversation;
    if (id !== this.shown) {
      this.drafts.set(this.shown, this.draft.value);
      this.draft.value = this.drafts.get(id) ?? "";
      this.shown = id;
      this.fit();
    }
    this.render();
  }

  render() {
    const { busy } = this.actions;
    const button = byId("send");
    const name = busy ? "Stop the answer" : "Send";
    button.replaceChildren(icon(busy ? "stop" : "send"));
    button.setAttribute("aria-label", name);
    button.title = busy ? `${name} (Esc)` : `${name} (Enter)`;
    button.classList.toggle("stops", busy);
    button.classList.toggle("idle", !busy && this.draft.value.trim() === "");
  }

  fit() {
    this.draft.style.setProperty("height", "auto");
    this.draft.style.setProperty("height", `${Math.min(this.draft.scrollHeight, 0.4 * window.innerHeight)}px`);
    this.render();
  }
}
