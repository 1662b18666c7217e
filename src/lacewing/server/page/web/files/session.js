// Session files of the terminal chat (`/save`, `/load`), version 2: the conversation as it is shown becomes one, and one is opened.
// src/lacewing/chat/services/document.py says what is in them; the same checks are made here.

import { addMessage, newConversation, pathOf } from "../core/tree.js";
import { sha256 } from "./sha256.js";

const MARK = "lacewing_session";
const VERSION = 2;
const BLANK = "0".repeat(64);
const CHECKSUM = /("checksum": ")([0-9a-f]{64})(")/;
const PARTS = ["keys_values", "messages", "settings", "template", "view"];
const SAMPLING = [
  "temperature",
  "top_k",
  "top_p",
  "min_p",
  "repeat_penalty",
  "presence_penalty",
  "frequency_penalty",
  "max_tokens",
  "seed",
];
const USUAL = {
  max_tokens: null,
  temperature: 0.8,
  top_k: 40,
  top_p: 0.95,
  min_p: 0.05,
  repeat_penalty: 1.0,
  presence_penalty: 0.0,
  frequency_penalty: 0.0,
  repeat_window: 64,
  logit_bias: [],
  seed: null,
  stop: [],
  logprobs: 0,
  ignore_eos: false,
  repeat_guard: 640,
};
const USUAL_SETTINGS = {
  system: null,
  thinking: null,
  effort: "high",
  thinking_budget: null,
  show_reasoning: true,
  overflow: "stop",
  code: false,
  plain: false,
};

/** A file that cannot be opened; the message says why. */
export class FileError extends Error {}

export function isSession(document) {
  return typeof document === "object" && document !== null && MARK in document;
}

/** The text of a session file, for a model of `server`'s with a chat template of that name. `simplified`: it has calls of tools as text, and not their results, since sessions have no tools. */
export function sessionText(conversation, server, template) {
  const path = pathOf(conversation);
  const messages = savedMessages(path);
  const before = conversation.session ?? {}; // what the file had that this conversation came from
  const same = before.model !== undefined && before.served === (conversation.model ?? null);
  const parts = {
    keys_values: null,
    messages,
    settings: savedSettings(conversation, before.settings ?? {}),
    template: same ? before.template : { choice: template, sha256: BLANK },
    view: viewOf(conversation, path, same ? before.view : null),
  };
  const body = `${PARTS.map((name) => `${JSON.stringify(name)}: ${ascii(parts[name])}`).join(",\n")}}\n`;
  const model = same ? before.model : { path: server, nbytes: 0, header: "", name: conversation.model ?? "", architecture: "" };
  const saved = new Date().toISOString().replace(/\.\d+Z$/, "+00:00");
  const head = { saved, model, count: messages.length, kv: null, nbytes: body.length };
  const first = `{"${MARK}": ${VERSION}, "checksum": "${BLANK}", ${ascii(head).slice(1, -1)},\n`;
  const text = first + body;
  return { text: text.replace(BLANK, sha256(new TextEncoder().encode(text))), simplified: messages.length !== path.length };
}

/** ASCII alone, so that a character is a byte. */
function ascii(value) {
  return JSON.stringify(value).replace(/[\u007f-\uffff]/g, (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Results of tools are left out, and the answers around them become one. */
function savedMessages(path) {
  const found = [];
  for (const message of path.filter((each) => each.role !== "tool").map(savedMessage)) {
    const last = found.at(-1);
    if (last?.role === "assistant" && message.role === "assistant") last.content = `${last.content}\n\n${message.content}`.trim();
    else found.push(message);
  }
  return found;
}

function savedMessage(message) {
  const calls = (message.calls ?? []).map((call) => `\n\n[call of ${call.name}: ${call.arguments}]`).join("");
  const found = {
    role: message.role,
    content: (message.content + calls).trim() === "" ? message.content : message.content + calls,
  };
  return message.reasoning ? { ...found, reasoning: message.reasoning } : found;
}

function savedSettings(conversation, before) {
  const sampling = { ...USUAL, ...before.sampling };
  for (const name of SAMPLING) sampling[name] = conversation.sampling?.[name] ?? USUAL[name];
  if (conversation.session?.seed !== undefined && conversation.sampling?.seed === undefined) sampling.seed = null;
  sampling.stop = conversation.sampling?.stop ?? [];
  const effort = conversation.sampling?.reasoning_effort;
  const thinking = effort === undefined ? null : effort !== "none";
  const found = { ...USUAL_SETTINGS, ...before, sampling, system: conversation.system || null, thinking };
  if (thinking) found.effort = effort;
  found.thinking_budget = conversation.sampling?.thinking_budget_tokens ?? null;
  return found;
}

/** How many of the messages the model is not told, as the chat counts them, and the summary that it is told instead. */
function viewOf(conversation, path, before) {
  const hidden = savedMessages(path.slice(0, conversation.left)).length;
  return { hidden, summary: before?.hidden === hidden ? before.summary : null };
}

/** A conversation from the text of a session file. `served`: names of the server's models. Raises FileError. */
export function conversationOfSession(text, served) {
  const document = checked(text);
  const { settings, messages, view, template, model } = document;
  const sampling = samplingOf(settings);
  const found = newConversation({
    model: matching(model, served),
    system: settings.system ?? "",
    sampling,
    tools: [],
  });
  let last = null;
  for (const { role, content, reasoning } of messages) {
    last = addMessage(found, last, {
      role,
      content,
      ...(reasoning ? { reasoning } : {}),
      ...(role === "assistant" ? { end: "stop", model: model.name } : {}),
    });
  }
  found.left = Math.min(view.hidden, messages.length);
  found.session = { settings, model, template, view, served: found.model };
  found.changed = Date.parse(document.saved) || found.changed;
  return { conversation: found, notes: notesOf(document, found) };
}

function notesOf(document, conversation) {
  const notes = [];
  if (conversation.model === null)
    notes.push(`It was saved with ${document.model.name}, which this server does not have; choose a model.`);
  if (document.template.choice !== "auto")
    notes.push(`Its chat template was ${document.template.choice}; under Models, the model can have it.`);
  if (document.settings.sampling.logit_bias.length > 0)
    notes.push("Its token biases are kept in the file, but the page does not use them.");
  const { seed } = document.settings.sampling;
  if (seed !== null && !Number.isSafeInteger(seed)) notes.push("Its seed is larger than the page can hold, and was left out.");
  return notes;
}

/** The served model that a session was saved with, by its name or its file's; null: none of them. */
function matching(model, served) {
  const file = model.path
    .split(/[\\/]/)
    .at(-1)
    .replace(/\.gguf$/i, "");
  const folder = model.path.split(/[\\/]/).at(-2) ?? "";
  return [model.name, file, folder].find((name) => served.includes(name)) ?? null;
}

function samplingOf(settings) {
  const found = {};
  for (const name of SAMPLING) {
    const value = settings.sampling[name];
    if (typeof value === "number" && value !== USUAL[name] && (name !== "seed" || Number.isSafeInteger(value))) found[name] = value;
  }
  if (settings.sampling.stop?.length) found.stop = settings.sampling.stop.map(String);
  if (settings.thinking === false) found.reasoning_effort = "none";
  if (settings.thinking === true) found.reasoning_effort = settings.effort;
  if (typeof settings.thinking_budget === "number") found.thinking_budget_tokens = settings.thinking_budget;
  return found;
}

/** The document of a file whose checksum and shape are right. */
function checked(text) {
  const document = JSON.parse(text);
  const version = document[MARK];
  if (version !== 1 && version !== 2)
    throw new FileError(`It is a session of version ${version}; this page reads versions up to ${VERSION}.`);
  const found = CHECKSUM.exec(text);
  if (found === null || sha256(new TextEncoder().encode(text.replace(CHECKSUM, `$1${BLANK}$3`))) !== found[2]) {
    throw new FileError("It is damaged: its checksum is wrong.");
  }
  const { messages, settings, template, view, model } = document;
  const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
  if (
    ![settings, settings?.sampling, template, view, model].every(isObject) ||
    !Array.isArray(messages) ||
    !messages.every(isMessage)
  ) {
    throw new FileError("It is damaged: its parts have another shape.");
  }
  if (typeof model.name !== "string" || typeof model.path !== "string" || !Array.isArray(settings.sampling.logit_bias ?? [])) {
    throw new FileError("It is damaged: its parts have another shape.");
  }
  settings.sampling.logit_bias ??= [];
  return document;
}

function isMessage(message) {
  const texts = ["content", ...(message?.reasoning === undefined ? [] : ["reasoning"])];
  return ["user", "assistant"].includes(message?.role) && texts.every((name) => typeof message[name] === "string");
}
