// One answer while it comes: what the server streams is put into its message.

import { answerBody } from "./request.js";
import { ApiError, chunks } from "./api.js";

const KEEP_EVERY = 400; // milliseconds between two times that a growing answer is kept

/** Runs until the answer ends; `state` is told. The message is in the conversation already. */
export class Answer {
  constructor(state, conversation, message) {
    this.state = state;
    this.conversation = conversation;
    this.message = message;
    this.control = new AbortController();
    this.began = performance.now();
    this.kept = -Infinity;
    this.first = null; // when the first token came
    this.before = message.content.length + (message.reasoning ?? "").length;
  }

  stop() {
    this.control.abort();
  }

  /** Milliseconds since the request. */
  get elapsed() {
    return performance.now() - this.began;
  }

  async run(goOn) {
    const { state, conversation, message } = this;
    state.answers.set(conversation.id, this);
    delete message.end;
    delete message.error;
    state.emit("answering", { conversation, message, begins: true });
    try {
      if (state.models.length === 0) await state.findModels(); // it was asked before the server told them
      conversation.model ??= state.model?.id ?? null;
      Object.assign(message, { model: conversation.model, basis: basisOf(conversation) });
      const body = answerBody(conversation, goOn ? null : message, goOn);
      for await (const chunk of chunks("v1/chat/completions", body, this.control.signal)) this.take(chunk);
      message.end ??= "stop";
    } catch (error) {
      this.fail(error);
    } finally {
      message.end ??= "error";
      state.answers.delete(conversation.id);
      state.emit("answering", { conversation, message, begins: false });
      if (state.conversations.includes(conversation)) await state.keep(conversation); // it may have been deleted meanwhile
    }
  }

  fail(error) {
    const { message } = this;
    if (error.name === "AbortError") {
      message.end = "stopped";
    } else if (error instanceof ApiError) {
      message.end = "error";
      message.error = error.message;
      message.code = error.code;
    } else {
      message.end = "error";
      message.error = `The page failed: ${error.message}`;
      console.error(error);
    }
  }

  take(chunk) {
    const { message } = this;
    if (chunk.model) message.model = chunk.model;
    if (chunk.timings) this.measure(chunk.timings);
    if (chunk.usage) Object.assign(this.stats, { prompt: chunk.usage.prompt_tokens, generated: chunk.usage.completion_tokens });
    const choice = chunk.choices?.[0];
    if (choice === undefined) return;
    const { content, reasoning_content: reasoning, tool_calls: calls } = choice.delta ?? {};
    if (content || reasoning || calls) this.first ??= this.elapsed;
    if (content) message.content += content;
    if (reasoning) message.reasoning = (message.reasoning ?? "") + reasoning;
    if (content && message.reasoning) message.thought ??= Math.round(this.elapsed) / 1000;
    for (const call of calls ?? []) this.takeCall(call);
    if (choice.finish_reason) message.end = choice.finish_reason;
    this.grew();
  }

  takeCall(piece) {
    const calls = (this.message.calls ??= []);
    const call = (calls[piece.index ?? calls.length] ??= { id: "", name: "", arguments: "" });
    if (piece.id) call.id = piece.id;
    if (piece.function?.name) call.name = piece.function.name;
    call.arguments += piece.function?.arguments ?? "";
  }

  get stats() {
    return (this.message.stats ??= {});
  }

  measure(timings) {
    Object.assign(this.stats, {
      prompt: timings.prompt_n + timings.cache_n,
      cached: timings.cache_n,
      promptRate: timings.prompt_per_second,
      generated: timings.predicted_n,
      rate: timings.predicted_per_second,
    });
    if (this.first !== null) this.stats.first = this.first / 1000;
  }

  grew() {
    const { state, conversation, message } = this;
    state.emit("growing", { conversation, message });
    if (this.first !== null && performance.now() - this.kept >= KEEP_EVERY) this.keep();
  }

  /** What has come so far outlives the page. */
  keep() {
    const { state, conversation, message } = this;
    this.kept = performance.now();
    state.store.put(structuredClone(message.end ? conversation : marked(conversation, message))).catch(() => {});
  }
}

/** What else than the messages the prompt of an answer hung on: its counts of tokens hold while that is the same. */
export function basisOf(conversation) {
  return [conversation.model, conversation.left, conversation.system, conversation.tools?.length ?? 0].join();
}

/** The conversation as it is kept meanwhile: a page that is closed now finds the answer ended there. */
function marked(conversation, message) {
  return {
    ...conversation,
    messages: conversation.messages.map((each) => (each === message ? { ...each, end: "stopped" } : each)),
  };
}
