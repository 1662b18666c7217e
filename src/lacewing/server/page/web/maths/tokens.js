// LaTeX's mathematics as tokens: {kind: "command" | "sign" | "begin" | "end" | "up" | "down" | "cell" | "row" | "prime", text, at}.

const COMMAND = /\\([a-zA-Z]+\*?|[^])/y;
const KINDS = { "{": "begin", "}": "end", "^": "up", _: "down", "&": "cell", "'": "prime", "~": "command" };

/** Tokens of a formula; spaces and comments are left out. */
export function tokensOf(source) {
  const found = [];
  let at = 0;
  while (at < source.length) {
    const sign = String.fromCodePoint(source.codePointAt(at));
    COMMAND.lastIndex = at;
    const command = sign === "\\" ? COMMAND.exec(source) : null;
    if (command !== null) {
      found.push({ kind: command[1] === "\\" ? "row" : "command", text: command[1], at });
      at += command[0].length;
    } else if (sign === "%") {
      const end = source.indexOf("\n", at);
      at = end < 0 ? source.length : end + 1;
    } else {
      if (!/\s/.test(sign)) found.push({ kind: KINDS[sign] ?? "sign", text: sign, at });
      at += sign.length;
    }
  }
  return found;
}
