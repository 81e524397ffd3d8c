// The page's nodes: parts by name, copies of templates, and what is said aloud.
//
// Nodes are filled with textContent: what a server or a file name says is never read as HTML.

export const part = (name, root = document) => root.querySelector(`[data-part="${name}"]`);
export const copyOf = (template) => document.getElementById(template).content.firstElementChild.cloneNode(true);

/** A node with its properties and children; a property with a dash is an attribute. */
export function node(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children);
  return made;
}

export function announce(text) {
  part("status").textContent = text;
}

/** The rows of a description list; a description is text, a node, or a list of both. */
export function describe(pairs) {
  return pairs.map(([term, description]) => node("div", {}, node("dt", { textContent: term }), node("dd", {}, ...[description].flat())));
}

/** The nodes of source with its tags and strings told apart; their text is the source, character for character. */
export function coloured(source) {
  return source.split(/(<\/?[A-Za-z]+|"(?:[^"\\]|\\.)*")/).map((text) => {
    const kind = text.startsWith("<") ? "tag" : text.startsWith('"') ? "value" : null;
    return kind ? node("span", { className: kind, textContent: text }) : document.createTextNode(text);
  });
}

/** Copy the text of a part, or select it where the browser does not let a page copy. */
export async function copy(button) {
  const source = part(button.dataset.copies);
  const label = (button.dataset.label ??= button.textContent);
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {
    // Without https, or without permission: selected, one key does the rest.
    getSelection().selectAllChildren(source);
    button.textContent = "Selected: press Ctrl+C or ⌘C";
  }
  announce(button.textContent);
  setTimeout(() => (button.textContent = label), 1500);
}

/** After the reader has paused: calls `act` once, `milliseconds` after the last of many calls. */
export function paused(act, milliseconds) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), milliseconds);
  };
}
