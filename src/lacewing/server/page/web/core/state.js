// What the page knows now. Parts of the page listen to events and never call each other.
//
// events: "conversations" the list changed; "conversation" another one is shown, or its messages changed; "growing" an answer got
// longer (detail: {conversation, message}); "answering" one began or ended (detail: likewise); "models" what the server has changed

import { newConversation, titleOf } from "./tree.js";
import { preference, setPreference } from "./preferences.js";

/** The state. `conversation`: the one that is shown; it is in the list once it has a message. */
export class State extends EventTarget {
  constructor(store) {
    super();
    this.store = store;
    this.conversations = [];
    this.models = [];
    this.findModels = async () => {}; // asks the server for them; set by whoever can
    this.answers = new Map(); // of each conversation's id: the answer that comes
    this.conversation = this.fresh();
  }

  emit(name, detail = null) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  on(names, listener) {
    for (const name of names.split(" ")) this.addEventListener(name, (event) => listener(event.detail));
  }

  fresh() {
    const usual = preference("defaults", {});
    const model = preference("model");
    return newConversation({
      model,

      system: usual.system ?? "",
      sampling: { ...usual.sampling },
      tools: usual.tools ?? [],
    });
  }

  async load() {
    this.conversations = await this.store.all();
    for (const conversation of this.conversations) endCut(conversation);
    const last = preference("conversation");
    this.conversation = this.conversations.find((each) => each.id === last) ?? this.conversation;
    this.emit("conversations");
    this.emit("conversation");
  }

  show(conversation) {
    this.conversation = conversation;
    setPreference("conversation", conversation.id);
    this.emit("conversation");
    this.emit("conversations");
  }

  /** Keeps a conversation that changed. `touched`: it becomes the newest of the list. */
  async keep(conversation, touched = true) {
    if (touched) conversation.changed = Date.now();
    conversation.title = titleOf(conversation);
    if (conversation.messages.length === 0 && !this.conversations.includes(conversation)) return;
    if (!this.conversations.includes(conversation)) this.conversations.push(conversation);
    this.conversations.sort((one, other) => other.changed - one.changed);
    this.emit("conversations");
    await this.store.put(conversation);
  }

  async remove(conversation) {
    this.answers.get(conversation.id)?.stop();
    this.conversations = this.conversations.filter((each) => each !== conversation);
    if (this.conversation === conversation) this.show(this.conversations[0] ?? this.fresh());
    this.emit("conversations");
    await this.store.remove(conversation.id);
  }

  /** Another window changed a conversation: it is reloaded, unless an answer to it comes here. */
  async reread(id) {
    if (this.answers.has(id)) return;
    const found = await this.store.get(id);
    const before = this.conversations.find((each) => each.id === id);
    this.conversations = this.conversations.filter((each) => each !== before);
    if (found !== undefined) this.conversations.push(found);
    this.conversations.sort((one, other) => other.changed - one.changed);
    if (before !== undefined && this.conversation === before) {
      this.conversation = found ?? this.fresh();
      this.emit("conversation");
    }
    this.emit("conversations");
  }

  /** The entry of the model of the conversation, or of the server's first one; null before they are known. */
  get model() {
    const wanted = this.conversation.model;
    return (
      this.models.find((model) => model.id === wanted) ??
      (wanted === null ? (this.models.find((model) => model.default) ?? this.models[0]) : null) ??
      null
    );
  }
}

/** An answer that was coming when the page was closed has ended there. */
function endCut(conversation) {
  for (const message of conversation.messages) if (message.role === "assistant") message.end ??= "stopped";
}
