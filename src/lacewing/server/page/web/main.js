// The page begins here: what it keeps is opened, the parts are put together, and the server is asked for its models.

import { Actions } from "./core/actions.js";
import { State } from "./core/state.js";
import { Store } from "./core/store.js";
import { onKeyNeeded } from "./net/api.js";
import { Models } from "./net/models.js";
import { notice } from "./views/announce.js";
import { Composer } from "./views/composer.js";
import { Experts } from "./views/experts.js";
import { askForKey, setUpKeys } from "./views/keys.js";
import { Messages } from "./views/messages.js";
import { Meter } from "./views/meter.js";
import { ModelsView } from "./views/models.js";
import { Settings } from "./views/settings.js";
import { Sidebar } from "./views/sidebar.js";

/** Conversations of this visit alone, where the browser keeps nothing. */
const FORGETFUL = { all: async () => [], get: async () => undefined, put: async () => {}, remove: async () => {} };

async function openStore(onChange) {
  try {
    return await Store.open(onChange);
  } catch (error) {
    notice(`This browser does not let the page keep conversations (${error.message}). Export what you want to have later.`, {
      failed: true,
    });
    return FORGETFUL;
  }
}

async function start() {
  let state = null;
  const store = await openStore((id) => state?.reread(id));
  state = new State(store);
  const actions = new Actions(state);
  const administration = new Models(state);
  onKeyNeeded(askForKey);
  state.findModels = () => administration.refresh();
  const sidebar = new Sidebar(state, actions);
  const models = new ModelsView(state, actions, administration);
  const settings = new Settings(state, actions);
  new Messages(state, actions);
  new Composer(state, actions);
  new Meter(state);
  new Experts(state);
  setUpKeys({ state, actions, sidebar, settings, models });
  state.on("problem", (message) => models.tell(message));
  state.on("answering", (detail) => followLoading(state, administration, detail));
  window.addEventListener("pagehide", () => state.answers.forEach((answer) => answer.keep()));
  await state.load();
  await administration.refresh().catch((error) => notice(error.message, { failed: true }));
  document.documentElement.dataset.ready = "true";
}

const following = new Map(); // of each answer that waits for its model: what ends the watching

/** Tells how far a model is that an answer waits for. */
function followLoading(state, administration, { message, begins }) {
  if (begins && state.model?.status.value !== "loaded") following.set(message, administration.watch());
  if (begins) return;
  following.get(message)?.();
  following.delete(message);
  administration.refresh().catch(() => {}); // what the answer did to the models, such as an eviction
}

start();
