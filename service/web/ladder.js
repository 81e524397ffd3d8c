// The ladder: every width and format of an image, fetched and measured. Sizes are the bytes that came, times are this browser's own.

import { copyOf, node, part } from "./page.js";
import { fetchRendition, here } from "./server.js";
import { formatName, percentChange, readableBytes, signedPercent } from "./words.js";

// A large AVIF costs a small machine a second of one core: with two on their way the server still has time for others.
const MEASURED_AT_A_TIME = 2;

// A busy server says when to ask again (503 with Retry-After); after this many times the reader decides.
const TIMES_ASKED_AGAIN = 3;

/** Every rendition of a document's or a transform's `sources`, small widths first, at each width in their order of preference. */
export function ladderOf(sources) {
  return sources
    .flatMap((source) => source.renditions.map((rendition) => ({ ...rendition, type: source.type, state: "waiting", timesAsked: 0 })))
    .sort((one, other) => one.width - other.width);
}

export class Measuring {
  #underWay = 0;
  #next;
  #tell;
  #stop = new AbortController();

  /** `next()` gives the rendition to be measured next, if any; `tell(rendition)` is called whenever one has another state. */
  constructor(next, tell) {
    this.#next = next;
    this.#tell = tell;
  }

  /** Have as many renditions on their way as may be. */
  keepOn() {
    while (this.#underWay < MEASURED_AT_A_TIME) {
      const rendition = this.#next();
      if (!rendition) return;
      this.#underWay += 1;
      this.measure(rendition).finally(() => {
        this.#underWay -= 1;
        this.keepOn();
      });
    }
  }

  /** Let go of what is on its way: the server renders nothing more that nobody will look at. */
  stop() {
    this.#stop.abort();
    this.#stop = new AbortController();
  }

  /** Fetch a rendition and note what came. `cache` is fetch's: "reload" goes past the browser's own copy. */
  async measure(rendition, cache = "default") {
    const { signal } = this.#stop;
    if (rendition.state !== "measured") rendition.state = "asked";
    this.#tell(rendition);
    const url = here(rendition.url);
    const started = performance.now();
    const answer = await fetchRendition(url, { cache, signal });
    if (answer.status === -1) {
      if (rendition.state === "asked") rendition.state = "waiting";
      return;
    }
    if (answer.status === 503 && answer.retryAfter && rendition.timesAsked < TIMES_ASKED_AGAIN) {
      rendition.timesAsked += 1;
      await new Promise((resume) => setTimeout(resume, Number(answer.retryAfter) * 1000));
      await this.measure(rendition, cache);
      return;
    }
    if (answer.problem) {
      Object.assign(rendition, { state: "failed", problem: answer.problem });
    } else {
      const milliseconds = performance.now() - started;
      Object.assign(rendition, { state: "measured", bytes: answer.bytes, milliseconds, ...(await answerer(url, answer.headers)) });
    }
    this.#tell(rendition);
  }
}

/** Who answered: this browser's cache, the server's memory, its store, or a render; how fast; `cacheStatus` as the server said it. */
async function answerer(url, headers) {
  // The browser writes its entry in a task of its own, after the body's last byte.
  await new Promise((resume) => setTimeout(resume));
  const entry = performance.getEntriesByName(location.origin + url, "resource").at(-1);
  // The time between question and answer, without this page's own waiting for its turn.
  const timed = entry && { milliseconds: entry.responseEnd - entry.requestStart };
  const told = { cacheStatus: headers.get("Cache-Status") ?? "", age: headers.get("Age"), serverTiming: headers.get("Server-Timing") ?? "" };
  // A kept answer still carries the headers of the day it was fetched, so this is asked first.
  if (entry?.transferSize === 0 && entry.decodedBodySize > 0) return { ...timed, tier: "browser", cacheStatus: "", age: null, serverTiming: "" };
  const [, tier, duration] = /^tier;desc=(render|store);dur=([\d.]+)/.exec(told.serverTiming) ?? [];
  return { ...timed, ...told, tier: /;\s*hit\b/.test(told.cacheStatus) ? "memory" : tier, serverMilliseconds: Number(duration) };
}

// ---- The table

/** Fill the table of `view` with a ladder; `choose(rendition)` is called for the one that the reader takes. */
export function fillLadder(photo, view, choose) {
  const types = photo.markup.sources.map(({ type }) => type);
  part("formats", view).replaceChildren(
    node("th", { scope: "col", textContent: "Width" }),
    ...types.map((type) => node("th", { scope: "col", textContent: formatName(type) })),
  );
  const rows = [...new Set(photo.ladder.map((rendition) => rendition.width))].map((width) => {
    const renditions = types.map((type) => photo.ladder.find((rendition) => rendition.type === type && rendition.width === width));
    const heading = node("th", { scope: "row" }, node("b", { textContent: width }), `× ${renditions.find(Boolean).height}`);
    return node("tr", {}, heading, ...renditions.map((rendition) => (rendition ? stepCell(photo, rendition, choose) : node("td"))));
  });
  part("steps", view).replaceChildren(...rows);
}

function stepCell(photo, rendition, choose) {
  const cell = copyOf("step");
  rendition.step = cell.firstElementChild;
  part("called", cell).textContent = `${formatName(rendition.type)}, ${rendition.width} pixels wide: `;
  cell.querySelector("input").addEventListener("change", () => choose(photo, rendition));
  tellRendition(photo, rendition);
  return cell;
}

export function tellRendition(photo, rendition) {
  const { step, state } = rendition;
  if (!step) return;
  step.dataset.state = state;
  part("bytes", step).textContent = { waiting: "–", asked: "…", failed: "failed" }[state] ?? readableBytes(rendition.bytes);
  part("saving", step).textContent =
    { waiting: "", asked: "", failed: "choose to retry" }[state] ?? signedPercent(percentChange(rendition.bytes, photo.document.bytes));
}

/** Tell how far the measuring is, and how large each rendition is beside the largest. */
export function tellLadder({ ladder }) {
  const measured = ladder.filter(({ state }) => state === "measured");
  const failed = ladder.filter(({ state }) => state === "failed");
  const largest = Math.max(...measured.map(({ bytes }) => bytes));
  for (const rendition of measured) rendition.step?.style.setProperty("--share", rendition.bytes / largest);
  const done = measured.length + failed.length;
  const bar = part("measuring");
  bar.max = ladder.length;
  bar.value = done;
  bar.classList.toggle("done", done === ladder.length);
  const told = failed.length ? `${measured.length} of ${ladder.length} measured, ${failed.length} failed` : `${done} of ${ladder.length} measured`;
  part("measured").textContent = told;
}
