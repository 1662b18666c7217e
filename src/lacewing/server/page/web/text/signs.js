// Signs that show nothing, or that change the order of others, are made visible.

const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;
const ORDERING = /[\u202a-\u202e\u2066-\u2069]/g;

/** The text with its control characters as pictures of them. `code`: also those that turn the direction of writing. */
export function visible(text, code = false) {
  const shown = text.replace(CONTROLS, (sign) =>
    sign < " " ? String.fromCharCode(0x2400 + sign.charCodeAt(0)) : sign === "\u007f" ? "\u2421" : "\ufffd",
  );
  return code ? shown.replace(ORDERING, (sign) => `\u27e8U+${sign.charCodeAt(0).toString(16).toUpperCase()}\u27e9`) : shown;
}
