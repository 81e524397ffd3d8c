// The images that the server took in last, newest first, a page at a time.

import { node, part } from "./page.js";
import { here, readPage, wantsToken } from "./server.js";

const FIRST_PAGE = "/v1/images?limit=12";

let next = FIRST_PAGE;

/** Show the first page anew; `open(document)` is called for the one that the reader takes, `refused(answer)` where a token is needed. */
export async function showRecent(open, refused) {
  next = FIRST_PAGE;
  part("recents").replaceChildren();
  await showMore(open, refused);
}

export async function showMore(open, refused) {
  const answer = await readPage(next);
  part("recent-problem").replaceChildren();
  if (wantsToken(answer.status)) refused(answer);
  if (!answer.document) return;
  const { images } = answer.document;
  part("recents").append(...images.map((document) => entryOf(document, open)));
  part("recent").hidden = part("recents").childElementCount === 0;
  next = nextPage(answer.link);
  part("more-recent").hidden = !next;
}

/** The path that `Link` names as the next page (RFC 8288), here and under whatever name the server is reached. */
function nextPage(link) {
  const [, target] = /<([^>]*)>\s*;[^,]*\brel="?next"?/.exec(link ?? "") ?? [];
  if (!target) return null;
  const { pathname, search } = new URL(target, location.origin);
  return pathname.slice(pathname.indexOf("/v1/")) + search;
}

function entryOf(document, open) {
  const { placeholder, width, height } = document;
  const name = document.alt || `${document.digest.slice(0, 8)}…`;
  const picture = node("img", { alt: "", loading: "lazy", decoding: "async", width: 160, height: 120 });
  picture.style.backgroundColor = placeholder.color;
  picture.style.backgroundImage = `url("${placeholder.data_url}")`;
  picture.src = here(document.sources.at(-1).renditions[0].url);
  const button = node("button", { type: "button", className: "recent-image", title: `${name}, ${width} × ${height}` }, picture, node("span", { className: "name", textContent: name }));
  button.addEventListener("click", () => open(document));
  return node("li", {}, button);
}
