// The newest images of the server, a page at a time.

import { listImages, needsToken, toLocalPath } from "./api.js";
import { element, part } from "./dom.js";

const FIRST_PAGE = "/v1/images?limit=12";

/** @type {string | null} */
let nextPath = FIRST_PAGE;

/**
 * Show the first page anew.
 * @param {(document: any) => void} onOpen Called with the document of an image that the reader selects.
 * @param {(result: import("./api.js").Result) => void} onDenied Called where a token is needed.
 */
export async function showRecent(onOpen, onDenied) {
  nextPath = FIRST_PAGE;
  part("recents").replaceChildren();
  await showMore(onOpen, onDenied);
}

/**
 * Append the next page.
 * @param {(document: any) => void} onOpen
 * @param {(result: import("./api.js").Result) => void} onDenied
 */
export async function showMore(onOpen, onDenied) {
  const result = await listImages(nextPath);
  part("recent-problem").replaceChildren();
  if (needsToken(result.status)) onDenied(result);
  if (!result.document) return;
  part("recents").append(...result.document.images.map((document) => imageEntry(document, onOpen)));
  part("recent").hidden = part("recents").childElementCount === 0;
  nextPath = nextPageOf(result.link);
  part("more-recent").hidden = !nextPath;
}

/**
 * The path that `Link` names as the next page (RFC 8288), on this host, whatever name the server is reached by.
 * @param {string | null | undefined} link
 */
function nextPageOf(link) {
  const [, target] = /<([^>]*)>\s*;[^,]*\brel="?next"?/.exec(link ?? "") ?? [];
  if (!target) return null;
  const { pathname, search } = new URL(target, location.origin);
  return pathname.slice(pathname.indexOf("/v1/")) + search;
}

function imageEntry(document, onOpen) {
  const { placeholder, width, height } = document;
  const name = document.alt || `${document.digest.slice(0, 8)}…`;
  const picture = element("img", {
    alt: "",
    loading: "lazy",
    decoding: "async",
    width: 160,
    height: 120,
  });
  picture.style.backgroundColor = placeholder.color;
  picture.style.backgroundImage = `url("${placeholder.data_url}")`;
  picture.src = toLocalPath(document.sources.at(-1).renditions[0].url);
  const button = element(
    "button",
    { type: "button", className: "recent-image", title: `${name}, ${width} × ${height}` },
    picture,
    element("span", { className: "name", textContent: name }),
  );
  button.addEventListener("click", () => onOpen(document));
  return element("li", {}, button);
}
