// A control for everything that can be asked of an image, made from what the API says of itself, so that none is ever missing.

import { node, part } from "./page.js";
import { labelOf } from "./words.js";

// Where a control stands. What the API learns after this was written stands under "More".
const GROUPS = {
  Size: "width height fit gravity focal enlarge dpr".split(" "),
  Shape: "crop trim rotate flip".split(" "),
  Look: "brightness contrast gamma saturation grayscale blur sharpen".split(" "),
  Finish: "round pad background overlay".split(" "),
  File: "quality max_bytes lossless effort progressive profile metadata".split(" "),
  Animation: "frame animate".split(" "),
};
const OPEN_AT_FIRST = "Size";

// A range of more steps than this is typed and not dragged.
const MOST_STEPS_DRAGGED = 400;

// Above this ratio of its ends a scale is dragged by its logarithm, so that small values are as easy to find as large ones.
const LOGARITHMIC_RATIO = 50;

let made = 0;

/** Fill `panel` with the controls of `schema`; `changed(transform)` is called for every change. Returns `{set, reset, complain}`. */
export function buildControls(panel, schema, transform, changed) {
  const values = { ...transform };
  const controls = new Map();
  const groups = new Map();

  const tell = () => changed({ ...values });
  const mark = () => {
    for (const [key, control] of controls) control.row.classList.toggle("set", key in values);
    for (const [keys, group] of groups) {
      const number = keys.filter((key) => key in values).length;
      part("set", group).textContent = number ? `${number} set` : "";
    }
    part("reset-all").disabled = Object.keys(values).length === 0;
  };

  const build = (key) => {
    const control = controlFor(key, schema[key], (value) => {
      if (value === undefined) delete values[key];
      else values[key] = value;
      mark();
      tell();
    });
    if (key in values) control.show(values[key]);
    controls.set(key, control);
    return control.row;
  };

  const placed = new Set(Object.values(GROUPS).flat());
  const all = { ...GROUPS, More: Object.keys(schema).filter((key) => !placed.has(key)) };
  panel.replaceChildren();
  for (const [name, keys] of Object.entries(all)) {
    const known = keys.filter((key) => key in schema);
    if (known.length === 0) continue;
    const group = node("details", { className: "group", open: name === OPEN_AT_FIRST });
    group.append(
      node("summary", {}, node("span", { textContent: name }), node("span", { className: "quiet", "data-part": "set" })),
      node("div", { className: "rows" }, ...known.map(build)),
    );
    groups.set(known, group);
    panel.append(group);
  }
  const help = node("p", { className: "help", "aria-hidden": "true", textContent: "What an option does is told here." });
  const tellHelp = ({ target }) => {
    const row = target.closest(".option");
    if (row) help.replaceChildren(node("b", { textContent: row.querySelector("label, legend").textContent }), ` ${row.querySelector(".hint").textContent}`);
  };
  // Listened for by the panel's content alone: the panel itself stays when another photo comes.
  for (const { row } of controls.values()) for (const event of ["focusin", "pointerover"]) row.addEventListener(event, tellHelp);
  panel.append(help);
  mark();

  return {
    set(wanted) {
      for (const [key, value] of Object.entries(wanted)) {
        values[key] = value;
        controls.get(key)?.show(value);
      }
      mark();
      tell();
    },
    reset() {
      for (const key of Object.keys(values)) {
        delete values[key];
        controls.get(key)?.show(undefined);
      }
      mark();
      tell();
    },
    /** Point at the controls that a problem names between backticks. */
    complain(text) {
      const named = [...text.matchAll(/`(\w+)/g)].map(([, key]) => key);
      for (const [key, { row }] of controls) {
        const wrong = named.includes(key);
        row.classList.toggle("wrong", wrong);
        for (const input of row.querySelectorAll("input, select")) input.setAttribute("aria-invalid", String(wrong));
        if (wrong) row.closest("details").open = true;
      }
    },
  };
}

/** The row of one option: its label, what it takes, a button that takes it back. `changed(value)`, undefined for none. */
function controlFor(key, schema, changed) {
  const id = `option-${(made += 1)}`;
  const widget = widgetFor(key, schema, id, changed);
  const label = labelOf(key);
  const help = plainText(schema.description ?? "");
  const reset = node("button", { type: "button", className: "reset", textContent: "×", "aria-label": `Reset ${label}` });
  reset.addEventListener("click", () => {
    widget.show(undefined);
    changed(undefined);
    row.querySelector("input, select").focus();
  });
  const name = widget.several ? node("legend", { textContent: label }) : node("label", { htmlFor: id, textContent: label });
  const hint = node("span", { className: "hint", id: `${id}-hint`, textContent: help });
  const row = node(widget.several ? "fieldset" : "div", { className: "option" }, name, node("span", { className: "field" }, ...widget.nodes, reset), hint);
  row.dataset.option = key;
  if (widget.several) row.setAttribute("aria-describedby", hint.id);
  else for (const input of row.querySelectorAll("input, select")) input.setAttribute("aria-describedby", hint.id);
  return { row, show: widget.show };
}

const plainText = (text) => text.replaceAll("`", "");

function widgetFor(key, schema, id, changed) {
  const special = { crop: cropWidget, focal: focalWidget, pad: padWidget, background: backgroundWidget }[key];
  if (special) return special(id, schema, changed);
  const kinds = schema.oneOf ?? schema.anyOf ?? [schema];
  const number = kinds.find(({ type }) => type === "number" || type === "integer");
  const words = kinds.flatMap((kind) => kind.enum ?? []);
  const object = kinds.find(({ type }) => type === "object");
  if (object) return objectWidget(key, object, changed);
  if (number) return numberWidget(number, words[0], id, changed, schema.default);
  if (schema.type === "boolean") return flagWidget(id, changed);
  if (words.length) return wordWidget(words, id, changed, schema.default);
  return textWidget(id, changed, schema.examples?.[0]);
}

function flagWidget(id, changed) {
  const input = node("input", { type: "checkbox", id, className: "switch", role: "switch" });
  input.addEventListener("change", () => changed(input.checked || undefined));
  return { nodes: [input], show: (value) => (input.checked = value === true) };
}

function wordWidget(words, id, changed, normal) {
  const choices = words.map((word) => node("option", { value: word === normal ? "" : word, textContent: word }));
  if (!words.includes(normal)) choices.unshift(node("option", { value: "", textContent: "–" }));
  const select = node("select", { id }, ...choices);
  select.addEventListener("change", () => changed(select.value || undefined));
  return { nodes: [select], show: (value) => (select.value = value ?? "") };
}

function textWidget(id, changed, example, read = (text) => text) {
  const input = node("input", { type: "text", id, spellcheck: false, autocomplete: "off", placeholder: example === undefined ? "" : `${example}` });
  input.addEventListener("input", () => changed(input.value.trim() ? read(input.value.trim()) : undefined));
  return { nodes: [input], show: (value) => (input.value = [value ?? ""].flat().join(" ")) };
}

/** A number, typed and where its range is small enough dragged too; `word` is what may stand in its place, such as `auto`. */
function numberWidget({ type, minimum, maximum }, word, id, changed, normal) {
  const whole = type === "integer";
  const input = node("input", { type: "number", id, min: minimum, max: maximum, step: whole ? 1 : "any", inputMode: "decimal" });
  if (normal !== undefined) input.placeholder = normal;
  const nodes = [input];
  const logarithmic = !whole && minimum > 0 && maximum / minimum > LOGARITHMIC_RATIO;
  const onScale = (value) => (logarithmic ? (Math.log(value / minimum) / Math.log(maximum / minimum)) * 1000 : value);
  const fromScale = (at) => (logarithmic ? Number((minimum * (maximum / minimum) ** (at / 1000)).toPrecision(2)) : at);
  let scale = null;
  if (!whole || maximum - minimum <= MOST_STEPS_DRAGGED) {
    const [min, max] = logarithmic ? [0, 1000] : [minimum, maximum];
    const step = whole ? 1 : logarithmic ? 1 : Math.max(0.05, Math.round((maximum - minimum) / 100 / 0.05) * 0.05);
    // The same value can be typed beside it: for the keyboard and for those who listen, the typed one is enough.
    scale = node("input", { type: "range", min, max, step, tabIndex: -1, "aria-hidden": "true" });
    scale.addEventListener("input", () => take(Number(fromScale(Number(scale.value)).toFixed(4))));
    nodes.unshift(scale);
  }
  let box = null;
  if (word) {
    box = node("input", { type: "checkbox", "aria-label": word });
    box.addEventListener("change", () => {
      show(box.checked ? word : undefined);
      changed(box.checked ? word : undefined);
    });
    nodes.push(node("label", { className: "word" }, box, word));
  }
  const rest = () => {
    if (scale) scale.value = onScale(normal ?? (minimum <= 0 ? Math.max(0, minimum) : minimum));
  };
  const show = (value) => {
    input.value = typeof value === "number" ? value : "";
    if (box) box.checked = value === word;
    if (scale && typeof value === "number") scale.value = onScale(value);
    else rest();
  };
  const take = (value) => {
    show(value);
    changed(value);
  };
  input.addEventListener("input", () => {
    const value = input.value === "" ? undefined : Number(input.value);
    if (box) box.checked = false;
    if (scale && value !== undefined) scale.value = onScale(value);
    changed(value);
  });
  rest();
  return { nodes, show };
}

/** Several numbers that are one value; `normal` is where they change nothing. */
function numbersWidget(labels, normal, limits, changed, { toValue, fromValue }) {
  const inputs = labels.map((label, index) => node("input", { type: "number", "aria-label": label, placeholder: normal[index], ...limits, inputMode: "decimal" }));
  const tell = () => {
    if (inputs.every((input) => input.value === "")) changed(undefined);
    else changed(toValue(inputs.map((input, index) => (input.value === "" ? normal[index] : Number(input.value)))));
  };
  for (const input of inputs) input.addEventListener("input", tell);
  const nodes = inputs.map((input, index) => node("span", { className: "part" }, node("span", { textContent: labels[index], "aria-hidden": "true" }), input));
  const show = (value) => {
    const numbers = value === undefined ? [] : fromValue(value);
    inputs.forEach((input, index) => (input.value = numbers[index] ?? ""));
  };
  return { nodes, several: true, show };
}

function cropWidget(id, schema, changed) {
  const percent = { toValue: (numbers) => numbers.map((number) => `${number}%`), fromValue: (value) => value.map(parseFloat) };
  return numbersWidget(["Left %", "Top %", "Width %", "Height %"], [0, 0, 100, 100], { min: 0, max: 100, step: "any" }, changed, percent);
}

function focalWidget(id, schema, changed) {
  const same = { toValue: (numbers) => numbers, fromValue: (value) => value };
  return numbersWidget(["From left", "From top"], [0.5, 0.5], { min: 0, max: 1, step: 0.01 }, changed, same);
}

function padWidget(id, schema, changed) {
  return textWidget(id, changed, "20, or 10 20", (text) => text.split(/[\s,]+/));
}

function backgroundWidget(id, schema, changed) {
  const text = textWidget(id, changed, "#ff8800, or blur");
  const [input] = text.nodes;
  const well = node("input", { type: "color", value: "#ffffff", "aria-label": "Background, as a colour" });
  well.addEventListener("input", () => {
    input.value = well.value;
    changed(well.value);
  });
  const show = (value) => {
    text.show(value);
    if (/^#[0-9a-f]{6}$/i.test(value ?? "")) well.value = value;
  };
  return { nodes: [well, input], show };
}

/** An object of several members, such as an overlay: complete once what it requires is there. */
function objectWidget(key, { properties, required = [] }, changed) {
  const value = {};
  const members = new Map();
  const tell = () => changed(required.every((name) => name in value) ? { ...value } : undefined);
  const nodes = Object.entries(properties).map(([name, schema]) => {
    const id = `option-${(made += 1)}`;
    const widget = widgetFor(`${key}.${name}`, schema, id, (part) => {
      if (part === undefined) delete value[name];
      else value[name] = part;
      tell();
    });
    members.set(name, widget);
    if (name === "digest") widget.nodes[0].setAttribute("list", "known-digests");
    return node("span", { className: "member" }, node("label", { htmlFor: id, textContent: labelOf(name) }), ...widget.nodes);
  });
  const show = (shown) => {
    for (const name of Object.keys(value)) delete value[name];
    Object.assign(value, shown);
    for (const [name, widget] of members) widget.show(shown?.[name]);
  };
  return { nodes, several: true, show };
}
