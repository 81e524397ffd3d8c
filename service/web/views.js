// The views of a photo: its entry in the list, the upload, a problem, its facts, and the formats side by side.

import { needsToken, storeToken, toLocalPath } from "./api.js";
import { cloneTemplate, descriptionRows, element, part } from "./dom.js";
import { dimensions, formatName, megapixels, percentChange, readableBytes, readableInteger } from "./format.js";
import { visit } from "./state.js";

let problemsShown = 0;

/** @param {import("./state.js").Photo} photo */
export function renderEntry(photo) {
  const button = photo.entry.firstElementChild;
  button.dataset.state = photo.state;
  part("name", button).textContent = photo.name;
  if (photo.state !== "ready") return;
  const { placeholder } = photo.document;
  const [smallest] = photo.ladder;
  if (smallest.state === "measured" && photo.markup === photo.document) photo.thumbnail = toLocalPath(smallest.url);
  const layers = [...(photo.thumbnail ? [photo.thumbnail] : []), placeholder.data_url];
  const small = part("small", button);
  small.style.backgroundColor = placeholder.color;
  small.style.backgroundImage = layers.map((url) => `url("${url}")`).join(", ");
}

/** @param {import("./state.js").Photo} photo */
export function loadingView(photo) {
  const view = cloneTemplate("loading");
  part("name", view).textContent = photo.name;
  updateUploadProgress(photo, photo.sent, view);
  return view;
}

/**
 * @param {import("./state.js").Photo} photo
 * @param {number} sent The part of the file that was sent, 0 to 1.
 * @param {ParentNode} [view]
 */
export function updateUploadProgress(photo, sent, view = part("bench")) {
  photo.sent = sent;
  const bar = part("progress", view);
  if (photo !== visit.shown || !bar) return;
  const isWaiting = !photo.file || sent === 1;
  // Sent is not stored: the server still reads the picture. A bar without a value means "in progress".
  if (isWaiting) bar.removeAttribute("value");
  else bar.value = sent;
  part("progress-text", view).textContent = progressText(photo, sent);
}

/**
 * @param {import("./state.js").Photo} photo
 * @param {number} sent
 */
function progressText({ file }, sent) {
  if (!file) return "Loading the image document…";
  const size = readableBytes(file.size);
  return sent === 1 ? `Uploaded ${size}. The server is processing it…` : `Uploading ${size}…`;
}

/**
 * A problem: its title and detail, what was expected, what was received, and what to do; with a form where another token may help.
 * @param {import("./api.js").Result} result
 * @param {object} [handlers]
 * @param {(() => void) | null} [handlers.onRetry]
 * @param {() => void} [handlers.onToken] Called when the reader has entered another token.
 */
export function problemView({ status, problem }, { onRetry, onToken } = {}) {
  const view = cloneTemplate("problem");
  part("title", view).textContent = problem.title;
  part("detail", view).textContent = problem.detail ?? "";
  const particulars = {
    Expected: problem.expected,
    Received: problem.received,
    "What to do": problem.remedy,
  };
  part("particulars", view).append(...descriptionRows(Object.entries(particulars).filter(([, text]) => text)));
  const page = part("problem-page", view);
  page.hidden = !problem.type?.startsWith("/problems/");
  if (!page.hidden) page.href = problem.type;
  const form = part("token-form", view);
  form.hidden = !needsToken(status);
  const [label, input] = [form.querySelector("label"), form.querySelector("input")];
  problemsShown += 1;
  input.id = `token-${problemsShown}`;
  label.htmlFor = input.id;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    storeToken(input.value);
    onToken?.();
  });
  part("retry", view).hidden = !onRetry || needsToken(status);
  part("retry", view).addEventListener("click", () => onRetry());
  return view;
}

/** @param {import("./state.js").Photo} photo */
export function readyView(photo) {
  const view = cloneTemplate("ready");
  part("name", view).textContent = photo.name;
  part("facts", view).append(...descriptionRows(factsOf(photo)));
  part("placeholder", view).src = photo.document.placeholder.data_url;
  part("relative", view).hidden = !photo.document.src.startsWith("/");
  part("relative", view).textContent =
    `These URLs are relative, so they work only on pages of ${location.origin}. ` +
    "Set DARKROOM_PUBLIC_URL on the server to get URLs that work everywhere.";
  part("sizes", view).value = photo.sizes;
  part("priority", view).checked = photo.priority;
  part("narrow", view).value = photo.narrow;
  return view;
}

/**
 * @param {import("./state.js").Photo} photo
 * @returns {[string, any][]}
 */
function factsOf({ document: facts, file, status }) {
  const { placeholder } = facts;
  const inline = element("img", {
    className: "tiny",
    alt: `Placeholder of ${placeholder.data_url.length} characters`,
    title: `Placeholder of ${placeholder.data_url.length} characters; ThumbHash ${placeholder.thumbhash}`,
    src: placeholder.data_url,
  });
  const frames = facts.frames > 1 ? `, ${readableInteger(facts.frames)} frames` : "";
  const digest = element("code", {
    textContent: `${facts.digest.slice(0, 8)}…`,
    title: facts.digest,
  });
  const colors = [...new Set([placeholder.color, ...placeholder.palette])];
  /** @type {[string, any][]} */
  const warnings = facts.warnings.length ? [["Warnings", facts.warnings.join(" ")]] : [];
  return [
    ["Format", formatName(facts.format) + frames],
    ["Dimensions", `${dimensions(facts)} (${megapixels(facts)})`],
    ["Size", readableBytes(facts.bytes)],
    ...warnings,
    ["Digest", [digest, file && status === 200 ? " already stored" : ""]],
    ["Placeholder", [inline, ...colors.map(swatch)]],
  ];
}

function swatch(color) {
  const spot = element("span", {
    className: "swatch",
    title: color,
    role: "img",
    "aria-label": color,
  });
  spot.style.backgroundColor = color;
  return spot;
}

/**
 * The formats side by side at the selected width: how large each is, and how much it saves.
 * @param {import("./state.js").Photo} photo
 * @param {import("./state.js").Rendition} selected
 */
export function renderFormats(photo, { width }) {
  const sameWidth = photo.ladder.filter((other) => other.width === width);
  const fallback = sameWidth.at(-1);
  const largest = Math.max(...sameWidth.map(({ bytes }) => bytes ?? 0)) || 1;
  part("format-bars").replaceChildren(
    ...sameWidth.map((rendition) => {
      const bar = element("span", { className: "bar" });
      bar.style.setProperty("--share", (rendition.bytes ?? 0) / largest);
      return element(
        "li",
        { className: rendition === photo.selected ? "chosen" : "" },
        element("span", { textContent: formatName(rendition.type) }),
        bar,
        element("b", { textContent: sizeText(rendition) }),
        element("span", { className: "quiet", textContent: savingText(rendition, fallback) }),
      );
    }),
  );
}

/** @param {import("./state.js").Rendition} rendition */
function sizeText({ bytes, state }) {
  if (bytes) return readableBytes(bytes);
  return state === "failed" ? "failed" : "…";
}

function savingText(rendition, fallback) {
  if (!rendition.bytes || !fallback.bytes || rendition === fallback) return "";
  const change = percentChange(rendition.bytes, fallback.bytes);
  return change ? `${Math.abs(change)}% ${change < 0 ? "saved" : "more"}` : "";
}
