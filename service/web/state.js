// The photos of this visit, and the facts that follow from them. Nothing here touches the page.

/**
 * One rendition of a photo's ladder: as the document names it, and what this browser measured of it.
 * @typedef {object} Rendition
 * @property {string} url
 * @property {string} type Its media type.
 * @property {string} [media] The media query of the screens that it is for; without it, it is for all.
 * @property {number} width
 * @property {number} height
 * @property {string} state `waiting`, `loading`, `measured` or `failed`.
 * @property {number} retries How often a busy server was asked again.
 * @property {number} [bytes]
 * @property {string} [tier] Where the response came from: `browser`, `memory`, `store` or `render`.
 * @property {number} [milliseconds] From request to response.
 * @property {number} [serverMilliseconds]
 * @property {string} [cacheStatus]
 * @property {string} [serverTiming]
 * @property {string | null} [age]
 * @property {import("./api.js").Problem} [problem]
 * @property {boolean} [isUndecodable] Whether this browser received it and cannot show it.
 * @property {any} [step] Its cell in the table.
 */

/**
 * A photo of this visit.
 * @typedef {object} Photo
 * @property {string} name
 * @property {File} [file] The file to upload; none for an image that the server has already.
 * @property {string} [digest] The digest of an image that the server has already.
 * @property {string} [local] An object URL of the file.
 * @property {"waiting" | "loading" | "refused" | "ready"} state
 * @property {number} sent The part of the file that was sent, 0 to 1.
 * @property {number | null} [status] The status of the last response.
 * @property {import("./api.js").Problem | null} [problem]
 * @property {any} [document] The image document.
 * @property {string | null} [etag] Its entity tag.
 * @property {Record<string, unknown>} transform The options that are set now.
 * @property {Record<string, unknown>} [appliedTransform] The options that `markup` was made for.
 * @property {string} sizes The `sizes` attribute.
 * @property {boolean} priority Whether it is the largest image in the first view of a page.
 * @property {string} narrow The aspect ratio of another crop for narrow screens; empty for the same picture.
 * @property {any} [markup] The server's newest URLs: the document's own, or those of a transform.
 * @property {Rendition[]} ladder
 * @property {Rendition | null} selected
 * @property {boolean} [measuresAll] Whether the whole ladder is measured, or only the selected width.
 * @property {string} [thumbnail]
 * @property {any} entry Its entry in the list of photos.
 */

import { ladderOf, mainSources } from "./ladder.js";

export const DEFAULT_SIZES = "auto, 100vw";

const NARROW_SCREENS = "(max-width: 40em)";
const SHAPE = ["width", "height", "ratio", "fit", "enlarge", "dpr"];

// The preview starts no wider than this, however dense the screen is, so that it loads soon.
const MAX_FIRST_PREVIEW_WIDTH = 1280;

/** The photos of this visit in the order in which they were added, and the one that is shown. */
export const visit = {
  /** @type {Photo[]} */
  photos: [],
  /** @type {Photo | null} */
  shown: null,
};

/**
 * A photo that nothing is known of yet.
 * @param {{name: string, file?: File, local?: string, digest?: string}} given
 * @param {any} entry
 * @returns {Photo}
 */
export function createPhoto(given, entry) {
  return {
    ...given,
    state: "waiting",
    sent: 0,
    transform: {},
    sizes: DEFAULT_SIZES,
    priority: false,
    narrow: "",
    ladder: [],
    selected: null,
    entry,
  };
}

/**
 * Take over the URLs that the server made for a transform. The selected rendition keeps its format, and its width as nearly as possible.
 * @param {Photo} photo
 * @param {any} markup
 * @param {Record<string, unknown>} transform
 */
export function applyMarkup(photo, markup, transform) {
  const { selected } = photo;
  // A measurement holds as long as the URL is the same.
  const measured = new Map(
    photo.ladder.filter(({ state }) => state === "measured").map((rendition) => [rendition.url, rendition]),
  );
  photo.markup = markup;
  photo.appliedTransform = transform;
  photo.ladder = ladderOf(mainSources(markup)).map((rendition) => measured.get(rendition.url) ?? rendition);
  photo.measuresAll = Object.keys(transform).length === 0;
  if (!selected) return;
  const sameType = photo.ladder.filter(({ type }) => type === selected.type);
  const distance = ({ width }) => Math.abs(width - selected.width);
  photo.selected = (sameType.length ? sameType : photo.ladder).reduce((nearest, other) =>
    distance(other) < distance(nearest) ? other : nearest,
  );
}

/**
 * Remove other photos with the same bytes: they are one image, and the newest entry stands for all.
 * @param {Photo} photo
 * @returns {Photo[]} The photos that were removed.
 */
export function removeDuplicatesOf(photo) {
  const duplicates = visit.photos.filter(
    (other) => other !== photo && other.document?.digest === photo.document.digest,
  );
  visit.photos = visit.photos.filter((other) => !duplicates.includes(other));
  return duplicates;
}

/**
 * The narrowest rendition that fills a box sharply, in the format that the document prefers.
 * @param {Photo} photo
 * @param {number} boxPixels The width of the box in device pixels.
 */
export function initialSelection({ markup, ladder }, boxPixels) {
  const preferred = ladder.filter(({ type }) => type === mainSources(markup)[0].type);
  const wanted = Math.min(boxPixels, MAX_FIRST_PREVIEW_WIDTH);
  return preferred.find(({ width }) => width >= wanted) ?? preferred.at(-1);
}

/**
 * The rendition to measure next: the selected one, then its width in the other formats, then the rest of a whole ladder.
 * @returns {Rendition | null}
 */
export function nextToMeasure() {
  const { shown } = visit;
  if (shown?.state !== "ready" || !shown.selected) return null;
  const { selected, ladder, measuresAll } = shown;
  const waiting = ladder.filter(({ state }) => state === "waiting");
  return (
    waiting.find((rendition) => rendition === selected) ??
    waiting.find(({ width }) => width === selected.width) ??
    (measuresAll ? (waiting[0] ?? null) : null)
  );
}

/**
 * The body of a request for a photo's URLs.
 * @param {Photo} photo
 */
export function urlsRequestOf({ transform, sizes, priority, narrow }) {
  // The ratio takes the place of every other option that decides the shape.
  const kept = Object.entries(transform).filter(([key]) => !SHAPE.includes(key));
  const crop = { media: NARROW_SCREENS, transform: { ...Object.fromEntries(kept), ratio: narrow } };
  return {
    ...(Object.keys(transform).length && { transform }),
    ...(sizes !== DEFAULT_SIZES && { sizes }),
    ...(priority && { priority }),
    ...(narrow && { art_direction: [crop] }),
  };
}
