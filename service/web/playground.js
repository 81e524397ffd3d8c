// The playground: photos go to POST /v1/images, and what the server answers is shown.
//
// Nodes are cloned from the page's templates and filled with textContent: what a server or a file name says is never read as HTML.
// Sizes are the bytes that came, times are this browser's own; nothing on the page is guessed.

// A large AVIF costs a small machine a second of one core: with two on their way the server still has time for others.
const MEASURED_AT_A_TIME = 2;

// A busy server says when to ask again (503 with Retry-After); after this many times the reader decides.
const TIMES_ASKED_AGAIN = 3;

// The preview starts no wider than this, however dense the screen: it should be there soon.
const FIRST_PREVIEW_PIXELS = 1280;

const TOKEN = "darkroom-token";
const DIGEST = /^[a-z2-7]{32}$/;

const part = (name, root = document) => root.querySelector(`[data-part="${name}"]`);
const copyOf = (template) => document.getElementById(template).content.firstElementChild.cloneNode(true);

/** The photos of this visit, in the order given; the one on the bench; the uploads still to come, one after another. */
let photos = [];
let shown = null;
let uploads = Promise.resolve();
let beingMeasured = 0;

// ---- Words and numbers

const count = new Intl.NumberFormat("en");
const megapixels = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

function readableBytes(bytes) {
  const [unit, divisor] = bytes < 1000 ? ["byte", 1] : bytes < 999_500 ? ["kilobyte", 1e3] : ["megabyte", 1e6];
  return new Intl.NumberFormat("en", { style: "unit", unit, maximumSignificantDigits: 3 }).format(bytes / divisor);
}

/** The change from `before` to `after` in percent, cut and not rounded: a rendition of 0.3 % must not read as −100 %. */
function percentChange(after, before) {
  const percent = (after / before - 1) * 100;
  return percent < -99 ? Math.trunc(percent * 10) / 10 : Math.trunc(percent);
}

function signedPercent(percent) {
  return `${percent < 0 ? "−" : percent > 0 ? "+" : ""}${count.format(Math.abs(percent))}%`;
}

function smaller(after, before, thing) {
  const percent = percentChange(after, before);
  if (percent === 0) return `as large as ${thing}`;
  return `${count.format(Math.abs(percent))}% ${percent < 0 ? "smaller" : "larger"} than ${thing}`;
}

function readableTime(milliseconds) {
  return milliseconds < 1000 ? `${Math.max(1, Math.round(milliseconds))} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

const formatName = (type) => type.replace("image/", "").toUpperCase().replace("WEBP", "WebP");
const dimensions = ({ width, height }) => `${count.format(width)} × ${count.format(height)}`;

function announce(text) {
  part("status").textContent = text;
}

// ---- Asking the server

const token = () => sessionStorage.getItem(TOKEN);

/** What every answer to a question about a photo becomes: its document, or the problem in its place. */
function answerOf(status, text) {
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {
    // A proxy on the way may answer in words of its own.
  }
  if (status >= 200 && status < 300 && body) return { status, document: body };
  return { status, problem: body?.title ? body : { title: `The server answered ${status}`, detail: "Its answer does not say why.", status } };
}

const UNREACHABLE = {
  status: 0,
  problem: {
    title: "No answer",
    detail: "The server could not be reached, the connection ended early, or the file could not be read.",
    remedy: "See that the server runs and that the file is still there, then try again.",
  },
};

/** Send a file as it is and resolve with the answer. XMLHttpRequest, because fetch tells nothing of an upload's progress. */
function upload(file, onProgress) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/v1/images");
    // The server looks at the bytes. The file's own type could make it read a dropped .json as a request.
    request.setRequestHeader("Content-Type", "application/octet-stream");
    if (token()) request.setRequestHeader("Authorization", `Bearer ${token()}`);
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = () => resolve(answerOf(request.status, request.responseText));
    request.onerror = () => resolve(UNREACHABLE);
    request.send(file);
  });
}

async function readDocument(digest) {
  try {
    const answer = await fetch(`/v1/images/${digest}`, { headers: token() ? { Authorization: `Bearer ${token()}` } : {} });
    return answerOf(answer.status, await answer.text());
  } catch {
    return UNREACHABLE;
  }
}

// ---- Photos

/** Put files on the sheet, show the first and upload all, one after another. */
function take(files) {
  const added = Array.from(files, (file) => newPhoto({ name: file.name || "Pasted image", file }));
  if (added.length === 0) return;
  show(added[0]);
  for (const photo of added) uploads = uploads.then(() => ask(photo));
}

/** Show the image whose digest stands behind the # of the address, so that a reload keeps what is on the bench. */
function openAddress() {
  const digest = location.hash.slice(1);
  if (!DIGEST.test(digest) || shown?.document?.digest === digest) return;
  const photo = photos.find((other) => other.document?.digest === digest) ?? newPhoto({ name: digest, digest });
  show(photo);
  if (photo.state === "waiting") ask(photo);
}

function newPhoto(given) {
  const photo = { ...given, state: "waiting", sent: 0, ladder: [], chosen: null, entry: copyOf("entry") };
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
    Object.assign(photo, { state: "here", document: answer.document, ladder: ladderOf(answer.document) });
    forgetOthersOf(photo);
    announce(`${photo.name} is stored. Measuring ${photo.ladder.length} renditions.`);
  } else {
    Object.assign(photo, { state: "refused", problem: answer.problem });
  }
  refresh(photo);
}

/** The same bytes are one image: the newest entry stands for all. */
function forgetOthersOf(photo) {
  for (const other of photos) {
    if (other === photo || other.document?.digest !== photo.document.digest) continue;
    other.entry.remove();
    photos = photos.filter((kept) => kept !== other);
  }
}

/** Every rendition of a document, small widths first and at each width in the document's order of preference. */
function ladderOf(facts) {
  return facts.sources
    .flatMap((source) => source.renditions.map((rendition) => ({ ...rendition, type: source.type, state: "waiting", timesAsked: 0 })))
    .sort((one, other) => one.width - other.width);
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
  bench.replaceChildren({ waiting: askingView, asking: askingView, refused: refusedView, here: hereView }[photo.state](photo));
  // What had the focus is gone; the keyboard goes on from here and not from the top of the page.
  if (hadFocus) bench.focus({ preventScroll: true });
  if (photo.state !== "here") return;
  history.replaceState(null, "", `#${photo.document.digest}`);
  photo.chosen ??= firstChoice(photo);
  choose(photo, photo.chosen);
}

function fillEntry(photo) {
  const button = photo.entry.firstElementChild;
  button.dataset.state = photo.state;
  part("name", button).textContent = photo.name;
  if (photo.state !== "here") return;
  const { placeholder } = photo.document;
  const [smallest] = photo.ladder;
  const layers = [...(smallest.state === "measured" ? [here(smallest.url)] : []), placeholder.data_url];
  const small = part("small", button);
  small.style.backgroundColor = placeholder.color;
  small.style.backgroundImage = layers.map((url) => `url("${url}")`).join(", ");
}

/** Where this server answers the URL of a rendition: the document may name another host that stands in front of it. */
function here(url) {
  const { pathname } = new URL(url, location.origin);
  return pathname.slice(pathname.indexOf("/i/"));
}

// ---- Measuring

/** Have as many renditions of the shown photo on their way as may be, the chosen one first. */
function keepMeasuring() {
  while (beingMeasured < MEASURED_AT_A_TIME) {
    const photo = shown;
    const next = photo?.chosen?.state === "waiting" ? photo.chosen : photo?.ladder.find(({ state }) => state === "waiting");
    if (!next) return;
    beingMeasured += 1;
    measure(photo, next).finally(() => {
      beingMeasured -= 1;
      keepMeasuring();
    });
  }
}

/** Fetch a rendition and note what came. `cache` is fetch's: "reload" goes past the browser's own copy. */
async function measure(photo, rendition, cache = "default") {
  if (rendition.state !== "measured") rendition.state = "asked";
  tellRendition(photo, rendition);
  const url = here(rendition.url);
  const started = performance.now();
  try {
    const answer = await fetch(url, { cache });
    if (answer.status === 503 && answer.headers.has("Retry-After") && rendition.timesAsked < TIMES_ASKED_AGAIN) {
      rendition.timesAsked += 1;
      await new Promise((resume) => setTimeout(resume, Number(answer.headers.get("Retry-After")) * 1000));
      return await measure(photo, rendition, cache);
    }
    if (!answer.ok) {
      Object.assign(rendition, { state: "failed", problem: answerOf(answer.status, await answer.text()).problem });
    } else {
      const body = await answer.arrayBuffer();
      const milliseconds = performance.now() - started;
      Object.assign(rendition, { state: "measured", bytes: body.byteLength, milliseconds, ...(await answerer(url, answer.headers)) });
    }
  } catch {
    Object.assign(rendition, { state: "failed", problem: UNREACHABLE.problem });
  }
  tellRendition(photo, rendition);
  tellLadder(photo);
  fillEntry(photo);
  if (photo === shown && photo.ladder.every(({ state }) => state === "measured" || state === "failed")) announce(part("measured").textContent);
}

/** Who answered: this browser's cache, the server's memory, its store, or a render; how fast; `cacheStatus` as the server said it. */
async function answerer(url, headers) {
  // The browser writes its entry in a task of its own, after the body's last byte.
  await new Promise((resume) => setTimeout(resume));
  const entry = performance.getEntriesByName(location.origin + url, "resource").at(-1);
  // The time between question and answer, without this page's own waiting for its turn.
  const timed = entry && { milliseconds: entry.responseEnd - entry.requestStart };
  // A kept answer still carries the headers of the day it was fetched, so this is asked first.
  if (entry?.transferSize === 0 && entry.decodedBodySize > 0) return { ...timed, tier: "browser", cacheStatus: null };
  const cacheStatus = headers.get("Cache-Status") ?? "";
  const [, tier, duration] = /^tier;desc=(render|store);dur=([\d.]+)/.exec(headers.get("Server-Timing") ?? "") ?? [];
  return { ...timed, tier: /;\s*hit\b/.test(cacheStatus) ? "memory" : tier, serverMilliseconds: Number(duration), cacheStatus };
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
  part("doing", view).textContent = !photo.file
    ? "Reading its document"
    : photo.state === "waiting"
      ? `${size}, waiting for the upload before it`
      : sent === 1
        ? `${size} sent; the server is looking at it`
        : `Uploading ${size}`;
}

function refusedView(photo) {
  const { problem } = photo;
  const view = copyOf("refused");
  part("name", view).textContent = photo.name;
  part("title", view).textContent = problem.title;
  part("detail", view).textContent = problem.detail ?? "";
  const particulars = { Expected: problem.expected, Received: problem.received, "What to do": problem.remedy };
  part("particulars", view).append(...describe(Object.entries(particulars).filter(([, text]) => text)));
  const wantsToken = photo.status === 401 || photo.status === 403;
  part("token-form", view).hidden = !wantsToken;
  part("token-form", view).addEventListener("submit", useToken);
  part("retry", view).hidden = !(photo.status === 0 || photo.status === 408 || photo.status >= 500);
  return view;
}

function describe(pairs) {
  return pairs.map(([term, description]) => {
    const [group, dt, dd] = ["div", "dt", "dd"].map((name) => document.createElement(name));
    dt.textContent = term;
    dd.append(...[description].flat());
    group.append(dt, dd);
    return group;
  });
}

function hereView(photo) {
  const facts = photo.document;
  const view = copyOf("here");
  part("name", view).textContent = photo.name;
  part("facts", view).append(...describe(factsOf(photo)));

  const frame = part("frame", view);
  frame.style.setProperty("--ratio", facts.width / facts.height);
  frame.style.setProperty("--natural", `${facts.width}px`);
  frame.style.setProperty("--colour", facts.placeholder.color);
  part("placeholder", view).src = facts.placeholder.data_url;

  fillLadder(photo, view);
  part("compared", view).textContent = `Compared with the original’s ${readableBytes(facts.bytes)}. Choose one to see it.`;

  part("picture", view).append(...coloured(facts.picture));
  part("src", view).textContent = new URL(facts.src, location.origin).href;
  part("document", view).textContent = JSON.stringify(facts, null, 2);
  part("relative", view).hidden = !facts.src.startsWith("/");
  part("relative", view).textContent =
    `These URLs are relative: they work on pages of ${location.origin}. Set DARKROOM_PUBLIC_URL on the server for URLs that work everywhere.`;
  return view;
}

function factsOf({ document: facts, file, status }) {
  const { placeholder } = facts;
  const digest = document.createElement("code");
  digest.textContent = `${facts.digest.slice(0, 8)}…`;
  digest.title = facts.digest;
  const inline = new Image();
  inline.className = "tiny";
  inline.alt = `Placeholder of ${placeholder.data_url.length} characters`;
  inline.title = inline.alt;
  inline.src = placeholder.data_url;
  return [
    ["Format", formatName(facts.format) + (facts.frames > 1 ? `, ${count.format(facts.frames)} frames` : "")],
    ["Pixels", `${dimensions(facts)} (${megapixels.format((facts.width * facts.height) / 1e6)} MP)`],
    ["Original", readableBytes(facts.bytes)],
    ["Digest", [digest, file && status === 200 ? " was here already" : ""]],
    ["Placeholder", [inline, ...[...new Set([placeholder.color, ...placeholder.palette])].map(swatch)]],
  ];
}

function swatch(colour) {
  const spot = document.createElement("span");
  spot.className = "swatch";
  spot.style.backgroundColor = colour;
  spot.title = colour;
  spot.setAttribute("role", "img");
  spot.setAttribute("aria-label", colour);
  return spot;
}

/** The nodes of HTML source with its tags and values told apart; their text is the source, character for character. */
function coloured(source) {
  return source.split(/(<\/?[a-z]+|"[^"]*")/).map((text) => {
    const kind = text.startsWith("<") ? "tag" : text.startsWith('"') ? "value" : null;
    if (!kind) return document.createTextNode(text);
    const span = document.createElement("span");
    span.className = kind;
    span.textContent = text;
    return span;
  });
}

// ---- The ladder

function fillLadder(photo, view) {
  const types = photo.document.sources.map(({ type }) => type);
  part("formats", view).append(
    ...types.map((type) => {
      const heading = document.createElement("th");
      heading.scope = "col";
      heading.textContent = formatName(type);
      return heading;
    }),
  );
  for (const width of new Set(photo.ladder.map((rendition) => rendition.width))) {
    const row = part("steps", view).insertRow();
    const renditions = types.map((type) => photo.ladder.find((rendition) => rendition.type === type && rendition.width === width));
    const heading = document.createElement("th");
    heading.scope = "row";
    const wide = document.createElement("b");
    wide.textContent = width;
    heading.append(wide, `× ${renditions.find(Boolean).height}`);
    row.append(heading, ...renditions.map((rendition) => (rendition ? stepCell(photo, rendition) : document.createElement("td"))));
  }
}

function stepCell(photo, rendition) {
  const cell = copyOf("step");
  rendition.step = cell.firstElementChild;
  part("called", cell).textContent = `${formatName(rendition.type)}, ${rendition.width} pixels wide: `;
  cell.querySelector("input").addEventListener("change", () => choose(photo, rendition));
  tellRendition(photo, rendition);
  return cell;
}

function tellRendition(photo, rendition) {
  const { step, state } = rendition;
  if (!step) return;
  step.dataset.state = state;
  part("bytes", step).textContent = { waiting: "–", asked: "…", failed: "failed" }[state] ?? readableBytes(rendition.bytes);
  part("saving", step).textContent =
    { waiting: "", asked: "", failed: "choose to retry" }[state] ?? signedPercent(percentChange(rendition.bytes, photo.document.bytes));
}

/** Tell how far the measuring is, how large each rendition is beside the largest, and what is known of the chosen one. */
function tellLadder(photo) {
  if (photo !== shown || photo.state !== "here") return;
  const { ladder } = photo;
  const measured = ladder.filter(({ state }) => state === "measured");
  const failed = ladder.filter(({ state }) => state === "failed");
  const largest = Math.max(...measured.map(({ bytes }) => bytes));
  for (const rendition of measured) rendition.step.style.setProperty("--share", rendition.bytes / largest);
  const done = measured.length + failed.length;
  const bar = part("measuring");
  bar.max = ladder.length;
  bar.value = done;
  bar.classList.toggle("done", done === ladder.length);
  const told = failed.length ? `${measured.length} of ${ladder.length} measured, ${failed.length} failed` : `${done} of ${ladder.length} measured`;
  part("measured").textContent = told;
  preview(photo, photo.chosen);
}

// ---- The preview

/** The narrowest step that fills the preview's box sharply, in the format that the document prefers. */
function firstChoice({ document: facts, ladder }) {
  const box = part("frame").clientWidth * devicePixelRatio;
  const preferred = ladder.filter(({ type }) => type === facts.sources[0].type);
  return preferred.find(({ width }) => width >= Math.min(box, FIRST_PREVIEW_PIXELS)) ?? preferred.at(-1);
}

function choose(photo, rendition) {
  photo.chosen = rendition;
  rendition.step.querySelector("input").checked = true;
  if (rendition.state === "failed") Object.assign(rendition, { state: "waiting", timesAsked: 0 });
  tellRendition(photo, rendition);
  tellLadder(photo);
  keepMeasuring();
}

function preview(photo, rendition) {
  const name = `${formatName(rendition.type)}, ${dimensions(rendition)}`;
  part("open").href = here(rendition.url);
  const caption = part("caption");
  const answered = part("answered");
  const strong = document.createElement("strong");
  strong.textContent = name;
  if (rendition.state === "failed") {
    const { title, detail, remedy } = rendition.problem;
    caption.replaceChildren(strong, `: ${title}.`);
    answered.textContent = [detail, remedy].filter(Boolean).join(" ");
  } else if (rendition.state !== "measured") {
    caption.replaceChildren(strong, " is on its way.");
    answered.textContent = "A rendition is made when it is first asked for, and stored.";
  } else {
    const beside = besideFallback(photo, rendition);
    caption.replaceChildren(strong, `, ${readableBytes(rendition.bytes)}: ${smaller(rendition.bytes, photo.document.bytes, "the original")}${beside}.`);
    if (rendition.unseen) answered.textContent = `This browser cannot show ${formatName(rendition.type)}. Choose another format.`;
    else answered.replaceChildren(...answeredBy(rendition));
    develop(photo, rendition);
  }
}

/** What the format itself saves: against the fallback at the same width, once both are known. */
function besideFallback(photo, rendition) {
  const { type } = photo.document.sources.at(-1);
  const fallback = photo.ladder.find((other) => other.type === type && other.width === rendition.width);
  if (!fallback?.bytes || fallback === rendition) return "";
  return `, ${smaller(rendition.bytes, fallback.bytes, `${formatName(type)} at this width`)}`;
}

function answeredBy({ tier, milliseconds, serverMilliseconds, cacheStatus }) {
  const time = readableTime(milliseconds);
  const told = {
    browser: `From this browser’s cache in ${time}, without asking the server.`,
    memory: `From the server’s memory in ${time}.`,
    store: `From the server’s store in ${time}.`,
    render: `Rendered in ${readableTime(serverMilliseconds)}, here after ${time}.`,
  }[tier] ?? `Answered in ${time}.`;
  if (!cacheStatus) return [told];
  const field = document.createElement("code");
  field.textContent = `Cache-Status: ${cacheStatus}`;
  return [`${told} `, field];
}

/** Put the chosen rendition into the frame once it can be painted, over what is there until then. */
async function develop(photo, rendition) {
  const frame = part("frame");
  const url = here(rendition.url);
  if (frame.dataset.shows === url) return;
  frame.dataset.shows = url;
  const picture = new Image();
  picture.className = "rendition";
  picture.alt = photo.document.alt || photo.name;
  picture.src = url;
  try {
    await picture.decode();
  } catch {
    rendition.unseen = true;
    if (frame.isConnected && frame.dataset.shows === url) preview(photo, rendition);
    return;
  }
  // Another may have been chosen in the meantime.
  if (frame.dataset.shows !== url) return;
  const before = frame.querySelector(".rendition");
  frame.append(picture);
  before?.remove();
  if (!photo.document.alpha) return;
  // What lies under a transparent picture shines through.
  frame.classList.add("see-through");
  part("placeholder", frame).hidden = true;
}

// ---- What the reader does

function useToken(event) {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, event.target.querySelector("input").value.trim());
  tellCurl();
  for (const photo of photos) {
    if (photo.status !== 401 && photo.status !== 403) continue;
    photo.status = null;
    uploads = uploads.then(() => ask(photo));
  }
}

async function askAgain() {
  const { chosen } = shown;
  if (chosen.state === "asked") return;
  chosen.timesAsked = 0;
  await measure(shown, chosen, "reload");
}

async function copy(button) {
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

function tellCurl() {
  const authorization = token() ? '-H "Authorization: Bearer $TOKEN" ' : "";
  part("curl").textContent = `curl ${authorization}--data-binary @photo.jpg ${location.origin}/v1/images`;
}

const DOES = {
  choose: () => part("chooser").click(),
  retry: () => ask(shown),
  again: askAgain,
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
