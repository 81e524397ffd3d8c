// The ladder: every width and format of an image, fetched and measured. Sizes are the bytes received, times this browser's own.

import { fetchRendition, toLocalPath } from "./api.js";
import { cloneTemplate, element, part } from "./dom.js";
import { formatName, percentChange, readableBytes, signedPercent } from "./format.js";

// A large AVIF costs a small machine a second of one core: with two requests under way the server still has time for others.
const MAX_CONCURRENT_REQUESTS = 2;

// A busy server says when to try again (503 with Retry-After). After so many retries the reader decides.
const MAX_RETRIES = 3;

/** The sources of the picture itself, without those of other crops for some screens, which have a size of their own. */
export const mainSources = ({ sources }) => sources.filter(({ width }) => !width);

/**
 * Every rendition of a document's `sources`, small widths first, and at each width in the order of preference.
 * @returns {import("./state.js").Rendition[]}
 */
export function ladderOf(sources) {
  return sources
    .flatMap((source) =>
      source.renditions.map((rendition) => ({
        ...rendition,
        type: source.type,
        media: source.media,
        state: "waiting",
        retries: 0,
      })),
    )
    .sort((one, other) => one.width - other.width);
}

/** Fetches renditions one after the other, a few at a time, and measures them. */
export class MeasureQueue {
  #running = 0;
  #next;
  #onChange;
  #abort = new AbortController();

  /**
   * @param {() => import("./state.js").Rendition | null} next Returns the rendition to measure next.
   * @param {(rendition: import("./state.js").Rendition) => void} onChange Called whenever the state of one has changed.
   */
  constructor(next, onChange) {
    this.#next = next;
    this.#onChange = onChange;
  }

  /** Start as many requests as may run at a time. */
  fill() {
    while (this.#running < MAX_CONCURRENT_REQUESTS) {
      const rendition = this.#next();
      if (!rendition) return;
      this.#running += 1;
      this.measure(rendition).finally(() => {
        this.#running -= 1;
        this.fill();
      });
    }
  }

  /** Abort the requests under way, so that the server renders nothing that nobody will look at. */
  cancel() {
    this.#abort.abort();
    this.#abort = new AbortController();
  }

  /**
   * Fetch a rendition and record its size and times.
   * @param {import("./state.js").Rendition} rendition
   * @param {RequestCache} [cache] "reload" bypasses the browser's own copy.
   */
  async measure(rendition, cache = "default") {
    const { signal } = this.#abort;
    if (rendition.state !== "measured") rendition.state = "loading";
    this.#onChange(rendition);
    const url = toLocalPath(rendition.url);
    const started = performance.now();
    const result = await fetchRendition(url, { cache, signal });
    if (result.status === -1) {
      if (rendition.state === "loading") rendition.state = "waiting";
      return;
    }
    if (result.status === 503 && result.retryAfter && rendition.retries < MAX_RETRIES) {
      rendition.retries += 1;
      await new Promise((resume) => setTimeout(resume, Number(result.retryAfter) * 1000));
      await this.measure(rendition, cache);
      return;
    }
    if (result.problem) {
      Object.assign(rendition, { state: "failed", problem: result.problem });
    } else {
      const milliseconds = performance.now() - started;
      const delivery = await describeDelivery(url, result.headers);
      Object.assign(rendition, {
        state: "measured",
        bytes: result.bytes,
        milliseconds,
        ...delivery,
      });
    }
    this.#onChange(rendition);
  }
}

/** Where a response came from (this browser's cache, the server's memory, its store, a render), and how fast. */
async function describeDelivery(url, headers) {
  // The browser records its timing entry in a task of its own, after the last byte of the body.
  await new Promise((resume) => setTimeout(resume));
  const entry = /** @type {PerformanceResourceTiming | undefined} */ (
    performance.getEntriesByName(location.origin + url, "resource").at(-1)
  );
  // The time between request and response, without the time that this page itself waited.
  const timed = entry && { milliseconds: entry.responseEnd - entry.requestStart };
  // A stored response still has the headers of the day it was fetched, so this comes first.
  if (entry?.transferSize === 0 && entry.decodedBodySize > 0)
    return { ...timed, tier: "browser", cacheStatus: "", age: null, serverTiming: "" };
  const cacheStatus = headers.get("Cache-Status") ?? "";
  const serverTiming = headers.get("Server-Timing") ?? "";
  const [, tier, duration] = /^tier;desc=(render|store);dur=([\d.]+)/.exec(serverTiming) ?? [];
  return {
    ...timed,
    cacheStatus,
    serverTiming,
    age: headers.get("Age"),
    tier: /;\s*hit\b/.test(cacheStatus) ? "memory" : tier,
    serverMilliseconds: Number(duration),
  };
}

// ---- The table

/**
 * Render the table of a photo's ladder.
 * @param {import("./state.js").Photo} photo
 * @param {ParentNode} view
 * @param {(photo: import("./state.js").Photo, rendition: import("./state.js").Rendition) => void} onSelect
 */
export function renderLadder(photo, view, onSelect) {
  const sources = mainSources(photo.markup);
  part("formats", view).replaceChildren(
    element("th", { scope: "col", textContent: "Width" }),
    ...sources.map((source) => element("th", { scope: "col", textContent: sourceName(source) })),
  );
  const widths = [...new Set(photo.ladder.map(({ width }) => width))];
  const rows = widths.map((width) => {
    const renditions = sources.map(({ type, media }) =>
      photo.ladder.find(
        (rendition) => rendition.type === type && rendition.media === media && rendition.width === width,
      ),
    );
    const heading = element(
      "th",
      { scope: "row" },
      element("b", { textContent: width }),
      `× ${renditions.find(Boolean).height}`,
    );
    const cells = renditions.map((rendition) => (rendition ? stepCell(photo, rendition, onSelect) : element("td")));
    return element("tr", {}, heading, ...cells);
  });
  part("steps", view).replaceChildren(...rows);
}

/** The name of a source's format; one with a media query is for screens with a high dynamic range. */
function sourceName({ type, media }) {
  return media ? `${formatName(type)} HDR` : formatName(type);
}

function stepCell(photo, rendition, onSelect) {
  const cell = cloneTemplate("step");
  rendition.step = cell.firstElementChild;
  part("called", cell).textContent = `${sourceName(rendition)}, ${rendition.width} pixels wide: `;
  cell.querySelector("input").addEventListener("change", () => onSelect(photo, rendition));
  updateStep(photo, rendition);
  return cell;
}

/** Update the table's cell of a rendition. */
export function updateStep(photo, rendition) {
  const { step, state } = rendition;
  if (!step) return;
  step.dataset.state = state;
  part("bytes", step).textContent =
    { waiting: "–", loading: "…", failed: "failed" }[state] ?? readableBytes(rendition.bytes);
  part("saving", step).textContent =
    { waiting: "", loading: "", failed: "select to retry" }[state] ??
    signedPercent(percentChange(rendition.bytes, photo.document.bytes));
}

/** Update the progress of the measuring, and how large each rendition is beside the largest. */
export function updateProgress({ ladder }) {
  const measured = ladder.filter(({ state }) => state === "measured");
  const failed = ladder.filter(({ state }) => state === "failed");
  const largest = Math.max(...measured.map(({ bytes }) => bytes));
  for (const rendition of measured) rendition.step?.style.setProperty("--share", rendition.bytes / largest);
  const done = measured.length + failed.length;
  const bar = part("measuring");
  bar.max = ladder.length;
  bar.value = done;
  bar.classList.toggle("done", done === ladder.length);
  part("measured").textContent = failed.length
    ? `${measured.length} of ${ladder.length} measured, ${failed.length} failed`
    : `${done} of ${ladder.length} measured`;
}
