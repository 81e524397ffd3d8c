// A control for every option of a transform, built from the API's own description, so that none is ever missing.

import { element, part } from "./dom.js";
import { labelOf } from "./format.js";

// The group of each control. Options that the API gains later are grouped under "More".
const GROUPS = {
  Size: "width height ratio fit gravity focal enlarge dpr".split(" "),
  Shape: "crop trim rotate flip".split(" "),
  Look: "brightness contrast gamma saturation grayscale blur sharpen".split(" "),
  Finish: "round pad background overlay".split(" "),
  File: "quality max_bytes lossless effort progressive profile dynamic_range metadata".split(" "),
  Animation: "frame animate".split(" "),
};
const OPEN_AT_FIRST = "Size";

// A range of more steps than this has no slider: its value is typed.
const MAX_SLIDER_STEPS = 400;

// Suggested for `ratio`: wide, square, and upright.
const RATIOS = "16:9 3:2 4:3 1:1 4:5 2:3 9:16 21:9 1.91:1".split(" ");

// Above this ratio between its ends a slider is logarithmic, so that small values are as easy to find as large ones.
const LOGARITHMIC_RATIO = 50;

let idsGiven = 0;

function newId() {
  idsGiven += 1;
  return `option-${idsGiven}`;
}

/**
 * Fill `panel` with a control for each option of `schema`.
 * @param {any} panel
 * @param {Record<string, any>} schema The JSON Schema of each option.
 * @param {Record<string, unknown>} transform The options that are set at first.
 * @param {(transform: Record<string, unknown>) => void} onChange Called after every change.
 */
export function buildControls(panel, schema, transform, onChange) {
  const values = { ...transform };
  const controls = new Map();
  const groups = new Map();

  const notify = () => onChange({ ...values });
  const update = () => {
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
      update();
      notify();
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
    const group = element("details", { className: "group", open: name === OPEN_AT_FIRST });
    group.append(
      element(
        "summary",
        {},
        element("span", { textContent: name }),
        element("span", { className: "quiet", "data-part": "set" }),
      ),
      element("div", { className: "rows" }, ...known.map(build)),
    );
    groups.set(known, group);
    panel.append(group);
  }
  update();

  return {
    /** Set some options. */
    set(wanted) {
      for (const [key, value] of Object.entries(wanted)) {
        values[key] = value;
        controls.get(key)?.show(value);
      }
      update();
      notify();
    },
    /** Reset every option. */
    reset() {
      for (const key of Object.keys(values)) {
        delete values[key];
        controls.get(key)?.show(undefined);
      }
      update();
      notify();
    },
    /** Mark the controls that the text of a problem names between backticks. */
    markInvalid(text) {
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

/** The row of one option: its label, its input, its help, and a button that resets it. `onChange(undefined)` means that it is not set. */
function controlFor(key, schema, onChange) {
  const id = newId();
  const widget = widgetFor(key, schema, id, onChange);
  const label = labelOf(key);
  const help = plainText(schema.description ?? "");
  const reset = element("button", {
    type: "button",
    className: "reset",
    textContent: "×",
    "aria-label": `Reset ${label}`,
  });
  reset.addEventListener("click", () => {
    widget.show(undefined);
    onChange(undefined);
    row.querySelector("input, select").focus();
  });
  const explain = element("button", {
    type: "button",
    className: "explain",
    textContent: "?",
    "aria-label": `Help for ${label}`,
    "aria-expanded": "false",
    "aria-controls": `${id}-hint`,
  });
  explain.addEventListener("click", () => {
    explain.setAttribute("aria-expanded", String(row.classList.toggle("explained")));
  });
  const name = widget.several
    ? element("legend", { textContent: label })
    : element("label", { htmlFor: id, textContent: label, title: help });
  const hint = element("span", { className: "hint", id: `${id}-hint`, textContent: help });
  const row = element(
    widget.several ? "fieldset" : "div",
    { className: "option" },
    name,
    element("span", { className: "field" }, ...widget.nodes, explain, reset),
    hint,
  );
  row.dataset.option = key;
  if (widget.several) row.setAttribute("aria-describedby", hint.id);
  else for (const input of row.querySelectorAll("input, select")) input.setAttribute("aria-describedby", hint.id);
  return { row, show: widget.show };
}

const plainText = (text) => text.replaceAll("`", "");

function widgetFor(key, schema, id, onChange) {
  const special = {
    crop: cropWidget,
    focal: focalWidget,
    ratio: ratioWidget,
    pad: padWidget,
    background: backgroundWidget,
  }[key];
  if (special) return special(onChange, id);
  const kinds = schema.oneOf ?? schema.anyOf ?? [schema];
  const number = kinds.find(({ type }) => type === "number" || type === "integer");
  const words = kinds.flatMap((kind) => kind.enum ?? []);
  const object = kinds.find(({ type }) => type === "object");
  if (object) return objectWidget(key, object, onChange);
  if (number) return numberWidget(number, words[0], id, onChange, schema.default);
  if (schema.type === "boolean") return flagWidget(id, onChange);
  if (words.length) return wordWidget(words, id, onChange, schema.default);
  return textWidget(id, onChange, schema.examples?.[0]);
}

function flagWidget(id, onChange) {
  const input = element("input", { type: "checkbox", id, className: "switch", role: "switch" });
  input.addEventListener("change", () => onChange(input.checked || undefined));
  return { nodes: [input], show: (value) => (input.checked = value === true) };
}

function wordWidget(words, id, onChange, normal) {
  const choices = words.map((word) => element("option", { value: word === normal ? "" : word, textContent: word }));
  if (!words.includes(normal)) choices.unshift(element("option", { value: "", textContent: "–" }));
  const select = element("select", { id }, ...choices);
  select.addEventListener("change", () => onChange(select.value || undefined));
  return { nodes: [select], show: (value) => (select.value = value ?? "") };
}

function textWidget(id, onChange, example, read = (text) => text) {
  const input = element("input", {
    type: "text",
    id,
    spellcheck: false,
    autocomplete: "off",
    placeholder: example === undefined ? "" : `${example}`,
  });
  input.addEventListener("input", () => onChange(input.value.trim() ? read(input.value.trim()) : undefined));
  return { nodes: [input], show: (value) => (input.value = [value ?? ""].flat().join(" ")) };
}

/** A number with an input, and a slider where its range is small enough. `word` is a word that is allowed too, such as `auto`. */
function numberWidget({ type, minimum, maximum }, word, id, onChange, normal) {
  const whole = type === "integer";
  const input = element("input", {
    type: "number",
    id,
    min: minimum,
    max: maximum,
    step: whole ? 1 : "any",
    inputMode: "decimal",
  });
  if (normal !== undefined) input.placeholder = normal;
  const nodes = [input];
  const logarithmic = !whole && minimum > 0 && maximum / minimum > LOGARITHMIC_RATIO;
  const onScale = (value) => (logarithmic ? (Math.log(value / minimum) / Math.log(maximum / minimum)) * 1000 : value);
  const fromScale = (at) => (logarithmic ? Number((minimum * (maximum / minimum) ** (at / 1000)).toPrecision(2)) : at);
  let scale = null;
  if (!whole || maximum - minimum <= MAX_SLIDER_STEPS) {
    const [min, max] = logarithmic ? [0, 1000] : [minimum, maximum];
    const step = whole ? 1 : logarithmic ? 1 : Math.max(0.05, Math.round((maximum - minimum) / 100 / 0.05) * 0.05);
    // The input beside it has the same value: for the keyboard and for screen readers that one is enough.
    scale = element("input", { type: "range", min, max, step, tabIndex: -1, "aria-hidden": "true" });
    scale.addEventListener("input", () => setValue(Number(fromScale(Number(scale.value)).toFixed(4))));
    nodes.unshift(scale);
  }
  let box = null;
  if (word) {
    box = element("input", { type: "checkbox", "aria-label": word });
    box.addEventListener("change", () => {
      show(box.checked ? word : undefined);
      onChange(box.checked ? word : undefined);
    });
    nodes.push(element("label", { className: "word" }, box, word));
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
  const setValue = (value) => {
    show(value);
    onChange(value);
  };
  input.addEventListener("input", () => {
    const value = input.value === "" ? undefined : Number(input.value);
    if (box) box.checked = false;
    if (scale && value !== undefined) scale.value = onScale(value);
    onChange(value);
  });
  rest();
  return { nodes, show };
}

/** Several numbers that are one value. `normal` are the numbers that change nothing. */
function numbersWidget(labels, normal, limits, onChange, { toValue, fromValue }) {
  const inputs = labels.map((label, index) =>
    element("input", {
      type: "number",
      "aria-label": label,
      placeholder: normal[index],
      ...limits,
      inputMode: "decimal",
    }),
  );
  const notify = () => {
    if (inputs.every((input) => input.value === "")) onChange(undefined);
    else onChange(toValue(inputs.map((input, index) => (input.value === "" ? normal[index] : Number(input.value)))));
  };
  for (const input of inputs) input.addEventListener("input", notify);
  const nodes = inputs.map((input, index) =>
    element(
      "span",
      { className: "part" },
      element("span", { textContent: labels[index], "aria-hidden": "true" }),
      input,
    ),
  );
  const show = (value) => {
    const numbers = value === undefined ? [] : fromValue(value);
    for (const [index, input] of inputs.entries()) input.value = numbers[index] ?? "";
  };
  return { nodes, several: true, show };
}

function cropWidget(onChange) {
  const percent = {
    toValue: (numbers) => numbers.map((number) => `${number}%`),
    fromValue: (value) => value.map(parseFloat),
  };
  return numbersWidget(
    ["Left %", "Top %", "Width %", "Height %"],
    [0, 0, 100, 100],
    { min: 0, max: 100, step: "any" },
    onChange,
    percent,
  );
}

function focalWidget(onChange) {
  const same = { toValue: (numbers) => numbers, fromValue: (value) => value };
  return numbersWidget(["From left", "From top"], [0.5, 0.5], { min: 0, max: 1, step: 0.01 }, onChange, same);
}

/** A text with the usual ratios as suggestions. */
function ratioWidget(onChange, id) {
  const text = textWidget(id, onChange, "16:9");
  const list = element("datalist", { id: `${id}-list` }, ...RATIOS.map((value) => element("option", { value })));
  text.nodes[0].setAttribute("list", list.id);
  return { nodes: [...text.nodes, list], show: text.show };
}

function padWidget(onChange, id) {
  return textWidget(id, onChange, "20, or 10 20", (text) => text.split(/[\s,]+/));
}

function backgroundWidget(onChange, id) {
  const text = textWidget(id, onChange, "#ff8800, or blur");
  const [input] = text.nodes;
  const well = element("input", { type: "color", value: "#ffffff", "aria-label": "Background color" });
  well.addEventListener("input", () => {
    input.value = well.value;
    onChange(well.value);
  });
  const show = (value) => {
    text.show(value);
    if (/^#[0-9a-f]{6}$/i.test(value ?? "")) well.value = value;
  };
  return { nodes: [well, input], show };
}

/** An object of several members, such as an overlay. It is set once every required member is. */
function objectWidget(key, { properties, required = [] }, onChange) {
  const value = {};
  const members = new Map();
  const notify = () => onChange(required.every((name) => name in value) ? { ...value } : undefined);
  const nodes = Object.entries(properties).map(([name, schema]) => {
    const id = newId();
    const widget = widgetFor(`${key}.${name}`, schema, id, (part) => {
      if (part === undefined) delete value[name];
      else value[name] = part;
      notify();
    });
    members.set(name, widget);
    if (name === "digest") widget.nodes[0].setAttribute("list", "known-digests");
    return element(
      "span",
      { className: "member" },
      element("label", { htmlFor: id, textContent: labelOf(name) }),
      ...widget.nodes,
    );
  });
  const show = (shown) => {
    for (const name of Object.keys(value)) delete value[name];
    Object.assign(value, shown);
    for (const [name, widget] of members) widget.show(shown?.[name]);
  };
  return { nodes, several: true, show };
}
