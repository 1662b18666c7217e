// Conversations in the browser's IndexedDB. Other windows of the page are told of changes.

const NAME = "lacewing";
const CONVERSATIONS = "conversations";
const CHANNEL = "lacewing-conversations";

/** All conversations of this browser. `onChange(id)` is called when another window has changed one. */
export class Store {
  static async open(onChange) {
    const store = new Store();
    store.database = await opened();
    store.channel = new BroadcastChannel(CHANNEL);
    store.channel.addEventListener("message", (event) => onChange(event.data));
    return store;
  }

  /** The newest first. */
  async all() {
    const found = await this.ask("readonly", (table) => table.getAll());
    return found.sort((one, other) => other.changed - one.changed);
  }

  get(id) {
    return this.ask("readonly", (table) => table.get(id));
  }

  async put(conversation) {
    await this.ask("readwrite", (table) => table.put(conversation));
    this.channel.postMessage(conversation.id);
  }

  async remove(id) {
    await this.ask("readwrite", (table) => table.delete(id));
    this.channel.postMessage(id);
  }

  ask(mode, make) {
    return new Promise((resolve, reject) => {
      const transaction = this.database.transaction(CONVERSATIONS, mode);
      const request = make(transaction.objectStore(CONVERSATIONS));
      if (mode === "readwrite") transaction.commit(); // else it is given up if the page is left before the request's event
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = transaction.onerror = () => reject(transaction.error ?? request.error);
    });
  }
}

function opened() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(CONVERSATIONS, { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error("another window of this page holds an older version; close it"));
  });
}
