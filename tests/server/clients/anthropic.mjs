// Anthropic's official client for Node: node anthropic.mjs ADDRESS MODEL. What it got, as one JSON object.

import Anthropic from "@anthropic-ai/sdk";

const [address, model] = process.argv.slice(2);
const client = new Anthropic({ baseURL: address, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "Write about the sea." }];
const greedy = { model, messages, max_tokens: 24, temperature: 0 };
const city = { type: "object", properties: { city: { enum: ["Rome", "Oslo"] } }, required: ["city"], additionalProperties: false };
const tools = [{ name: "weather", description: "Of a city.", input_schema: city }];
const must = { ...greedy, max_tokens: 80, tools, tool_choice: { type: "any", disable_parallel_tool_use: true } };

async function errorOf(promise) {
  try {
    await promise;
  } catch (error) {
    const told = error.error?.error;
    return { kind: error.constructor.name, status: error.status, type: told?.type, message: told?.message, request: error.requestID };
  }
  return null;
}

const found = {};
const whole = await client.messages.create(greedy);
found.whole = whole.content[0].text;
found.stop = whole.stop_reason;
found.usage = whole.usage;
found.streamed = await client.messages.stream(greedy).finalText();
found.counted = (await client.messages.countTokens({ model, messages })).input_tokens;

const called = await client.messages.create(must);
found.call = called.content.find((block) => block.type === "tool_use");
found.callEnd = called.stop_reason;
found.streamedCall = (await client.messages.stream(must).finalMessage()).content.find((block) => block.type === "tool_use");
const result = { type: "tool_result", tool_use_id: found.call.id, content: "rain" };
const after = [...messages, { role: "assistant", content: called.content }, { role: "user", content: [result] }];
found.answered = (await client.messages.create({ ...greedy, messages: after, tools })).content.length > 0;

const stream = client.messages.stream({ ...greedy, max_tokens: 400 });
found.left = 0;
try {
  for await (const event of stream) {
    if (stream.aborted) continue; // events that had arrived before it left are not counted
    if (event.type === "content_block_delta" && ++found.left === 3) stream.abort();
  }
} catch (error) {
  found.aborted = error.constructor.name;
}

found.errors = [
  await errorOf(client.messages.create({ ...greedy, temperature: 9 })),
  await errorOf(client.messages.create({ ...greedy, model: "other" })),
  await errorOf(client.messages.create({ ...greedy, messages: [{ role: "user", content: "word ".repeat(9000) }] })),
];
console.log(JSON.stringify(found));
