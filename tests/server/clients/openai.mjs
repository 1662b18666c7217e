// The official client for Node: node openai.mjs ADDRESS MODEL. What it got, as one JSON object.

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const [address, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "Write about the sea." }];
const greedy = { model, messages, temperature: 0, max_tokens: 24 };
const weather = {
  type: "object",
  properties: { city: { enum: ["Rome", "Oslo"] } },
  required: ["city"],
  additionalProperties: false,
};
const tools = [{ type: "function", function: { name: "weather", description: "Of a city.", parameters: weather } }];

async function errorOf(promise) {
  try {
    await promise;
  } catch (error) {
    return { kind: error.constructor.name, status: error.status, code: error.code, param: error.param, type: error.type };
  }
  return null;
}

const found = {};
found.models = [];
for await (const each of client.models.list()) found.models.push(each.id);
found.shown = (await client.models.retrieve(model)).id;

const whole = await client.chat.completions.create(greedy);
found.whole = whole.choices[0].message.content;
found.usage = whole.usage;

found.streamed = "";
for await (const chunk of await client.chat.completions.create({ ...greedy, stream: true, stream_options: { include_usage: true } })) {
  found.streamed += chunk.choices[0]?.delta.content ?? "";
  if (chunk.usage) found.streamedUsage = chunk.usage;
}
found.helper = await client.chat.completions.stream(greedy).finalContent();

const Cat = z.object({ name: z.string().max(12), age: z.number().int().min(0).max(20) });
const parsed = await client.chat.completions.parse({ ...greedy, max_tokens: 80, response_format: zodResponseFormat(Cat, "cat") });
found.parsed = parsed.choices[0].message.parsed;

const called = await client.chat.completions.create({ ...greedy, max_tokens: 80, tools, tool_choice: "required", parallel_tool_calls: false });
found.call = called.choices[0].message.tool_calls[0];
found.callEnd = called.choices[0].finish_reason;
const streamedCall = await client.chat.completions
  .stream({ ...greedy, max_tokens: 80, tools, tool_choice: "required", parallel_tool_calls: false })
  .finalMessage();
found.streamedCall = streamedCall.tool_calls[0];
const named = { type: "function", function: { name: "weather" } };
found.asked = [];
const runner = client.chat.completions.runTools(
  {
    ...greedy,
    max_tokens: 80,
    tool_choice: named,
    tools: [
      {
        type: "function",
        function: { name: "weather", parameters: weather, parse: JSON.parse, function: ({ city }) => (found.asked.push(city), `${city}: rain`) },
      },
    ],
  },
  { maxChatCompletions: 2 },
);
await runner.done();

const vectors = await client.embeddings.create({ model, input: ["The sky is blue.", "Ships sail."] });
found.vectors = vectors.data.map((each) => Array.from(each.embedding));
found.text = (await client.completions.create({ model, prompt: "Once upon a time", temperature: 0, max_tokens: 12 })).choices[0].text;

const aborting = new AbortController();
const left = await client.chat.completions.create({ ...greedy, max_tokens: 400, stream: true }, { signal: aborting.signal });
found.left = 0;
try {
  for await (const _ of left) if (++found.left === 3) aborting.abort();
} catch (error) {
  found.aborted = error.constructor.name;
}

found.errors = [
  await errorOf(client.chat.completions.create({ ...greedy, temperature: 9 })),
  await errorOf(client.chat.completions.create({ ...greedy, model: "other" })),
  await errorOf(client.chat.completions.create({ ...greedy, messages: [{ role: "user", content: "word ".repeat(9000) }] })),
];
console.log(JSON.stringify(found));
