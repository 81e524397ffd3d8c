// Elements of the page: parts by name, clones of templates, and announcements for screen readers.
//
// Elements are filled with textContent: text from a server or a file name is never parsed as HTML.

/**
 * The first element whose `data-part` is `name`. The type is open, because each part is another kind of element.
 * @param {string} name
 * @param {ParentNode} [root]
 * @returns {any}
 */
export const part = (name, root = document) => root.querySelector(`[data-part="${name}"]`);

/**
 * A clone of the first element in the template with this id.
 * @param {string} id
 * @returns {any}
 */
export const cloneTemplate = (id) => {
  const template = /** @type {HTMLTemplateElement} */ (document.getElementById(id));
  return template.content.firstElementChild.cloneNode(true);
};

/**
 * Create an element with properties and children. A property whose name has a dash, and `role`, becomes an attribute.
 * @param {string} name
 * @param {Record<string, unknown>} [properties]
 * @param {...(Node | string)} children
 * @returns {any}
 */
export function element(name, properties = {}, ...children) {
  /** @type {any} */
  const created = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role") created.setAttribute(key, String(value));
    else created[key] = value;
  }
  created.append(...children);
  return created;
}

/**
 * Have screen readers say a text.
 * @param {string} text
 */
export function announce(text) {
  part("status").textContent = text;
}

/**
 * The rows of a description list. A description is text, a node, or a list of both.
 * @param {[string, any][]} pairs
 */
export function descriptionRows(pairs) {
  return pairs.map(([term, description]) =>
    element("div", {}, element("dt", { textContent: term }), element("dd", {}, ...[description].flat())),
  );
}

/**
 * The nodes of source code with its tags and strings highlighted. Their text is the source, character for character.
 * @param {string} source
 */
export function highlight(source) {
  return source.split(/(<\/?[A-Za-z]+|"(?:[^"\\]|\\.)*")/).map((text) => {
    const kind = text.startsWith("<") ? "tag" : text.startsWith('"') ? "value" : null;
    return kind ? element("span", { className: kind, textContent: text }) : document.createTextNode(text);
  });
}

/**
 * Copy the text of the part that a button names, or select it where the browser does not let a page copy.
 * @param {HTMLButtonElement} button
 */
export async function copyText(button) {
  const source = part(button.dataset.copies);
  button.dataset.label ??= button.textContent;
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {
    // Without HTTPS or permission the text is selected, and one key copies it.
    getSelection().selectAllChildren(source);
    button.textContent = "Selected: press Ctrl+C or ⌘C";
  }
  announce(button.textContent);
  setTimeout(() => {
    button.textContent = button.dataset.label;
  }, 1500);
}

/**
 * A function that calls `act` once, `milliseconds` after the last of many calls.
 * @template {unknown[]} Given
 * @param {(...given: Given) => void} act
 * @param {number} milliseconds
 * @returns {(...given: Given) => void}
 */
export function debounce(act, milliseconds) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), milliseconds);
  };
}
