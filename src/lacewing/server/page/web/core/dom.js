// Elements made by hand. Text is only ever text: nothing here, or anywhere on the page, reads markup from a string.

const MATHML = "http://www.w3.org/1998/Math/MathML";
const SVG = "http://www.w3.org/2000/svg";
const FORBIDDEN = /^(on|style$|srcdoc$|src$|href$|action$|formaction$)/i;

/**
 * An element. `attributes`: `class`, `on: {event: listener}`, `data: {name: value}`; booleans set or leave out; others as text.
 * Children are nodes or texts; null, undefined and false are left out. Links are made by `link` alone.
 */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An element of MathML. */
export function makeMath(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(MATHML, tag), attributes, children);
}

function fill(element, attributes, children) {
  // first, since an element with dir=auto reads all its text again for each child that it gets
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (name === "data") {
      for (const [key, text] of Object.entries(value)) element.dataset[key] = text;
    } else if (FORBIDDEN.test(name)) {
      throw new Error(`an element may not be made with ${name}`);
    } else if (value === true) {
      element.setAttribute(name, "");
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value);
    }
  }
  return element;
}

/** The address that a link of a model may have, or null. It must be absolute, with a harmless scheme. */
export function safeAddress(address) {
  if (!/^(https?:\/\/|mailto:)/i.test(address)) return null;
  try {
    const url = new URL(address);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

/** A link that opens elsewhere and tells the other side nothing; its children as plain text where the address is not harmless. */
export function link(address, ...children) {
  const safe = safeAddress(address);
  if (safe === null) return make("span", { class: "no-link", title: address.slice(0, 500) }, ...children);
  const element = make("a", { rel: "noopener noreferrer nofollow", target: "_blank", title: safe }, ...children);
  element.href = safe;
  return element;
}

const ICONS = {
  add: ["M12 5v14M5 12h14"],
  menu: ["M4 6h16M4 12h16M4 18h16"],
  settings: ["M4 7h10M18 7h2M4 17h2M10 17h10", "M16 5v4M8 15v4"],
  send: ["M12 19V5M6 11l6-6 6 6"],
  stop: ["M7 7h10v10H7z"],
  copy: ["M9 9h10v11H9z", "M5 15V4h10"],
  edit: ["M4 20h4L19 9l-4-4L4 16z"],
  retry: ["M20 12a8 8 0 1 1-2.4-5.7", "M20 3v5h-5"],
  left: ["M14 6l-6 6 6 6"],
  right: ["M10 6l6 6-6 6"],
  down: ["M6 9l6 6 6-6"],
  more: ["M5 11h2v2H5zM11 11h2v2h-2zM17 11h2v2h-2z"],
  close: ["M6 6l12 12M18 6L6 18"],
  delete: ["M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13"],
  save: ["M12 4v11M7 11l5 5 5-5M5 20h14"],
  open: ["M12 16V5M7 10l5-5 5 5M5 20h14"],
  heat: ["M4 4h4v4H4zM10 4h4v4h-4zM16 4h4v4h-4zM4 10h4v4H4zM10 10h4v4h-4zM16 10h4v4h-4zM4 16h4v4H4zM10 16h4v4h-4zM16 16h4v4h-4z"],
  model: ["M12 3l8 4.5v9L12 21l-8-4.5v-9z", "M4 7.5l8 4.5 8-4.5M12 12v9"],
  theme: ["M12 4a8 8 0 1 0 8 8 6 6 0 0 1-8-8z"],
  keyboard: ["M3 7h18v10H3z", "M7 11h.01M12 11h.01M17 11h.01M8 14h8"],
  forward: ["M6 5l12 7-12 7z"],
};

/** A drawing, hidden from screen readers: whatever has it has a name too. */
export function icon(name) {
  const drawing = document.createElementNS(SVG, "svg");
  for (const [key, value] of [
    ["viewBox", "0 0 24 24"],
    ["aria-hidden", "true"],
    ["focusable", "false"],
    ["class", "icon"],
  ]) {
    drawing.setAttribute(key, value);
  }
  for (const path of ICONS[name]) {
    const line = document.createElementNS(SVG, "path");
    line.setAttribute("d", path);
    drawing.append(line);
  }
  return drawing;
}

/** A button with an icon. `label`: its name, also shown when the pointer rests on it. */
export function iconButton(name, label, onClick, attributes = {}) {
  return make(
    "button",
    { type: "button", class: "icon-button", "aria-label": label, title: label, ...attributes, on: { click: onClick } },
    icon(name),
  );
}

/** The element of index.html with that id. */
export function byId(id) {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`index.html has no element ${id}`);
  return element;
}
