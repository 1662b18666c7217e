// A conversation is a tree of messages: each version of a message is a child of the one before it. Plain objects, as they are stored.
//
// conversation: {id, title, named, created, changed, model, system, sampling, tools, messages, chosen, left}
//   messages: in the order of their making; chosen: of a message's id ("" for none), the id of the version that is shown after it
//   left: messages at the start of the path that the model is not told any more
// message: {id, parent, role: "user" | "assistant" | "tool", content, reasoning?, calls?, callId?, model?, stats?, end?, error?, created}
//   end of an answer: "stop", "length", "tool_calls", "stopped" by a person, "error"; none while it comes

/** An id that no other has. (crypto.randomUUID needs a secure origin.) */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function newConversation(defaults) {
  const now = Date.now();
  return {
    id: newId(),
    title: "New conversation",
    named: false,
    created: now,
    changed: now,
    ...defaults,
    messages: [],
    chosen: {},
    left: 0,
  };
}

export function messageById(conversation, id) {
  return conversation.messages.find((message) => message.id === id) ?? null;
}

/** All versions that may stand where a message stands. */
export function versionsOf(conversation, message) {
  return conversation.messages.filter((each) => each.parent === message.parent);
}

/** The messages that are shown, first to last. */
export function pathOf(conversation) {
  const children = new Map();
  for (const message of conversation.messages) {
    const key = message.parent ?? "";
    if (!children.has(key)) children.set(key, []);
    children.get(key).push(message);
  }
  const path = [];
  for (let key = ""; children.has(key); key = path.at(-1).id) {
    const versions = children.get(key);
    path.push(versions.find((message) => message.id === conversation.chosen[key]) ?? versions.at(-1));
  }
  return path;
}

/** Adds a message after `parent` (null: at the start) and shows it. */
export function addMessage(conversation, parent, message) {
  const added = { id: newId(), parent: parent?.id ?? null, created: Date.now(), ...message };
  conversation.messages.push(added);
  choose(conversation, added);
  return added;
}

/** Shows a version of a message, with what follows it. */
export function choose(conversation, message) {
  conversation.chosen[message.parent ?? ""] = message.id;
  conversation.left = Math.min(conversation.left, pathOf(conversation).length);
}

/** Removes a message and all that follows it. */
export function removeMessage(conversation, message) {
  const gone = new Set([message.id]);
  for (const each of conversation.messages) if (gone.has(each.parent)) gone.add(each.id); // parents are made before children
  conversation.messages = conversation.messages.filter((each) => !gone.has(each.id));
  for (const key of Object.keys(conversation.chosen)) {
    if (gone.has(key) || gone.has(conversation.chosen[key])) delete conversation.chosen[key];
  }
  conversation.left = Math.min(conversation.left, pathOf(conversation).length);
}

/** A title from the first words of a conversation that nobody named. */
export function titleOf(conversation) {
  if (conversation.named) return conversation.title;
  const first = conversation.messages.find((message) => message.role === "user");
  const words = (first?.content ?? "").trim().replace(/\s+/g, " ");
  return words === "" ? conversation.title : [...words].slice(0, 60).join("") + ([...words].length > 60 ? "…" : "");
}
