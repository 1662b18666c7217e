// The official client for Node asks for responses: node responses.mjs ADDRESS MODEL. What it got, as one JSON object.

import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const [address, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: "none", maxRetries: 0 });
const greedy = { model, input: "Write about the sea.", temperature: 0, max_output_tokens: 24 };
const city = { type: "object", properties: { city: { enum: ["Rome", "Oslo"] } }, required: ["city"], additionalProperties: false };
const tools = [{ type: "function", name: "weather", description: "Of a city.", parameters: city, strict: true }];

async function errorOf(promise) {
  try {
    await promise;
  } catch (error) {
    return { kind: error.constructor.name, status: error.status, code: error.code, param: error.param };
  }
  return null;
}

const found = { kinds: [], streamed: "" };
const first = await client.responses.create(greedy);
found.first = first.id;
found.whole = first.output_text;
for await (const event of await client.responses.create({ ...greedy, stream: true })) {
  found.kinds.push(event.type);
  if (event.type === "response.output_text.delta") found.streamed += event.delta;
}
const helper = client.responses.stream(greedy);
found.helper = (await helper.finalResponse()).output_text;

found.shown = (await client.responses.retrieve(first.id)).id;
const second = await client.responses.create({ ...greedy, input: "Go on.", previous_response_id: first.id });
found.before = second.previous_response_id;
found.items = [];
for await (const item of client.responses.inputItems.list(second.id, { order: "asc" })) found.items.push(item.role);

const Cat = z.object({ name: z.string().max(12), age: z.number().int().min(0).max(20) });
const parsed = await client.responses.parse({ ...greedy, max_output_tokens: 80, text: { format: zodTextFormat(Cat, "cat") } });
found.parsed = parsed.output_parsed;
const called = await client.responses.create({ ...greedy, max_output_tokens: 80, tools, tool_choice: "required", parallel_tool_calls: false });
found.call = called.output.find((item) => item.type === "function_call");

let running = await client.responses.create({ ...greedy, background: true });
while (running.status === "queued" || running.status === "in_progress") running = await client.responses.retrieve(running.id);
found.background = (await client.responses.cancel(running.id)).status;

const conversation = await client.conversations.create({ items: [{ type: "message", role: "user", content: "Hello." }] });
await client.responses.create({ ...greedy, conversation: conversation.id });
found.conversation = 0;
for await (const _ of client.conversations.items.list(conversation.id)) found.conversation += 1;

await client.responses.delete(second.id);
found.errors = [
  await errorOf(client.responses.create({ ...greedy, temperature: 9 })),
  await errorOf(client.responses.create({ ...greedy, model: "other" })),
  await errorOf(client.responses.create({ ...greedy, previous_response_id: second.id })),
  await errorOf(client.responses.retrieve(second.id)),
];
console.log(JSON.stringify(found));
