// The playground: photos go to POST /v1/images, transforms to POST …/urls, and the responses are shown.
//
// Nothing on the page is estimated: every URL is the server's, sizes are the bytes received, times are this browser's own.

import { createUrls, needsToken, readDocument, readTransformSchema, token, upload } from "./api.js";
import { buildControls } from "./controls.js";
import { announce, cloneTemplate, copyText, debounce, element, part } from "./dom.js";
import { wireFocalPoint } from "./focal-point.js";
import { readableBytes } from "./format.js";
import { MeasureQueue, renderLadder, updateProgress, updateStep } from "./ladder.js";
import { renderCaption, replayLoading, showOriginal, showRendition, sizeFrame, wireDivider } from "./preview.js";
import { showMore, showRecent } from "./recent.js";
import { renderSnippets, wireTabs } from "./snippets.js";
import {
  applyMarkup,
  createPhoto,
  DEFAULT_SIZES,
  initialSelection,
  nextToMeasure,
  removeDuplicatesOf,
  urlsRequestOf,
  visit,
} from "./state.js";
import { loadingView, problemView, readyView, renderEntry, renderFormats, updateUploadProgress } from "./views.js";

/** @typedef {import("./state.js").Photo} Photo */
/** @typedef {import("./state.js").Rendition} Rendition */

// How long a control must rest before its value is sent.
const PAUSE_MILLISECONDS = 250;

const DIGEST = /^[a-z2-7]{32}$/;

/** Uploads run one after another. */
let uploads = Promise.resolve();
/** @type {import("./api.js").Result | null} */
let schema = null;
/** @type {ReturnType<typeof buildControls> | null} */
let controls = null;
let urlsRequest = new AbortController();

const measuring = new MeasureQueue(nextToMeasure, (rendition) => {
  const photo = visit.photos.find(({ ladder }) => ladder.includes(rendition));
  if (!photo) return;
  updateStep(photo, rendition);
  renderEntry(photo);
  if (photo !== visit.shown || photo.state !== "ready") return;
  updateProgress(photo);
  updatePreview(photo);
  if (photo.ladder.every(({ state }) => state === "measured" || state === "failed"))
    announce(part("measured").textContent);
});

// ---- Photos

/**
 * Add files to the list, show the first, and upload all of them.
 * @param {FileList} files
 */
function addFiles(files) {
  const added = Array.from(files, (file) =>
    addPhoto({ name: file.name || "Pasted image", file, local: URL.createObjectURL(file) }),
  );
  if (added.length === 0) return;
  show(added[0]);
  for (const photo of added) enqueue(photo);
}

/** @param {Photo} photo */
function enqueue(photo) {
  uploads = uploads.then(() => load(photo));
}

/** Show the image whose digest is the fragment of the page's URL, so that a reload shows the same image. */
function openFragment() {
  const digest = location.hash.slice(1);
  if (!DIGEST.test(digest) || visit.shown?.document?.digest === digest) return;
  openDigest(digest, digest);
}

/**
 * @param {string} digest
 * @param {string} name
 */
function openDigest(digest, name) {
  const photo = visit.photos.find((other) => other.document?.digest === digest) ?? addPhoto({ name, digest });
  show(photo);
  if (photo.state === "waiting") load(photo);
}

/** @param {{name: string, file?: File, local?: string, digest?: string}} given */
function addPhoto(given) {
  const photo = createPhoto(given, cloneTemplate("entry"));
  photo.entry.firstElementChild.addEventListener("click", () => show(photo));
  renderEntry(photo);
  visit.photos.push(photo);
  part("entries").append(photo.entry);
  return photo;
}

/**
 * Upload a photo, or read the document of one that the server has. Never rejects.
 * @param {Photo} photo
 */
async function load(photo) {
  Object.assign(photo, { state: "loading", sent: 0, problem: null });
  refresh(photo);
  const result = photo.file
    ? await upload(photo.file, (sent) => updateUploadProgress(photo, sent))
    : await readDocument(photo.digest);
  photo.status = result.status;
  if (result.document) {
    Object.assign(photo, { state: "ready", document: result.document, etag: result.etag });
    if (!photo.file && result.document.alt) photo.name = result.document.alt;
    applyMarkup(photo, result.document, {});
    for (const { entry, local } of removeDuplicatesOf(photo)) {
      entry.remove();
      if (local) URL.revokeObjectURL(local);
    }
    announce(`${photo.name} is stored. Measuring ${photo.ladder.length} renditions.`);
  } else {
    Object.assign(photo, { state: "refused", problem: result.problem });
  }
  refresh(photo);
}

/** @param {Photo} photo */
function show(photo) {
  visit.shown = photo;
  const isFirst = !part("invite").hidden;
  part("invite").hidden = true;
  part("sheet").hidden = false;
  refresh(photo);
  if (isFirst) part("bench").focus();
  photo.entry.scrollIntoView({ block: "nearest", inline: "nearest" });
}

/** @param {Photo} photo */
function refresh(photo) {
  renderEntry(photo);
  if (photo !== visit.shown) return;
  for (const { entry } of visit.photos)
    entry.firstElementChild.setAttribute("aria-current", String(entry === photo.entry));
  const bench = part("bench");
  const hadFocus = bench.contains(document.activeElement);
  controls = null;
  bench.replaceChildren(viewOf(photo));
  // The focused element is gone: the keyboard continues from here and not from the top of the page.
  if (hadFocus) bench.focus({ preventScroll: true });
  if (photo.state !== "ready") return;
  history.replaceState(null, "", `#${photo.document.digest}`);
  photo.selected ??= initialSelection(photo, part("frame").clientWidth * devicePixelRatio);
  wireControls(photo);
  renderMarkup(photo);
}

/** @param {Photo} photo */
function viewOf(photo) {
  if (photo.state === "ready") return wiredView(photo);
  return photo.state === "refused" ? refusedView(photo) : loadingView(photo);
}

/** @param {Photo} photo */
function refusedView(photo) {
  const { status, problem } = photo;
  const mayPass = status === 0 || status === 408 || status >= 500;
  const onRetry = mayPass ? () => load(photo) : null;
  // One place to enter a token is enough.
  if (needsToken(status)) hideRecent();
  return element(
    "article",
    { className: "card refused" },
    element("p", { className: "quiet", textContent: photo.name }),
    problemView({ status, problem }, { onRetry, onToken: tokenChanged }),
  );
}

/** @param {Photo} photo */
function wiredView(photo) {
  const view = readyView(photo);
  part("sizes", view).addEventListener("input", ({ target }) => {
    photo.sizes = target.value.trim() || DEFAULT_SIZES;
    requestUrlsSoon(photo);
  });
  part("priority", view).addEventListener("change", ({ target }) => {
    photo.priority = target.checked;
    requestUrlsSoon(photo);
  });
  part("narrow", view).addEventListener("change", ({ target }) => {
    photo.narrow = target.value;
    requestUrlsSoon(photo);
  });
  wireDivider(view);
  wireTabs(view);
  wireFocalPoint(photo, view, {
    onChanged: (result) => documentChanged(photo, result),
    onProblem: (result, retry) => part("subject-problem").replaceChildren(retryableProblem(result, retry)),
  });
  return view;
}

/**
 * A problem whose request is sent again on demand, or with another token.
 * @param {import("./api.js").Result} result
 * @param {(() => void) | null} retry
 */
function retryableProblem(result, retry) {
  const onToken = () => {
    renderCurl();
    retry?.();
    tokenChanged();
  };
  return problemView(result, { onRetry: retry, onToken });
}

/** With another token every photo that was refused for want of one is loaded again. */
function tokenChanged() {
  renderCurl();
  for (const photo of visit.photos) {
    if (!needsToken(photo.status)) continue;
    photo.status = null;
    enqueue(photo);
  }
  loadRecent();
}

// ---- The transform

/** @param {Photo} photo */
async function wireControls(photo) {
  const panel = part("controls");
  schema ??= await readTransformSchema();
  if (!panel.isConnected) return;
  if (!schema.document) {
    const retry = () => {
      schema = null;
      wireControls(photo);
    };
    panel.replaceChildren(retryableProblem(schema, retry));
    return;
  }
  controls = buildControls(panel, schema.document, photo.transform, (transform) => {
    photo.transform = transform;
    requestUrlsSoon(photo);
  });
  const ready = visit.photos.filter(({ state }) => state === "ready");
  part("known-digests").replaceChildren(
    ...ready.map(({ document: { digest }, name }) => element("option", { value: digest, label: name })),
  );
}

const requestUrlsSoon = debounce(requestUrls, PAUSE_MILLISECONDS);

/** @param {Photo} photo */
async function requestUrls(photo) {
  urlsRequest.abort();
  urlsRequest = new AbortController();
  part("transform")?.classList.add("busy");
  const { transform } = photo;
  const result = await createUrls(photo.document.digest, urlsRequestOf(photo), urlsRequest.signal);
  if (result.status === -1) return;
  if (result.document) {
    measuring.cancel();
    applyMarkup(photo, result.document, transform);
  }
  if (photo !== visit.shown || photo.state !== "ready") return;
  part("transform").classList.remove("busy");
  const { problem } = result;
  controls?.markInvalid(problem ? [problem.detail, problem.remedy].join(" ") : "");
  if (!problem) {
    part("transform-problem").replaceChildren();
    renderMarkup(photo);
    return;
  }
  const mayPass = needsToken(result.status) || result.status === 0;
  part("transform-problem").replaceChildren(retryableProblem(result, mayPass ? () => requestUrls(photo) : null));
  announce(`${problem.title}. ${problem.detail} ${problem.remedy ?? ""}`);
}

/**
 * The focal point or the alt text has changed: the document is another one, and so are the URLs that follow it.
 * @param {Photo} photo
 * @param {import("./api.js").Result} result
 */
function documentChanged(photo, result) {
  Object.assign(photo, { document: result.document, etag: result.etag });
  requestUrls(photo);
}

/**
 * Render everything that follows from the URLs of a photo.
 * @param {Photo} photo
 */
function renderMarkup(photo) {
  renderLadder(photo, part("bench"), select);
  part("compared").textContent =
    `Percentages compare with the original’s ${readableBytes(photo.document.bytes)}. Select a rendition to view it.`;
  renderSnippets(photo, urlsRequestOf(photo));
  select(photo, photo.selected);
}

// ---- The preview

/**
 * @param {Photo} photo
 * @param {Rendition} rendition
 */
function select(photo, rendition) {
  photo.selected = rendition;
  rendition.step.querySelector("input").checked = true;
  if (rendition.state === "failed") Object.assign(rendition, { state: "waiting", retries: 0 });
  sizeFrame(photo, rendition);
  updateStep(photo, rendition);
  updateProgress(photo);
  part("measure-all").hidden = photo.measuresAll;
  updatePreview(photo);
  measuring.fill();
}

/** @param {Photo} photo */
async function updatePreview(photo) {
  const rendition = photo.selected;
  const isCurrent = () => photo === visit.shown && photo.selected === rendition;
  renderCaption(photo, rendition);
  renderFormats(photo, rendition);
  if (rendition.state !== "measured" || rendition.isUndecodable) return;
  if (await showRendition(photo, rendition)) {
    if (isCurrent()) showOriginal(photo, rendition);
  } else {
    rendition.isUndecodable = true;
    if (isCurrent()) renderCaption(photo, rendition);
  }
}

// ---- Actions of the reader

async function reload() {
  const { selected } = visit.shown;
  if (selected.state === "loading") return;
  selected.retries = 0;
  await measuring.measure(selected, "reload");
}

function measureAll() {
  visit.shown.measuresAll = true;
  part("measure-all").hidden = true;
  measuring.fill();
}

/** A crop makes the focal point visible. */
function previewSquare() {
  const { width, height } = visit.shown.document;
  const side = Math.min(600, width, height);
  controls?.set({ width: side, height: side, fit: "cover" });
  part("frame").scrollIntoView({ block: "nearest" });
}

function renderCurl() {
  const authorization = token() ? '-H "Authorization: Bearer $TOKEN" ' : "";
  part("curl").textContent = `curl ${authorization}--data-binary @photo.jpg ${location.origin}/v1/images`;
}

// ---- Recent images

const openRecent = ({ digest, alt }) => openDigest(digest, alt || digest);

function recentDenied(result) {
  // The photo that is shown asks for a token itself.
  if (visit.shown) return;
  part("recent").hidden = false;
  part("recent-problem").replaceChildren(problemView(result, { onToken: tokenChanged }));
}

function hideRecent() {
  part("recent").hidden = true;
  part("recent-problem").replaceChildren();
}

const loadRecent = () => showRecent(openRecent, recentDenied);

// ---- Events

const ACTIONS = {
  browse: () => part("chooser").click(),
  reload,
  replay: replayLoading,
  "measure-all": measureAll,
  reset: () => controls?.reset(),
  square: previewSquare,
  "more-recent": () => showMore(openRecent, recentDenied),
};

document.addEventListener("click", ({ target }) => {
  const button = target instanceof Element ? target.closest("button") : null;
  if (button?.dataset.action) ACTIONS[button.dataset.action]();
  else if (button?.dataset.copies) copyText(button);
});

part("chooser").addEventListener("change", ({ target }) => {
  addFiles(target.files);
  // So that the same file can be chosen again.
  target.value = "";
});

document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length === 0) return;
  event.preventDefault();
  addFiles(event.clipboardData.files);
});

document.addEventListener("dragover", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = "copy";
  part("landing").hidden = false;
});

document.addEventListener("dragleave", ({ relatedTarget }) => {
  if (!relatedTarget) part("landing").hidden = true;
});

document.addEventListener("drop", (event) => {
  part("landing").hidden = true;
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  addFiles(event.dataTransfer.files);
});

addEventListener("hashchange", openFragment);

performance.setResourceTimingBufferSize(5000);
renderCurl();
openFragment();
loadRecent();
