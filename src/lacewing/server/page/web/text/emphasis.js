// Markdown's emphasis: runs of delimiters among the nodes of a text are matched, as CommonMark describes it.

export const DEPTH = 24; // that nodes nest at most

/** How deep the nodes from `start` on are nested. */
export function depthOf(nodes, start = 0) {
  let deepest = 0;
  for (let at = start; at < nodes.length; at += 1) deepest = Math.max(deepest, nodes[at].depth ?? 0);
  return deepest;
}

export function nested(node) {
  return { ...node, depth: depthOf(node.nodes) + 1 };
}

/** Runs of delimiters become emphasis, as CommonMark describes it; those that match nothing are text. */
export function emphasise(items) {
  const result = [];
  const openers = []; // {index in `result`, item}
  const bottom = {}; // of each kind of closer: openers below it do not match
  for (const item of items) {
    if (item.type !== "delimiter") {
      result.push(item);
      continue;
    }
    if (item.closes) closeWith(item, result, openers, bottom);
    if (item.count > 0 && item.opens) {
      openers.push({ index: result.length, item });
      result.push(item);
    } else if (item.count > 0) {
      result.push({ type: "text", text: item.sign.repeat(item.count) });
    }
  }
  return joined(result.map(plain));
}

/** Neighbouring texts as one. */
function joined(nodes) {
  const found = [];
  let texts = [];
  const flush = () => {
    if (texts.length > 0) found.push({ type: "text", text: texts.join("") });
    texts = [];
  };
  for (const node of nodes) {
    if (node.type === "text") texts.push(node.text);
    else (flush(), found.push(node));
  }
  flush();
  return found;
}

function closeWith(item, result, openers, bottom) {
  const key = `${item.sign}${item.opens}${item.original % 3}`;
  while (item.count > 0) {
    let at = openers.length - 1;
    while (at >= (bottom[key] ?? 0) && !fits(openers[at].item, item)) at -= 1;
    if (at < (bottom[key] ?? 0)) {
      bottom[key] = openers.length;
      return;
    }
    const { index, item: opener } = openers[at];
    if (depthOf(result, index + 1) >= DEPTH) {
      openers.length = 0; // nothing encloses what is nested so deep, and nothing looks at it again
      for (const each of Object.keys(bottom)) bottom[each] = 0;
      return;
    }
    const used = item.sign === "~" ? item.count : opener.count >= 2 && item.count >= 2 ? 2 : 1;
    openers.length = at + 1;
    const nodes = joined(result.splice(index + 1).map(plain));
    opener.count -= used;
    item.count -= used;
    if (opener.count === 0) {
      openers.length = at;
      result.length = index;
    }
    for (const each of Object.keys(bottom)) bottom[each] = Math.min(bottom[each], openers.length);
    result.push(nested({ type: item.sign === "~" ? "struck" : used === 2 ? "strong" : "emphasis", nodes }));
  }
}

const plain = (item) => (item.type === "delimiter" ? { type: "text", text: item.sign.repeat(item.count) } : item);

function fits(opener, closer) {
  if (opener.sign !== closer.sign) return false;
  if (opener.sign === "~") return opener.count === closer.count;
  const odd = (opener.closes || closer.opens) && (opener.original + closer.original) % 3 === 0;
  return !odd || (opener.original % 3 === 0 && closer.original % 3 === 0);
}
