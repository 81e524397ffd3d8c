// The preview: the original beside the rendition, with a divider between them.

import { createUrls, toLocalPath } from "./api.js";
import { element, part } from "./dom.js";
import { dimensions, formatName, readableBytes, readableTime, sizeComparison } from "./format.js";

// The original's side of the divider is no wider than this: it is lossless, and should load soon.
const MAX_LOSSLESS_WIDTH = 1280;

// Options that change how a picture looks or is encoded, and not which part of it is visible.
const APPEARANCE = [
  ..."brightness contrast gamma saturation grayscale blur sharpen overlay".split(" "),
  ..."profile dynamic_range metadata quality max_bytes lossless effort progressive".split(" "),
];

/** The options of a transform that decide which part of a picture is visible, and where. */
function framingOf(transform) {
  return Object.fromEntries(Object.entries(transform).filter(([key]) => !APPEARANCE.includes(key)));
}

/** Give the frame the shape of a rendition, and room for the widest one of its ladder. */
export function sizeFrame(photo, rendition) {
  const frame = part("frame");
  const widest = Math.max(...photo.ladder.map(({ width }) => width));
  frame.style.setProperty("--ratio", rendition.width / rendition.height);
  frame.style.setProperty("--natural", `${widest}px`);
  frame.style.setProperty("--color", photo.document.placeholder.color);
  const fallback = photo.markup.sources.at(-1).type;
  frame.classList.toggle("see-through", photo.document.alpha || fallback === "image/png");
}

/**
 * Show a rendition in the frame once it is decoded, over what the frame shows until then.
 * @returns {Promise<boolean>} Whether this browser can show it.
 */
export async function showRendition(photo, rendition) {
  const frame = part("frame");
  const url = toLocalPath(rendition.url);
  if (frame.dataset.shows === url) return true;
  frame.dataset.shows = url;
  const picture = element("img", {
    className: "rendition",
    alt: photo.document.alt || photo.name,
    src: url,
  });
  try {
    await picture.decode();
  } catch {
    return frame.dataset.shows !== url;
  }
  // Another one may have been selected in the meantime.
  if (frame.dataset.shows !== url) return true;
  const earlier = frame.querySelector(".rendition");
  part("before", frame).before(picture);
  earlier?.remove();
  // The placeholder would shine through a transparent picture.
  part("placeholder", frame).hidden = frame.classList.contains("see-through");
  return true;
}

/** Replay how a page loads the picture: first the placeholder, then the picture over it. */
export async function replayLoading() {
  const frame = part("frame");
  const picture = frame.querySelector(".rendition");
  if (!picture) return;
  frame.classList.add("arriving");
  part("placeholder", frame).hidden = false;
  picture.remove();
  await new Promise((resume) => setTimeout(resume, 700));
  part("before", frame).before(picture);
  await new Promise((resume) => setTimeout(resume, 900));
  part("placeholder", frame).hidden = frame.classList.contains("see-through");
  frame.classList.remove("arriving");
}

// ---- The divider

/** Show the original beside a rendition, framed alike: the file itself, or a lossless copy from the server. */
export async function showOriginal(photo, rendition) {
  const frame = part("frame");
  const framing = framingOf(photo.appliedTransform);
  const isWhole = Object.keys(framing).length === 0;
  const wanted = JSON.stringify([framing, isWhole ? 0 : rendition.width]);
  if (frame.dataset.before === wanted) return;
  frame.dataset.before = wanted;
  const isCurrent = () => frame.isConnected && frame.dataset.before === wanted;
  const isShown =
    (isWhole && (await loadOriginal(photo.local, isCurrent))) ||
    (await loadOriginal(await losslessUrl(photo, rendition, framing), isCurrent));
  if (isCurrent()) part("divider", frame).hidden = !isShown;
}

/** The URL of a rendition without loss and without any change of its look; none for an animation. */
async function losslessUrl(photo, { width }, framing) {
  if (photo.document.frames > 1) return null;
  const { document } = await createUrls(photo.document.digest, {
    transform: { ...framing, lossless: true },
    widths: [Math.min(width, MAX_LOSSLESS_WIDTH)],
    formats: ["webp"],
  });
  return document ? toLocalPath(document.src) : null;
}

async function loadOriginal(url, isCurrent) {
  if (!url) return false;
  try {
    await element("img", { src: url }).decode();
  } catch {
    return false;
  }
  if (isCurrent()) Object.assign(part("before"), { src: url, hidden: false });
  return true;
}

export function wireDivider(view) {
  const split = part("split", view);
  const update = () => {
    part("frame", view).style.setProperty("--split", `${split.value}%`);
    split.setAttribute("aria-valuetext", `${Math.round(split.value)}% original`);
  };
  split.addEventListener("input", update);
  update();
}

// ---- The caption

export function renderCaption(photo, rendition) {
  const name = `${formatName(rendition.type)}, ${dimensions(rendition)}`;
  part("open").href = toLocalPath(rendition.url);
  part("url").textContent = new URL(rendition.url, location.origin).href;
  part("after-tag").textContent = `${formatName(rendition.type)} ${rendition.width}`;
  const caption = part("caption");
  const delivery = part("delivery");
  const timings = part("timings");
  timings.replaceChildren();
  const strong = element("strong", { textContent: name });
  if (rendition.state === "failed") {
    const { title, detail, remedy } = rendition.problem;
    caption.replaceChildren(strong, `: ${title}.`);
    delivery.textContent = [detail, remedy].filter(Boolean).join(" ");
  } else if (rendition.state !== "measured") {
    caption.replaceChildren(strong, " is loading…");
    delivery.textContent = "A rendition is made on its first request, and then stored.";
  } else {
    const comparison = sizeComparison(rendition.bytes, photo.document.bytes, "the original");
    caption.replaceChildren(
      strong,
      `, ${readableBytes(rendition.bytes)}: ${comparison}${fallbackComparison(photo, rendition)}.`,
    );
    if (rendition.isUndecodable) {
      delivery.textContent = `This browser cannot show ${formatName(rendition.type)}. Select another format.`;
      return;
    }
    delivery.replaceChildren(...deliveryNodes(rendition));
    timings.replaceChildren(...timingItems(rendition));
  }
}

/** How much the format itself saves: against the fallback at the same width, once both are measured. */
function fallbackComparison(photo, rendition) {
  const { type } = photo.markup.sources.at(-1);
  const fallback = photo.ladder.find((other) => other.type === type && other.width === rendition.width);
  if (!fallback?.bytes || fallback === rendition) return "";
  return `, ${sizeComparison(rendition.bytes, fallback.bytes, `${formatName(type)} at this width`)}`;
}

function deliveryNodes({ tier, milliseconds, serverMilliseconds, cacheStatus, age }) {
  const time = readableTime(milliseconds);
  const sentences = {
    browser: `Loaded from this browser’s cache in ${time}, without a request.`,
    memory: `Loaded from the server’s memory in ${time}.`,
    store: `Loaded from the server’s store in ${time}.`,
    render: `Rendered in ${readableTime(serverMilliseconds)}, received after ${time}.`,
  };
  const sentence = sentences[tier] ?? `Received after ${time}.`;
  if (!cacheStatus) return [sentence];
  // Its key repeats the URL, which is shown below.
  const short = cacheStatus.replace(/;\s*key="[^"]*"/g, "");
  return [
    `${sentence} `,
    element("code", { textContent: `Cache-Status: ${short}`, title: cacheStatus }),
    ...(age ? [" ", element("code", { textContent: `Age: ${age}` })] : []),
  ];
}

/** The parts of the server's time, from Server-Timing. A response from memory has the timing of the day it was made, so it is left out. */
function timingItems({ tier, serverTiming }) {
  if (tier !== "render" && tier !== "store") return [];
  return [...serverTiming.matchAll(/(\w+);dur=([\d.]+)/g)].map(([, name, duration]) =>
    element("li", {}, `${name} `, element("b", { textContent: readableTime(Number(duration)) })),
  );
}
