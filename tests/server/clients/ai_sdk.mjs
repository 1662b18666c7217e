// The AI SDK with its provider for compatible servers: node ai_sdk.mjs ADDRESS MODEL. What it got, as one JSON object.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateObject, generateText, jsonSchema, Output, stepCountIs, streamObject, streamText, tool } from "ai";

const [address, name] = process.argv.slice(2);
const provider = createOpenAICompatible({
  name: "lacewing",
  baseURL: `${address}/v1`,
  apiKey: "none",
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const model = provider(name);
const prompt = "Write about the sea.";
const greedy = { model, prompt, temperature: 0, maxOutputTokens: 24, maxRetries: 0 };
const cat = jsonSchema({
  type: "object",
  properties: { name: { type: "string", maxLength: 12 }, age: { type: "integer", minimum: 0, maximum: 20 } },
  required: ["name", "age"],
  additionalProperties: false,
});
const asked = [];
const weather = tool({
  description: "Of a city.",
  inputSchema: jsonSchema({ type: "object", properties: { city: { enum: ["Rome", "Oslo"] } }, required: ["city"], additionalProperties: false }),
  execute: async ({ city }) => (asked.push(city), `${city}: rain`),
});

const found = { asked };
const whole = await generateText(greedy);
found.whole = whole.text;
found.end = whole.finishReason;
found.usage = whole.usage;

const stream = streamText(greedy);
found.streamed = "";
for await (const piece of stream.textStream) found.streamed += piece;
found.streamedUsage = await stream.usage;

const calling = {
  ...greedy,
  maxOutputTokens: 80,
  tools: { weather },
  toolChoice: "required",
  providerOptions: { lacewing: { parallel_tool_calls: false } },
};
const called = await generateText(calling);
found.call = called.toolCalls.map((each) => ({ name: each.toolName, input: each.input }));
found.callEnd = called.finishReason;
const streamed = streamText(calling);
const kinds = [];
for await (const part of streamed.fullStream) kinds.push(part.type);
found.kinds = [...new Set(kinds)];
found.streamedCall = (await streamed.toolCalls).map((each) => ({ name: each.toolName, input: each.input }));
const steps = await generateText({ ...calling, stopWhen: stepCountIs(2) });
found.steps = steps.steps.length;

found.object = (await generateObject({ ...greedy, maxOutputTokens: 80, schema: cat })).object;
const partial = streamObject({ ...greedy, maxOutputTokens: 80, schema: cat });
for await (const _ of partial.partialObjectStream);
found.streamedObject = await partial.object;

found.output = (await generateText({ ...greedy, maxOutputTokens: 80, output: Output.object({ schema: cat }) })).output;

found.vectors = (await embedMany({ model: provider.textEmbeddingModel(name), values: ["The sky is blue.", "Ships sail."] })).embeddings;
found.prompted = (await generateText({ ...greedy, prompt: "The sea", model: provider.completionModel(name), maxOutputTokens: 12 })).text;

try {
  await generateText({ ...greedy, model: provider("other") });
} catch (error) {
  found.error = { name: error.name, status: error.statusCode, retry: error.isRetryable, message: error.message };
}
console.log(JSON.stringify(found));
