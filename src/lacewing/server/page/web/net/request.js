// The body of a request for an answer, from a conversation.

import { pathOf } from "../core/tree.js";

/** Settings of sampling: [name, label, lowest, highest, step, what it does]. An empty field leaves the choice to the server. */
export const SAMPLING = [
  ["temperature", "Temperature", 0, 100, "any", "0 takes the likeliest token"],
  ["top_p", "Top p", 0, 1, "any", "share of probability that is kept"],
  ["top_k", "Top k", 0, 2 ** 31 - 1, 1, "likeliest tokens that are kept; 0: all"],
  ["min_p", "Min p", 0, 1, "any", "of the likeliest token's probability"],
  ["repeat_penalty", "Repeat penalty", 0.01, 100, "any", "1: off"],
  ["presence_penalty", "Presence penalty", -2, 2, "any", "0: off"],
  ["frequency_penalty", "Frequency penalty", -2, 2, "any", "0: off"],
  ["max_tokens", "Answer at most", 1, 2 ** 31 - 1, 1, "tokens"],
  ["thinking_budget_tokens", "Think at most", 0, 2 ** 31 - 1, 1, "tokens"],
  ["seed", "Seed", 0, Number.MAX_SAFE_INTEGER, 1, "the same gives the same answer"],
];
export const DEFAULTS = {
  temperature: 0.8,
  top_p: 0.95,
  top_k: 40,
  min_p: 0.05,
  repeat_penalty: 1,
  presence_penalty: 0,
  frequency_penalty: 0,
};
const OTHERS = ["stop", "reasoning_effort"];

/** Messages that the model is told before `until` (a message of the path, not included; null: all). */
export function messagesFor(conversation, until = null) {
  const path = pathOf(conversation);
  const end = until === null ? path.length : path.indexOf(until);
  const told = path
    .slice(Math.min(conversation.left, end), end)
    .map(plain)
    .filter((message) => message.role !== "assistant" || message.content !== "" || message.tool_calls);
  const system = [conversation.system, summaryOf(conversation)].filter(Boolean).join("\n\n");
  return system ? [{ role: "system", content: system }, ...told] : told;
}

/** What a session of the terminal chat told the model instead of its first messages, for as long as these are the ones left out. */
function summaryOf(conversation) {
  const view = conversation.session?.view;
  return view?.summary && view.hidden === conversation.left ? `Summary of the conversation so far: ${view.summary}` : "";
}

function plain(message) {
  if (message.role === "user") return { role: "user", content: message.content };
  if (message.role === "tool") return { role: "tool", tool_call_id: message.callId, content: message.content };
  const found = { role: "assistant", content: message.content };
  if (message.reasoning) found.reasoning_content = message.reasoning;
  if (message.calls?.length && message.end === "tool_calls") {
    found.tool_calls = message.calls.map((call) => ({
      id: call.id,
      type: "function",
      function: { name: call.name, arguments: call.arguments },
    }));
  }
  return found;
}

/** What any request with the conversation says. */
export function conversationBody(conversation, until = null) {
  const body = { messages: messagesFor(conversation, until) };
  if (conversation.model) body.model = conversation.model;
  if (conversation.tools?.length) body.tools = conversation.tools;
  return body;
}

/** The whole body. `goOn`: the last message is continued. */
export function answerBody(conversation, until, goOn = false) {
  const body = {
    ...conversationBody(conversation, until),
    stream: true,
    stream_options: { include_usage: true },
    timings_per_token: true,
  };
  if (goOn) body.continue_final_message = true;
  for (const [name] of SAMPLING) if (conversation.sampling?.[name] !== undefined) body[name] = conversation.sampling[name];
  for (const name of OTHERS) if (conversation.sampling?.[name] !== undefined) body[name] = conversation.sampling[name];
  return body;
}
