// The server's HTTP interface. Addresses are relative, so that the page also works behind a proxy under a path of its own.

import { apiKey } from "../core/preferences.js";
import { eventsOf } from "./sse.js";

/** An answer that is an error; `status` 0 where the server cannot be reached. */
export class ApiError extends Error {
  constructor(message, status, code = null, more = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.more = more;
  }
}

let askForKey = async () => false;

/** `ask(wrong)` gets a key from a person, and says whether there is one now. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

async function request(path, options = {}) {
  while (true) {
    const key = apiKey();
    const headers = {
      ...(options.body ? { "content-type": "application/json" } : {}),
      ...(key === null ? {} : { authorization: `Bearer ${key}` }),
    };
    let response;
    try {
      response = await fetch(new URL(path, document.baseURI), { ...options, headers, credentials: "omit", cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The server cannot be reached. Is it running?", 0, "unreachable");
    }
    if (response.ok) return response;
    if (response.status !== 401 || !(await askForKey(key !== null))) throw await errorOf(response);
  }
}

async function errorOf(response) {
  let told = null;
  try {
    told = (await response.json()).error;
  } catch {
    // not JSON: from a proxy, say
  }
  return madeError(told, response.status);
}

function madeError(told, status) {
  if (typeof told?.message !== "string") return new ApiError(`The server answered with status ${status}.`, status);
  return new ApiError(told.message, status, told.code ?? null, told);
}

export async function get(path, signal) {
  return (await request(path, { signal })).json();
}

export async function post(path, body, signal) {
  return (await request(path, { method: "POST", body: JSON.stringify(body), signal })).json();
}

/** Yields the chunks of a streamed answer. Raises ApiError, also for an error within the stream or one that breaks off. */
export async function* chunks(path, body, signal) {
  const response = await request(path, { method: "POST", body: JSON.stringify(body), signal });
  for await (const data of readable(response)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw madeError(chunk.error, chunk.error.status ?? 500);
    yield chunk;
  }
  throw new ApiError("The connection ended before the answer did.", 0, "cut");
}

async function* readable(response) {
  try {
    yield* eventsOf(response.body);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The connection to the server was lost.", 0, "cut");
  }
}

/** Yields the events of a stream that has no end. */
export async function* watch(path, signal) {
  const response = await request(path, { signal });
  for await (const data of readable(response)) yield JSON.parse(data);
}
