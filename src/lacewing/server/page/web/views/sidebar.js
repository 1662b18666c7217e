// The list of conversations, and what is done with one of them or with all.

import { archiveText, fileName, markdownText, openFile, saveFile } from "../files/archive.js";
import { FileError, sessionText } from "../files/session.js";
import { applyTheme, nextTheme, theme } from "../core/preferences.js";
import { byId, icon, iconButton, make } from "../core/dom.js";
import { asked, confirmed, openMenu } from "./dialogs.js";
import { notice } from "./announce.js";

const DAY = 24 * 60 * 60 * 1000;

export class Sidebar {
  constructor(state, actions) {
    this.state = state;
    this.actions = actions;
    this.filter = byId("filter");
    this.filter.addEventListener("input", () => this.render());
    byId("new").prepend(icon("add"));
    byId("new").addEventListener("click", () => this.begin());
    byId("open-file").prepend(icon("open"));
    byId("open-file").addEventListener("click", () => byId("file").click());
    byId("file").addEventListener("change", () => this.openFiles([...byId("file").files]));
    byId("export-all").prepend(icon("save"));
    byId("export-all").addEventListener("click", () => saveFile("lacewing-conversations.json", archiveText(state.conversations)));
    byId("theme").addEventListener("click", () => this.turnTheme(nextTheme()));
    this.setUpDrawer();
    this.turnTheme(theme());
    byId("show-more").append(icon("more"));
    byId("show-more").addEventListener("click", () => openMenu(byId("show-more"), this.entries(state.conversation)));
    this.setUpDropping();
    state.on("conversations conversation answering", () => this.render());
  }

  setUpDrawer() {
    byId("open-sidebar").append(icon("menu"));
    byId("close-sidebar").append(icon("close"));
    byId("open-sidebar").addEventListener("click", () => this.toggle(true));
    byId("close-sidebar").addEventListener("click", () => this.toggle(false));
    byId("backdrop").addEventListener("click", () => this.toggle(false));
    byId("sidebar").addEventListener("keydown", (event) => event.key === "Escape" && this.toggle(false));
  }

  /** On a narrow screen the list lies over the messages; on a wide one it can be folded. */
  toggle(open) {
    const root = document.documentElement;
    const narrow = window.matchMedia("(max-width: 760px)").matches;
    root.classList.toggle(narrow ? "drawer-open" : "sidebar-folded", narrow ? open : !open);
    byId("backdrop").hidden = !(narrow && open);
    byId("open-sidebar").setAttribute("aria-expanded", String(open));
    (open ? byId("close-sidebar") : byId("open-sidebar")).focus();
  }

  hideDrawer() {
    if (document.documentElement.classList.contains("drawer-open")) this.toggle(false);
  }

  turnTheme(name) {
    applyTheme(name);
    byId("theme").replaceChildren(icon("theme"), `Theme: ${name}`);
  }

  begin() {
    this.state.show(this.state.fresh());
    this.hideDrawer();
    byId("draft").focus();
  }

  render() {
    const wanted = this.filter.value.trim().toLowerCase();
    const matches = (each) =>
      wanted === "" ||
      each.title.toLowerCase().includes(wanted) ||
      each.messages.some((message) => message.content.toLowerCase().includes(wanted));
    const groups = new Map();
    for (const conversation of this.state.conversations.filter(matches)) {
      const name = age(conversation.changed);
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(conversation);
    }
    const focused = document.activeElement?.dataset?.conversation;
    const parts = [...groups].map(([name, some]) =>
      make(
        "section",
        { "aria-label": name },
        make("h2", {}, name),
        make(
          "ul",
          {},
          some.map((each) => this.row(each)),
        ),
      ),
    );
    const empty = make("p", { class: "empty" }, wanted === "" ? "Conversations appear here." : "Nothing found.");
    byId("conversations").replaceChildren(...(parts.length ? parts : [empty]));
    if (focused)
      byId("conversations")
        .querySelector(`button[data-conversation="${CSS.escape(focused)}"]`)
        ?.focus();
  }

  row(conversation) {
    const current = conversation === this.state.conversation;
    const answering = this.state.answers.has(conversation.id);
    const open = make(
      "button",
      {
        type: "button",
        class: "title",
        dir: "auto",
        title: conversation.title,
        "aria-current": current ? "page" : null,
        data: { conversation: conversation.id },
        on: { click: () => (this.state.show(conversation), this.hideDrawer()) },
      },
      answering ? make("span", { class: "dot", role: "img", "aria-label": "an answer is coming" }) : null,
      conversation.title,
    );
    const more = iconButton("more", `Options of ${conversation.title}`, () => openMenu(more, this.entries(conversation)), {
      "aria-haspopup": "menu",
      "aria-expanded": "false",
    });
    return make("li", { class: current ? "current" : null }, open, more);
  }

  entries(conversation) {
    const kept = this.state.conversations.includes(conversation);
    if (!kept) return [{ name: "New conversation", run: () => this.begin() }];
    return [
      { name: "Rename", run: () => this.rename(conversation) },
      {
        name: "Export with all versions",
        run: () => saveFile(fileName(conversation.title, ".lacewing.json"), archiveText([conversation])),
      },
      { name: "Export for the terminal chat", run: () => this.exportSession(conversation) },
      {
        name: "Export as Markdown",
        run: () => saveFile(fileName(conversation.title, ".md"), markdownText(conversation), "text/markdown"),
      },
      { name: "Delete", danger: true, run: () => this.remove(conversation) },
    ];
  }

  async rename(conversation) {
    const given = await asked("Rename the conversation", "Name", conversation.title);
    if (given === null || given.text === "") return;
    Object.assign(conversation, { title: given.text, named: true });
    await this.state.keep(conversation, false);
  }

  exportSession(conversation) {
    const model = this.state.models.find((each) => each.id === conversation.model);
    const { text, simplified } = sessionText(conversation, new URL(".", document.baseURI).href, model?.template_choice ?? "auto");
    saveFile(fileName(conversation.title, ".json"), text);
    notice(
      simplified
        ? "Saved as it is shown. A session has no tools: their calls are text in it, and their results are left out."
        : "Saved as it is shown. In the chat, /load opens it.",
    );
  }

  async remove(conversation) {
    if (!(await confirmed(`“${conversation.title}” is deleted from this browser.`, "Delete"))) return;
    await this.state.remove(conversation);
    notice("The conversation was deleted.", {
      action: { name: "Undo", run: () => this.state.keep(conversation, false).then(() => this.state.show(conversation)) },
    });
  }

  async openFiles(files) {
    byId("file").value = "";
    for (const file of files) {
      try {
        const { conversations, notes } = await openFile(
          file,
          this.state.models.map((model) => model.id),
        );
        for (const conversation of conversations) await this.state.keep(conversation, false);
        if (conversations.length > 0) this.state.show(conversations[0]);
        notice(
          [
            `Opened ${conversations.length === 1 ? "a conversation" : `${conversations.length} conversations`} from ${file.name}.`,
            ...notes,
          ].join(" "),
        );
      } catch (error) {
        if (!(error instanceof FileError)) throw error;
        notice(`${file.name} cannot be opened. ${error.message}`, { failed: true });
      }
    }
    this.hideDrawer();
  }

  /** Files can be dropped anywhere on the page. */
  setUpDropping() {
    document.addEventListener("dragover", (event) => event.dataTransfer.types.includes("Files") && event.preventDefault());
    document.addEventListener("drop", (event) => {
      if (event.dataTransfer.files.length === 0) return;
      event.preventDefault();
      this.openFiles([...event.dataTransfer.files]);
    });
  }
}

function age(time) {
  const days = Math.floor((new Date().setHours(24, 0, 0, 0) - time) / DAY);
  return days < 1 ? "Today" : days < 2 ? "Yesterday" : days < 8 ? "Last seven days" : "Earlier";
}
