// Elements without markup: whatever comes from a caller or a model becomes a text node.

/** An element. Attributes that are false, null or undefined are left out; strings become text. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

/** Make a text node's text this one; text that has only grown is only added to. */
export function grow(node, text) {
  if (text.length === node.length) return;
  if (text.length > node.length && node.length > 0) node.appendData(text.slice(node.length));
  else node.data = text;
}

export function seconds(value) {
  return value < 0.1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(value < 10 ? 2 : 1)} s`;
}
