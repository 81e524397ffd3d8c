// The playground: photos go to POST /v1/images, transforms to POST …/urls, and what the server answers is shown.
//
// Nothing on the page is guessed: every URL is the server's, sizes are the bytes that came, times are this browser's own.

import { arrive, caption, develop, setBefore, shapeFrame, wireDivider } from "./compare.js";
import { buildControls } from "./controls.js";
import { fillLadder, ladderOf, Measuring, tellLadder, tellRendition } from "./ladder.js";
import { announce, copy, copyOf, describe, node, part, paused } from "./page.js";
import { showMore, showRecent } from "./recent.js";
import { here, keepToken, mint, readDocument, readOptions, token, upload, wantsToken } from "./server.js";
import { fillSnippets, wireTabs } from "./snippets.js";
import { wireSubject } from "./subject.js";
import { counted, dimensions, formatName, percentChange, pixels, readableBytes } from "./words.js";

// The preview starts no wider than this, however dense the screen: it should be there soon.
const FIRST_PREVIEW_PIXELS = 1280;

// A reader who drags a control has paused when nothing came for so long.
const PAUSE_MILLISECONDS = 250;

const DIGEST = /^[a-z2-7]{32}$/;
const DEFAULT_SIZES = "100vw";

/** The photos of this visit, in the order given; the one on the bench; the uploads still to come, one after another. */
let photos = [];
let shown = null;
let uploads = Promise.resolve();
let options = null;
let controls = null;
let asking = new AbortController();
let problemsShown = 0;

const measuring = new Measuring(nextToMeasure, (rendition) => {
  const photo = photos.find(({ ladder }) => ladder.includes(rendition));
  if (!photo) return;
  tellRendition(photo, rendition);
  fillEntry(photo);
  if (photo !== shown || photo.state !== "here") return;
  tellLadder(photo);
  preview(photo);
  if (photo.ladder.every(({ state }) => state === "measured" || state === "failed")) announce(part("measured").textContent);
});

// ---- Photos

/** Put files on the sheet, show the first and upload all, one after another. */
function take(files) {
  const added = Array.from(files, (file) => newPhoto({ name: file.name || "Pasted image", file, local: URL.createObjectURL(file) }));
  if (added.length === 0) return;
  show(added[0]);
  for (const photo of added) uploads = uploads.then(() => ask(photo));
}

/** Show the image whose digest stands behind the # of the address, so that a reload keeps what is on the bench. */
function openAddress() {
  const digest = location.hash.slice(1);
  if (!DIGEST.test(digest) || shown?.document?.digest === digest) return;
  openDigest(digest, digest);
}

function openDigest(digest, name) {
  const photo = photos.find((other) => other.document?.digest === digest) ?? newPhoto({ name, digest });
  show(photo);
  if (photo.state === "waiting") ask(photo);
}

function newPhoto(given) {
  const photo = { ...given, state: "waiting", sent: 0, transform: {}, sizes: DEFAULT_SIZES, ladder: [], chosen: null, entry: copyOf("entry") };
  photo.entry.firstElementChild.addEventListener("click", () => show(photo));
  fillEntry(photo);
  photos.push(photo);
  part("entries").append(photo.entry);
  return photo;
}

/** Ask the server about a photo: upload it, or read the document of one that is there. Never rejects. */
async function ask(photo) {
  Object.assign(photo, { state: "asking", sent: 0, problem: null });
  refresh(photo);
  const answer = photo.file ? await upload(photo.file, (sent) => tellProgress(photo, sent)) : await readDocument(photo.digest);
  photo.status = answer.status;
  if (answer.document) {
    Object.assign(photo, { state: "here", document: answer.document, etag: answer.etag });
    if (!photo.file && answer.document.alt) photo.name = answer.document.alt;
    takeMarkup(photo, answer.document, {});
    forgetOthersOf(photo);
    announce(`${photo.name} is stored. Measuring ${photo.ladder.length} renditions.`);
  } else {
    Object.assign(photo, { state: "refused", problem: answer.problem });
  }
  refresh(photo);
}

/** Take the URLs that the server made for a transform; the rendition that is looked at stays the same format, as near in width as there is. */
function takeMarkup(photo, markup, transform) {
  const { chosen } = photo;
  // What was measured under a URL is still true of it.
  const measured = new Map(photo.ladder.filter(({ state }) => state === "measured").map((rendition) => [rendition.url, rendition]));
  const ladder = ladderOf(markup.sources).map((rendition) => measured.get(rendition.url) ?? rendition);
  Object.assign(photo, { markup, answer: markup, made: transform, ladder, measuresAll: Object.keys(transform).length === 0 });
  if (!chosen) return;
  const alike = photo.ladder.filter(({ type }) => type === chosen.type);
  const distance = ({ width }) => Math.abs(width - chosen.width);
  photo.chosen = (alike.length ? alike : photo.ladder).reduce((nearest, other) => (distance(other) < distance(nearest) ? other : nearest));
}

/** The same bytes are one image: the newest entry stands for all. */
function forgetOthersOf(photo) {
  for (const other of photos) {
    if (other === photo || other.document?.digest !== photo.document.digest) continue;
    other.entry.remove();
    if (other.local) URL.revokeObjectURL(other.local);
    photos = photos.filter((kept) => kept !== other);
  }
}

function show(photo) {
  shown = photo;
  const first = !part("invite").hidden;
  part("invite").hidden = true;
  part("sheet").hidden = false;
  refresh(photo);
  if (first) part("bench").focus();
  photo.entry.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function refresh(photo) {
  fillEntry(photo);
  if (photo !== shown) return;
  for (const other of photos) other.entry.firstElementChild.setAttribute("aria-current", String(other === shown));
  const bench = part("bench");
  const hadFocus = bench.contains(document.activeElement);
  controls = null;
  bench.replaceChildren({ waiting: askingView, asking: askingView, refused: refusedView, here: hereView }[photo.state](photo));
  // What had the focus is gone; the keyboard goes on from here and not from the top of the page.
  if (hadFocus) bench.focus({ preventScroll: true });
  if (photo.state !== "here") return;
  history.replaceState(null, "", `#${photo.document.digest}`);
  photo.chosen ??= firstChoice(photo);
  wireControls(photo);
  tellMarkup(photo);
}

function fillEntry(photo) {
  const button = photo.entry.firstElementChild;
  button.dataset.state = photo.state;
  part("name", button).textContent = photo.name;
  if (photo.state !== "here") return;
  const { placeholder } = photo.document;
  const [smallest] = photo.ladder;
  if (smallest.state === "measured" && photo.markup === photo.document) photo.small = here(smallest.url);
  const layers = [...(photo.small ? [photo.small] : []), placeholder.data_url];
  const small = part("small", button);
  small.style.backgroundColor = placeholder.color;
  small.style.backgroundImage = layers.map((url) => `url("${url}")`).join(", ");
}

// ---- The bench

function askingView(photo) {
  const view = copyOf("asking");
  part("name", view).textContent = photo.name;
  tellProgress(photo, photo.sent, view);
  return view;
}

function tellProgress(photo, sent, view = part("bench")) {
  photo.sent = sent;
  if (photo !== shown || !part("progress", view)) return;
  const size = photo.file ? readableBytes(photo.file.size) : "";
  // Sent is not stored: the server still looks at the picture. Without a value the bar says "under way".
  if (!photo.file || sent === 1) part("progress", view).removeAttribute("value");
  else part("progress", view).value = sent;
  part("doing", view).textContent = !photo.file ? "Reading its document" : sent === 1 ? `${size} sent; the server looks at it` : `Uploading ${size}`;
}

function refusedView(photo) {
  const view = node("article", { className: "card refused" }, node("p", { className: "quiet", textContent: photo.name }));
  const mayPass = photo.status === 0 || photo.status === 408 || photo.status >= 500;
  view.append(problemView(photo, mayPass && (() => ask(photo)), null));
  // One place to type a token is enough.
  if (wantsToken(photo.status)) hideRecent();
  return view;
}

/** What a problem says: title, detail, what was expected, came, and is to be done; a form where another token may help. */
function problemView({ status, problem }, retry, withToken = retry) {
  const view = copyOf("problem");
  part("title", view).textContent = problem.title;
  part("detail", view).textContent = problem.detail ?? "";
  const particulars = { Expected: problem.expected, Received: problem.received, "What to do": problem.remedy };
  part("particulars", view).append(...describe(Object.entries(particulars).filter(([, text]) => text)));
  const page = part("problem-page", view);
  page.hidden = !problem.type?.startsWith("/problems/");
  if (!page.hidden) page.href = problem.type;
  const form = part("token-form", view);
  form.hidden = !wantsToken(status);
  const [label, input] = [form.querySelector("label"), form.querySelector("input")];
  label.htmlFor = input.id = `token-${(problemsShown += 1)}`;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    keepToken(input.value);
    tellCurl();
    withToken?.();
    tokenChanged();
  });
  part("retry", view).hidden = !retry || wantsToken(status);
  part("retry", view).addEventListener("click", () => retry());
  return view;
}

/** With another token every photo that was refused for want of one is asked for again. */
function tokenChanged() {
  for (const photo of photos) {
    if (!wantsToken(photo.status)) continue;
    photo.status = null;
    uploads = uploads.then(() => ask(photo));
  }
  recent();
}

function hereView(photo) {
  const view = copyOf("here");
  part("name", view).textContent = photo.name;
  part("facts", view).append(...describe(factsOf(photo)));
  part("placeholder", view).src = photo.document.placeholder.data_url;
  part("relative", view).hidden = !photo.document.src.startsWith("/");
  part("relative", view).textContent =
    `These URLs are relative: they work on pages of ${location.origin}. Set DARKROOM_PUBLIC_URL on the server for URLs that work everywhere.`;
  part("sizes", view).value = photo.sizes;
  part("sizes", view).addEventListener("input", ({ target }) => {
    photo.sizes = target.value.trim() || DEFAULT_SIZES;
    askForUrls(photo);
  });
  wireDivider(view);
  wireTabs(view);
  wireSubject(photo, view, {
    changed: (answer) => takeChanged(photo, answer),
    refused: (answer, retry) => part("subject-problem").replaceChildren(problemView(answer, retry)),
  });
  return view;
}

function factsOf({ document: facts, file, status }) {
  const { placeholder } = facts;
  const inline = node("img", {
    className: "tiny",
    alt: `Placeholder of ${placeholder.data_url.length} characters`,
    title: `Placeholder of ${placeholder.data_url.length} characters; ThumbHash ${placeholder.thumbhash}`,
    src: placeholder.data_url,
  });
  return [
    ["Format", formatName(facts.format) + (facts.frames > 1 ? `, ${counted(facts.frames)} frames` : "")],
    ["Pixels", `${dimensions(facts)} (${pixels(facts)})`],
    ["Original", readableBytes(facts.bytes)],
    ["Digest", [node("code", { textContent: `${facts.digest.slice(0, 8)}…`, title: facts.digest }), file && status === 200 ? " was here already" : ""]],
    ["Placeholder", [inline, ...[...new Set([placeholder.color, ...placeholder.palette])].map(swatch)]],
  ];
}

function swatch(colour) {
  const spot = node("span", { className: "swatch", title: colour, role: "img", "aria-label": colour });
  spot.style.backgroundColor = colour;
  return spot;
}

// ---- What is asked of it

async function wireControls(photo) {
  const panel = part("controls");
  options ??= await readOptions();
  if (!panel.isConnected) return;
  if (!options.document) {
    const again = () => {
      options = null;
      wireControls(photo);
    };
    panel.replaceChildren(problemView(options, again));
    return;
  }
  controls = buildControls(panel, options.document, photo.transform, (transform) => {
    photo.transform = transform;
    askForUrls(photo);
  });
  part("known-digests").replaceChildren(...photos.filter(({ state }) => state === "here").map(({ document: facts, name }) => node("option", { value: facts.digest, label: name })));
}

const askForUrls = paused(mintUrls, PAUSE_MILLISECONDS);

/** Everything that is said in a request for URLs. */
function wantedOf({ transform, sizes }) {
  return { ...(Object.keys(transform).length && { transform }), ...(sizes !== DEFAULT_SIZES && { sizes }) };
}

async function mintUrls(photo) {
  asking.abort();
  asking = new AbortController();
  part("asking-urls")?.classList.add("busy");
  const { transform } = photo;
  const answer = await mint(photo.document.digest, wantedOf(photo), asking.signal);
  if (answer.status === -1) return;
  if (answer.document) {
    measuring.stop();
    takeMarkup(photo, answer.document, transform);
  }
  if (photo !== shown || photo.state !== "here") return;
  part("asking-urls").classList.remove("busy");
  part("transform-problem").replaceChildren(...(answer.problem ? [problemView(answer, wantsToken(answer.status) || answer.status === 0 ? () => mintUrls(photo) : null)] : []));
  const { title, detail, remedy } = answer.problem ?? {};
  controls?.complain([detail, remedy].join(" "));
  if (answer.problem) announce(`${title}. ${detail} ${remedy ?? ""}`);
  else tellMarkup(photo);
}

/** The focal point or the text of a photo has changed: its document is another one, and so are the URLs that follow it. */
function takeChanged(photo, answer) {
  Object.assign(photo, { document: answer.document, etag: answer.etag });
  mintUrls(photo);
}

/** Show everything that follows from the URLs of a photo. */
function tellMarkup(photo) {
  fillLadder(photo, part("bench"), choose);
  part("compared").textContent = `Compared with the original’s ${readableBytes(photo.document.bytes)}. Choose one to see it.`;
  fillSnippets(photo, wantedOf(photo));
  choose(photo, photo.chosen);
}

// ---- The preview

/** The narrowest step that fills the preview's box sharply, in the format that the document prefers. */
function firstChoice({ markup, ladder }) {
  const box = part("frame").clientWidth * devicePixelRatio;
  const preferred = ladder.filter(({ type }) => type === markup.sources[0].type);
  return preferred.find(({ width }) => width >= Math.min(box, FIRST_PREVIEW_PIXELS)) ?? preferred.at(-1);
}

function choose(photo, rendition) {
  photo.chosen = rendition;
  rendition.step.querySelector("input").checked = true;
  if (rendition.state === "failed") Object.assign(rendition, { state: "waiting", timesAsked: 0 });
  shapeFrame(photo, rendition);
  tellRendition(photo, rendition);
  tellLadder(photo);
  part("measure-all").hidden = photo.measuresAll;
  preview(photo);
  measuring.keepOn();
}

/** The chosen one first, then its width in the other formats, then the rest: of a transform being tried, only if the reader asks. */
function nextToMeasure() {
  if (shown?.state !== "here" || !shown.chosen) return null;
  const { chosen, ladder, measuresAll } = shown;
  const waiting = ladder.filter(({ state }) => state === "waiting");
  return (
    waiting.find((rendition) => rendition === chosen) ??
    waiting.find(({ width }) => width === chosen.width) ??
    (measuresAll ? waiting[0] : null)
  );
}

async function preview(photo) {
  const rendition = photo.chosen;
  caption(photo, rendition);
  tellFormats(photo, rendition);
  if (rendition.state !== "measured" || rendition.unseen) return;
  if (!(await develop(photo, rendition))) {
    rendition.unseen = true;
    if (photo === shown && photo.chosen === rendition) caption(photo, rendition);
    return;
  }
  if (photo === shown && photo.chosen === rendition) setBefore(photo, rendition);
}

/** The formats side by side at the chosen width: how large each is, and what it saves. */
function tellFormats(photo, { width }) {
  const alike = photo.ladder.filter((other) => other.width === width);
  const fallback = alike.at(-1);
  const largest = Math.max(...alike.map(({ bytes }) => bytes ?? 0)) || 1;
  part("format-bars").replaceChildren(
    ...alike.map((rendition) => {
      const bar = node("span", { className: "bar" });
      bar.style.setProperty("--share", (rendition.bytes ?? 0) / largest);
      const change = rendition.bytes && fallback.bytes && rendition !== fallback ? percentChange(rendition.bytes, fallback.bytes) : 0;
      const saved = change ? `${Math.abs(change)}% ${change < 0 ? "saved" : "more"}` : "";
      return node(
        "li",
        { className: rendition === photo.chosen ? "chosen" : "" },
        node("span", { textContent: formatName(rendition.type) }),
        bar,
        node("b", { textContent: rendition.bytes ? readableBytes(rendition.bytes) : rendition.state === "failed" ? "failed" : "…" }),
        node("span", { className: "quiet", textContent: saved }),
      );
    }),
  );
}

// ---- What the reader does

async function askAgain() {
  const { chosen } = shown;
  if (chosen.state === "asked") return;
  chosen.timesAsked = 0;
  await measuring.measure(chosen, "reload");
}

function measureAll() {
  shown.measuresAll = true;
  part("measure-all").hidden = true;
  measuring.keepOn();
}

/** A crop makes the focal point visible. */
function trySquare() {
  const side = Math.min(600, shown.document.width, shown.document.height);
  controls?.set({ width: side, height: side, fit: "cover" });
  part("frame").scrollIntoView({ block: "nearest" });
}

function tellCurl() {
  const authorization = token() ? '-H "Authorization: Bearer $TOKEN" ' : "";
  part("curl").textContent = `curl ${authorization}--data-binary @photo.jpg ${location.origin}/v1/images`;
}

const openRecent = (facts) => openDigest(facts.digest, facts.alt || facts.digest);

function refuseRecent(answer) {
  // What is on the bench asks for a token itself.
  if (shown) return;
  part("recent").hidden = false;
  part("recent-problem").replaceChildren(problemView(answer, null));
}

function hideRecent() {
  part("recent").hidden = true;
  part("recent-problem").replaceChildren();
}

const recent = () => showRecent(openRecent, refuseRecent);

const DOES = {
  choose: () => part("chooser").click(),
  again: askAgain,
  arrive,
  "measure-all": measureAll,
  reset: () => controls?.reset(),
  square: trySquare,
  "more-recent": () => showMore(openRecent, refuseRecent),
};

document.addEventListener("click", ({ target }) => {
  const button = target.closest("button");
  if (button?.dataset.does) DOES[button.dataset.does](button);
  else if (button?.dataset.copies) copy(button);
});

part("chooser").addEventListener("change", ({ target }) => {
  take(target.files);
  // So that the same file can be chosen once more.
  target.value = "";
});

document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length === 0) return;
  event.preventDefault();
  take(event.clipboardData.files);
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
  take(event.dataTransfer.files);
});

addEventListener("hashchange", openAddress);

performance.setResourceTimingBufferSize(5000);
tellCurl();
openAddress();
recent();
