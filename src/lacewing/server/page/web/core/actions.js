// What a person can do with the conversation that is shown.

import { Answer } from "../net/answer.js";
import { addMessage, choose, messageById, pathOf, removeMessage, versionsOf } from "./tree.js";
import { setPreference } from "./preferences.js";

/** Actions on a state. Nothing happens to a conversation while an answer to it comes, but that it is stopped. */
export class Actions {
  constructor(state) {
    this.state = state;
  }

  get busy() {
    return this.state.answers.has(this.state.conversation.id);
  }

  send(text) {
    const { conversation } = this.state;
    if (this.busy || text.trim() === "") return false;
    addMessage(conversation, pathOf(conversation).at(-1), { role: "user", content: text });
    this.changed();
    this.answer();
    return true;
  }

  /** The answer to the path as it is. */
  answer() {
    return this.begin(pathOf(this.state.conversation).at(-1));
  }

  /** Another answer after `parent`, by the model that is chosen now. */
  begin(parent) {
    const { state } = this;
    const { conversation } = state;
    const message = addMessage(conversation, parent, { role: "assistant", content: "", model: conversation.model });
    setPreference("conversation", conversation.id);
    state.emit("conversation");
    return new Answer(state, conversation, message).run(false);
  }

  stop() {
    this.state.answers.get(this.state.conversation.id)?.stop();
  }

  /** Another answer to the same message. */
  retry(message) {
    if (this.busy) return undefined;
    const { state } = this;
    const parent = messageById(state.conversation, message.parent);
    if (isEmpty(message)) removeMessage(state.conversation, message);
    return this.begin(parent);
  }

  /** The answer goes on where it was cut. */
  goOn(message) {
    if (this.busy) return undefined;
    this.state.emit("conversation");
    return new Answer(this.state, this.state.conversation, message).run(true);
  }

  /** Another version of a message; the one of a person is then answered. */
  edit(message, text) {
    if (this.busy || text.trim() === "" || text === message.content) return;
    const { conversation } = this.state;
    const { id, parent, created, stats, calls, error, code, ...rest } = message;
    addMessage(conversation, messageById(conversation, parent), {
      ...rest,
      content: text,
      ...(message.role === "assistant" ? { end: "stop" } : {}),
    });
    this.changed();
    if (message.role === "user") this.answer();
  }

  /** Shows the version before (-1) or after (1) the one that is shown. */
  turn(message, step) {
    if (this.busy) return;
    const versions = versionsOf(this.state.conversation, message);
    const next = versions[versions.indexOf(message) + step];
    if (next === undefined) return;
    choose(this.state.conversation, next);
    this.changed(false);
  }

  remove(message) {
    if (this.busy) return;
    removeMessage(this.state.conversation, message);
    this.changed();
  }

  /** Results of the calls of an answer, in their order; then the model goes on. */
  giveResults(message, results) {
    if (this.busy) return;
    let last = message;
    message.calls.forEach((call, index) => {
      last = addMessage(this.state.conversation, last, { role: "tool", callId: call.id, name: call.name, content: results[index] });
    });
    this.changed();
    this.answer();
  }

  /** Leaves out the oldest exchange of what the model is told, and answers again. */
  leaveOut(message) {
    if (this.busy) return;
    const { conversation } = this.state;
    const path = pathOf(conversation);
    const next = path.findIndex(
      (each, index) => index > conversation.left && each.role === "user" && index < path.indexOf(message),
    );
    if (next < 0) return;
    conversation.left = next;
    removeMessage(conversation, message);
    this.changed();
    this.answer();
  }

  /** Another model for the answers from now on. */
  use(model) {
    this.state.conversation.model = model;
    setPreference("model", model);
    this.changed(false);
  }

  set(changes) {
    Object.assign(this.state.conversation, changes);
    this.changed(false);
  }

  changed(touched = true) {
    this.state.emit("conversation");
    this.state
      .keep(this.state.conversation, touched)
      .catch((error) => this.state.emit("problem", `The conversation could not be kept: ${error.message}`));
  }
}

/** Whether an answer failed before anything of it came. */
function isEmpty(message) {
  return message.end === "error" && message.content === "" && !message.reasoning && !message.calls?.length;
}
