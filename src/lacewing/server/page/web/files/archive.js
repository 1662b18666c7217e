// Files of conversations with all their versions, as this page writes them; and files of any kind that it opens.

import { newId, pathOf, titleOf } from "../core/tree.js";
import { conversationOfSession, FileError, isSession } from "./session.js";

const MARK = "lacewing_page";
const VERSION = 1;
const MOST = 64 * 2 ** 20; // bytes of a file
const ROLES = ["user", "assistant", "tool"];

/** JSON of some conversations. */
export function archiveText(conversations) {
  return `${JSON.stringify({ [MARK]: VERSION, saved: new Date().toISOString(), conversations }, null, 1)}\n`;
}

/** The conversation as it is shown, as Markdown for people. */
export function markdownText(conversation) {
  const names = { user: "You", assistant: "Model", tool: "Result of a tool" };
  const parts = pathOf(conversation).map((message) => {
    const calls = (message.calls ?? []).map((call) => `\n\n\`\`\`json\n${call.name}(${call.arguments})\n\`\`\``).join("");
    return `## ${names[message.role]}\n\n${message.content}${calls}\n`;
  });
  return [
    `# ${titleOf(conversation)}\n`,
    ...(conversation.system ? [`> ${conversation.system.replace(/\n/g, "\n> ")}\n`] : []),
    ...parts,
  ].join("\n");
}

/** The conversations of a file, with what a person should know. `served`: names of models. Raises FileError. */
export async function openFile(file, served) {
  if (file.size > MOST)
    throw new FileError(`It has ${Math.round(file.size / 2 ** 20)} MiB; the page opens files up to ${MOST / 2 ** 20} MiB.`);
  const text = await file.text();
  let document;
  try {
    document = JSON.parse(text);
  } catch {
    throw new FileError("It is not JSON, so it is no conversation of this page or of the terminal chat.");
  }
  if (isSession(document)) {
    const { conversation, notes } = conversationOfSession(text, served);
    return { conversations: [{ ...conversation, title: file.name.replace(/\.json$/i, ""), named: true }], notes };
  }
  if (typeof document !== "object" || document === null || !(MARK in document)) {
    throw new FileError("It is neither an export of this page nor a session of the terminal chat.");
  }
  if (document[MARK] !== VERSION) throw new FileError(`It is of version ${document[MARK]}; this page reads version ${VERSION}.`);
  if (!Array.isArray(document.conversations)) throw new FileError("It is damaged: it has no list of conversations.");
  return { conversations: document.conversations.map(opened), notes: [] };
}

/** A conversation of a file with only what it should have, under a new id. */
function opened(given) {
  const text = (value, otherwise = "") => (typeof value === "string" ? value : otherwise);
  if (typeof given !== "object" || given === null || !Array.isArray(given.messages))
    throw new FileError("It is damaged: a conversation has no messages.");
  const ids = new Set();
  const messages = given.messages.map((message) => {
    if (
      typeof message?.id !== "string" ||
      ids.has(message.id) ||
      !ROLES.includes(message.role) ||
      typeof message.content !== "string"
    ) {
      throw new FileError("It is damaged: a message has another shape.");
    }
    if (message.parent !== null && !ids.has(message.parent)) throw new FileError("It is damaged: a message follows none.");
    ids.add(message.id);
    return openedMessage(message, text);
  });
  const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
  const chosen = Object.fromEntries(
    Object.entries(isObject(given.chosen) ? given.chosen : {}).filter(([key, id]) => (key === "" || ids.has(key)) && ids.has(id)),
  );
  const now = Date.now();
  return {
    id: newId(),
    title: text(given.title, "Conversation").slice(0, 200),
    named: given.named === true,
    created: Number(given.created) || now,
    changed: Number(given.changed) || now,
    model: text(given.model, null),
    system: text(given.system),
    sampling: isObject(given.sampling) ? numbersOf(given.sampling) : {},
    tools: Array.isArray(given.tools) ? given.tools.filter(isObject) : [],
    messages,
    chosen,
    left: Number.isInteger(given.left) && given.left > 0 ? given.left : 0,
    ...(isObject(given.session) ? { session: given.session } : {}),
  };
}

function openedMessage(message, text) {
  const found = {
    id: message.id,
    parent: message.parent,
    role: message.role,
    content: message.content,
    created: Number(message.created) || Date.now(),
  };
  for (const name of ["reasoning", "callId", "model", "end", "error"])
    if (typeof message[name] === "string") found[name] = message[name];
  if (found.role === "assistant") found.end ??= "stopped";
  if (Array.isArray(message.calls))
    found.calls = message.calls.map((call) => ({ id: text(call?.id), name: text(call?.name), arguments: text(call?.arguments) }));
  if (typeof message.stats === "object" && message.stats !== null) {
    found.stats = Object.fromEntries(Object.entries(message.stats).filter(([, value]) => typeof value === "number"));
  }
  return found;
}

function numbersOf(sampling) {
  const found = Object.fromEntries(Object.entries(sampling).filter(([, value]) => typeof value === "number"));
  if (Array.isArray(sampling.stop)) found.stop = sampling.stop.filter((each) => typeof each === "string").slice(0, 16);
  if (typeof sampling.reasoning_effort === "string") found.reasoning_effort = sampling.reasoning_effort;
  return found;
}

/** Gives a person a file to keep. */
export function saveFile(name, text, type = "application/json") {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const anchor = document.createElement("a");
  anchor.href = address;
  anchor.download = name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** A name for a file, from a title. */
export function fileName(title, ending) {
  const clean = title
    .replace(/[^\p{L}\p{N} ._-]+/gu, " ")
    .trim()
    .replace(/\s+/g, "-")
    .slice(0, 60);
  return `${clean.replace(/^[._-]+/, "") || "conversation"}${ending}`;
}
