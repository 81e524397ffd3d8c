// Code for a page: the markup of a transform for several frameworks, its request, and the server's response.

import { token } from "./api.js";
import { highlight, part } from "./dom.js";
import { mainSources } from "./ladder.js";

const attribute = (name, value) =>
  /["&{}<>\\]/.test(value) ? `${name}={${JSON.stringify(value)}}` : `${name}="${value}"`;

function largestOf(sources) {
  return sources.at(-1).renditions.at(-1);
}

function react({ sources, src }, { sizes, alt, priority }) {
  const { width, height } = largestOf(sources);
  const better = sources
    .slice(0, -1)
    .map(
      ({ media, type, srcset, width, height }) =>
        `      <source ${media ? `media="${media}" ` : ""}type="${type}" srcSet="${srcset}" ${attribute("sizes", sizes)}` +
        `${width ? ` width={${width}} height={${height}}` : ""} />\n`,
    );
  return `export function Photo(props) {
  return (
    <picture>
${better.join("")}      <img
        ${priority ? 'loading="eager" fetchPriority="high"' : 'loading="lazy"'}
        src="${src}"
        srcSet="${sources.at(-1).srcset}"
        ${attribute("sizes", sizes)}
        width={${width}} height={${height}} ${attribute("alt", alt)} decoding="async" {...props}
      />
    </picture>
  );
}`;
}

function next(markup, { sizes, alt, placeholder, priority }) {
  // next/image takes one format, the last one that is smaller than the fallback, and one crop.
  const sources = mainSources(markup);
  const source = sources.at(-2) ?? sources.at(-1);
  const { width, height } = source.renditions.at(-1);
  const urls = source.renditions.map((rendition) => `  ${rendition.width}: "${rendition.url}",`);
  return `"use client";
import Image from "next/image";

// Each width has a URL of its own. next/image takes one format: here ${source.type}.
const urls = {
${urls.join("\n")}
};
const widths = Object.keys(urls).map(Number);
const loader = ({ width }) => urls[widths.find((known) => known >= width) ?? widths.at(-1)];

export function Photo(props) {
  return (
    <Image
      loader={loader} src="${markup.src}" width={${width}} height={${height}} ${attribute("sizes", sizes)} ${attribute("alt", alt)}
      ${priority ? 'loading="eager" fetchPriority="high" ' : ""}placeholder="blur" blurDataURL="${placeholder.data_url}" {...props}
    />
  );
}`;
}

function plain({ sources, src }, { sizes, alt, priority }) {
  const { width, height } = largestOf(sources);
  // In a document of its own, whose images are not fetched.
  const image = document.implementation.createHTMLDocument("").createElement("img");
  const attributes = {
    src,
    srcset: sources.at(-1).srcset,
    sizes,
    width,
    height,
    alt,
    ...(priority ? { loading: "eager", fetchpriority: "high" } : { loading: "lazy" }),
    decoding: "async",
  };
  for (const [name, value] of Object.entries(attributes)) image.setAttribute(name, value);
  return image.outerHTML;
}

function placeholderCss({ color, data_url: url, thumbhash }) {
  return `/* Shown until the picture has loaded. ThumbHash: ${thumbhash} */
.photo {
  background: ${color} url("${url}") center / cover;
}`;
}

function request(photo, body) {
  const lines = [`curl ${location.origin}/v1/images/${photo.document.digest}/urls`];
  if (token()) lines.push(`  --header "Authorization: Bearer $TOKEN"`);
  lines.push(`  --json '${JSON.stringify(body).replaceAll("'", "'\\''")}'`);
  return lines.join(" \\\n");
}

/**
 * Fill every tab with the code for a photo's newest URLs.
 * @param {import("./state.js").Photo} photo
 * @param {object} body The body of the request for these URLs.
 */
export function renderSnippets(photo, body) {
  const { markup, priority } = photo;
  // `auto` is valid only for lazy images.
  const sizes = priority ? photo.sizes.replace(/^auto\s*(?:,\s*|$)/i, "") || "100vw" : photo.sizes;
  const { alt, placeholder } = photo.document;
  const attributes = { sizes, alt, placeholder, priority };
  const sources = {
    picture: markup.picture,
    plain: plain(markup, attributes),
    react: react(markup, attributes),
    next: next(markup, attributes),
    css: placeholderCss(placeholder),
    document: JSON.stringify(photo.markup, null, 2),
    request: request(photo, body),
  };
  for (const [name, source] of Object.entries(sources)) part(name).replaceChildren(...highlight(source));
  part("src").textContent = new URL(markup.src, location.origin).href;
}

/** Wire the tabs of `view`: arrow keys move from one to the next (WAI-ARIA Authoring Practices, Tabs). */
export function wireTabs(view) {
  const tabs = [...view.querySelectorAll('[role="tab"]')];
  const select = (chosen) => {
    for (const tab of tabs) {
      const selected = tab === chosen;
      tab.setAttribute("aria-selected", String(selected));
      tab.tabIndex = selected ? 0 : -1;
      view.querySelector(`#${tab.getAttribute("aria-controls")}`).hidden = !selected;
    }
  };
  for (const tab of tabs) {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const target = step
        ? tabs.at((tabs.indexOf(tab) + step) % tabs.length)
        : { Home: tabs[0], End: tabs.at(-1) }[event.key];
      if (!target) return;
      event.preventDefault();
      select(target);
      target.focus();
    });
  }
}
