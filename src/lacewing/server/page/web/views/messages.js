// The messages of the conversation that is shown. While an answer comes, only its own element changes, and not more often than
// there is time for.

import { byId, icon, make } from "../core/dom.js";
import { pathOf } from "../core/tree.js";
import { announce } from "./announce.js";
import { MessageView } from "./message.js";

const NEAR = 80; // pixels from the end within which new text keeps the end in sight
const SHARE = 4; // an update may take one part in so many of the time

export class Messages {
  constructor(state, actions) {
    this.state = state;
    this.pane = byId("messages");
    this.list = byId("path");
    this.views = new Map();
    this.due = 0; // when the next update of a growing answer may be made
    this.pending = false;
    this.follows = true;
    this.context = { state, actions, nextRole: (message) => this.nextRole(message), waiting: () => this.waiting() };
    byId("to-end").prepend(icon("down"));
    byId("to-end").addEventListener("click", () => this.toEnd());
    this.pane.addEventListener("scroll", () => this.scrolled());
    state.on("conversation", () => this.render());
    state.on("growing", ({ message }) => this.grow(message));
    state.on("answering", (detail) => this.answering(detail));
    state.on("models", () => this.modelsChanged());
    this.render();
  }

  nextRole(message) {
    const path = pathOf(this.state.conversation);
    return path[path.indexOf(message) + 1]?.role ?? null;
  }

  waiting() {
    const progress = this.state.model?.status?.progress;
    if (this.state.model?.status?.value !== "loading") return "Reading the conversation";
    return progress?.total ? `Loading the model: ${progress.current}, ${Math.round(100 * progress.value)} %` : "Loading the model";
  }

  render() {
    const { conversation } = this.state;
    const path = pathOf(conversation);
    if (this.shown !== conversation) {
      this.views.clear();
      this.follows = true;
    }
    const before = this.views;
    this.views = new Map(path.map((message) => [message.id, this.viewOf(before, message)]));
    const wanted = [...this.views.values()].map((view) => view.element);
    if (conversation.left > 0) wanted.splice(Math.min(conversation.left, wanted.length), 0, this.leftNote(conversation.left));
    put(this.list, wanted);
    for (const view of this.views.values()) view.render();
    this.shown = conversation;
    this.renderWelcome();
    document.title = path.length > 0 ? `${conversation.title} – Lacewing` : "Lacewing";
    if (this.follows) this.toEnd();
  }

  viewOf(before, message) {
    const view = before.get(message.id);
    return view?.message === message ? view : new MessageView(message, this.context);
  }

  leftNote(count) {
    return make(
      "p",
      { class: "left-note" },
      `The model is no longer told the ${count === 1 ? "message" : `${count} messages`} above.`,
    );
  }

  renderWelcome() {
    const empty = pathOf(this.state.conversation).length === 0;
    this.pane.classList.toggle("empty", empty);
    this.welcome?.remove();
    this.welcome = null;
    if (!empty) return;
    const name = this.state.model?.id;
    this.welcome = make(
      "div",
      { class: "welcome" },
      make("h2", {}, "What would you like to know?"),
      make("p", {}, name ? `${name} answers, on this server.` : "Choose a model above."),
    );
    this.list.append(this.welcome);
  }

  modelsChanged() {
    if (this.welcome) this.renderWelcome();
    const answer = this.state.answers.get(this.state.conversation.id);
    if (answer) this.grow(answer.message);
  }

  grow(message) {
    if (this.pending || !this.views.has(message.id)) return;
    this.pending = true;
    const wait = Math.max(0, this.due - performance.now());
    setTimeout(
      () =>
        requestAnimationFrame(() => {
          this.pending = false;
          const began = performance.now();
          this.views.get(message.id)?.render();
          if (this.follows) this.toEnd();
          this.due = began + SHARE * (performance.now() - began);
        }),
      wait,
    );
  }

  answering({ conversation, message, begins }) {
    if (conversation !== this.state.conversation) return;
    if (begins) {
      this.follows = true;
      announce("The model answers.");
    } else {
      const end = { stopped: "The answer was stopped.", error: message.error, tool_calls: "The model calls a tool." }[message.end];
      announce(end ?? `Answer: ${message.content.slice(0, 600)}`);
    }
    for (const view of this.views.values()) view.render();
    if (this.follows) this.toEnd();
  }

  scrolled() {
    const rest = this.pane.scrollHeight - this.pane.scrollTop - this.pane.clientHeight;
    this.follows = rest < NEAR;
    byId("to-end").hidden = rest < 4 * NEAR;
  }

  toEnd() {
    this.follows = true;
    this.pane.scrollTop = this.pane.scrollHeight;
    byId("to-end").hidden = true;
  }
}

/** Makes `wanted` the children, moving none that stands where it should: what has the focus keeps it. */
function put(parent, wanted) {
  const kept = new Set(wanted);
  for (const child of [...parent.children]) if (!kept.has(child)) child.remove();
  wanted.forEach((element, index) => {
    if (parent.children[index] !== element) parent.insertBefore(element, parent.children[index] ?? null);
  });
}
