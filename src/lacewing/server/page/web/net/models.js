// The models of the server: their list, what happens to them, and what a person changes. (Administration: /models, /models/...)

import { get, post, watch } from "./api.js";

const AGAIN = 2000; // milliseconds until a stream of events that broke is asked for again

export class Models {
  constructor(state) {
    this.state = state;
    this.watching = null;
    this.watchers = 0;
    this.events = 0; // that came
    this.downloads = new Map(); // of models' names: how far each is
  }

  /** Reads the list; again if an event came meanwhile, which may be newer than the answer. */
  async refresh() {
    for (let tries = 0, seen = -1; seen !== this.events && tries < 5; tries += 1) {
      seen = this.events;
      const { data } = await get("v1/models");
      this.state.models = data;
    }
    this.state.emit("models");
    if (this.busy) this.follow();
  }

  /** Whether something happens to a model now. */
  get busy() {
    return this.downloads.size > 0 || this.state.models.some(({ status }) => status.value === "loading" || status.progress);
  }

  /** Follows events while somebody looks or something loads; a connection that is always open would be one too many. */
  watch() {
    this.watchers += 1;
    this.follow();
    return () => {
      this.watchers -= 1;
      this.rest();
    };
  }

  follow() {
    if (this.watching !== null) return;
    this.watching = new AbortController();
    this.listen(this.watching.signal);
  }

  rest() {
    if (this.watchers > 0 || this.busy) return;
    this.watching?.abort();
    this.watching = null;
  }

  async listen(signal) {
    while (!signal.aborted) {
      try {
        for await (const event of watch("models/sse", signal)) this.take(event);
      } catch (error) {
        if (error.name === "AbortError") return;
      }
      await new Promise((resolve) => setTimeout(resolve, AGAIN));
    }
  }

  take({ model: name, event, data }) {
    const { state } = this;
    this.events += 1;
    const entry = state.models.find((model) => model.id === name);
    if (
      event === "models_reload" ||
      event === "model_remove" ||
      (event === "model_status" && entry === undefined) ||
      event === "download_finished"
    ) {
      this.setDownload(name, event === "download_finished" ? null : this.downloads.get(name));
      this.refresh().catch(() => {});
      return;
    }
    if (event === "download_progress") this.setDownload(name, Object.values(data)[0]);
    if (event === "download_failed" || event === "change_failed") {
      if (event === "download_failed") this.setDownload(name, null);
      state.emit("problem", `${name}: ${data.message}`);
    }
    if (event === "model_status") {
      if (data.info) Object.assign(entry, data.info);
      entry.status = { value: data.status, failed: data.failed, message: data.message, progress: data.progress };
      if (data.failed) state.emit("problem", `${name}: ${data.message}`);
    }
    state.emit("models");
    this.rest();
  }

  setDownload(name, progress) {
    if (progress) this.downloads.set(name, progress);
    else this.downloads.delete(name);
  }

  /** Loads a model, or changes it: {residency, context, template, force}. Its events tell the rest. */
  async change(name, changes = {}) {
    await post("models/load", { model: name, ...changes });
    this.follow();
    await this.refresh();
  }

  async unload(name) {
    await post("models/unload", { model: name });
    this.follow();
    await this.refresh();
  }

  async fetch(name) {
    await post("models", { model: name });
    this.setDownload(name, { done: 0, total: 0 });
    this.follow();
    this.state.emit("models");
  }

  /** Those that can be fetched by name. */
  async known() {
    return (await get("models/known")).data;
  }

  async templates(name) {
    return (await get(`models/templates?model=${encodeURIComponent(name)}`)).data;
  }
}
