// The picture on the bench: what it was beside what came, with a divider between them.

import { node, part } from "./page.js";
import { here, mint } from "./server.js";
import { dimensions, formatName, readableBytes, readableTime, smaller } from "./words.js";

// The other side of the divider is no larger than this: it is lossless, and should be there soon.
const BEFORE_PIXELS = 1280;

// What changes how a picture looks or how it is packed, and not which part of it is seen: left out of what it is compared with.
const LOOKS = [
  ..."brightness contrast gamma saturation grayscale blur sharpen overlay".split(" "),
  ..."profile metadata quality max_bytes lossless effort progressive".split(" "),
];

/** The part of a transform that says what is seen, and where. */
export function framing(transform) {
  return Object.fromEntries(Object.entries(transform).filter(([key]) => !LOOKS.includes(key)));
}

/** Give the frame the shape of a rendition, and room for the largest of its ladder. */
export function shapeFrame(photo, rendition) {
  const frame = part("frame");
  frame.style.setProperty("--ratio", rendition.width / rendition.height);
  frame.style.setProperty("--natural", `${Math.max(...photo.ladder.map(({ width }) => width))}px`);
  frame.style.setProperty("--colour", photo.document.placeholder.color);
  const fallback = photo.markup.sources.at(-1).type;
  frame.classList.toggle("see-through", photo.document.alpha || fallback === "image/png");
}

/** Put a rendition into the frame once it can be painted, over what is there until then; false where this browser cannot show it. */
export async function develop(photo, rendition) {
  const frame = part("frame");
  const url = here(rendition.url);
  if (frame.dataset.shows === url) return true;
  frame.dataset.shows = url;
  const picture = node("img", { className: "rendition", alt: photo.document.alt || photo.name, src: url });
  try {
    await picture.decode();
  } catch {
    return frame.dataset.shows !== url;
  }
  // Another may have been chosen in the meantime.
  if (frame.dataset.shows !== url) return true;
  const before = frame.querySelector(".rendition");
  part("before", frame).before(picture);
  before?.remove();
  // What lies under a transparent picture shines through.
  part("placeholder", frame).hidden = frame.classList.contains("see-through");
  return true;
}

/** Show how a page shows it: the placeholder first, then the picture over it. */
export async function arrive() {
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

/** Put beside the rendition what it was made from, seen in the same frame: the file itself, or the server's lossless copy. */
export async function setBefore(photo, rendition) {
  const frame = part("frame");
  const seen = framing(photo.made);
  const wanted = JSON.stringify([seen, Object.keys(seen).length ? rendition.width : 0]);
  if (frame.dataset.before === wanted) return;
  frame.dataset.before = wanted;
  const current = () => frame.isConnected && frame.dataset.before === wanted;
  const whole = Object.keys(seen).length === 0;
  const shown = (whole && (await shownBefore(photo.local, current))) || (await shownBefore(await losslessOf(photo, rendition, seen), current));
  if (current()) part("divider", frame).hidden = !shown;
}

/** The URL of what a rendition would be without loss and without any change of its look; none for an animation. */
async function losslessOf(photo, { width }, seen) {
  if (photo.document.frames > 1) return null;
  const widths = [Math.min(width, BEFORE_PIXELS)];
  const answer = await mint(photo.document.digest, { transform: { ...seen, lossless: true }, widths, formats: ["webp"] });
  return answer.document ? here(answer.document.src) : null;
}

async function shownBefore(url, current) {
  if (!url) return false;
  const before = part("before");
  const picture = node("img", { src: url });
  try {
    await picture.decode();
  } catch {
    return false;
  }
  if (current()) Object.assign(before, { src: url, hidden: false });
  return true;
}

export function wireDivider(view) {
  const split = part("split", view);
  const tell = () => {
    part("frame", view).style.setProperty("--split", `${split.value}%`);
    split.setAttribute("aria-valuetext", `${Math.round(split.value)}% original`);
  };
  split.addEventListener("input", tell);
  tell();
}

// ---- The words below it

export function caption(photo, rendition) {
  const name = `${formatName(rendition.type)}, ${dimensions(rendition)}`;
  part("open").href = here(rendition.url);
  part("url").textContent = new URL(rendition.url, location.origin).href;
  part("after-tag").textContent = `${formatName(rendition.type)} ${rendition.width}`;
  const said = part("caption");
  const answered = part("answered");
  const timings = part("timings");
  timings.replaceChildren();
  const strong = node("strong", { textContent: name });
  if (rendition.state === "failed") {
    const { title, detail, remedy } = rendition.problem;
    said.replaceChildren(strong, `: ${title}.`);
    answered.textContent = [detail, remedy].filter(Boolean).join(" ");
  } else if (rendition.state !== "measured") {
    said.replaceChildren(strong, " is on its way.");
    answered.textContent = "A rendition is made when it is first asked for, and stored.";
  } else {
    const beside = besideFallback(photo, rendition);
    said.replaceChildren(strong, `, ${readableBytes(rendition.bytes)}: ${smaller(rendition.bytes, photo.document.bytes, "the original")}${beside}.`);
    if (rendition.unseen) {
      answered.textContent = `This browser cannot show ${formatName(rendition.type)}. Choose another format.`;
      return;
    }
    answered.replaceChildren(...answeredBy(rendition));
    timings.replaceChildren(...steps(rendition));
  }
}

/** What the format itself saves: against the fallback at the same width, once both are known. */
function besideFallback(photo, rendition) {
  const { type } = photo.markup.sources.at(-1);
  const fallback = photo.ladder.find((other) => other.type === type && other.width === rendition.width);
  if (!fallback?.bytes || fallback === rendition) return "";
  return `, ${smaller(rendition.bytes, fallback.bytes, `${formatName(type)} at this width`)}`;
}

function answeredBy({ tier, milliseconds, serverMilliseconds, cacheStatus, age }) {
  const time = readableTime(milliseconds);
  const told = {
    browser: `From this browser’s cache in ${time}, without asking the server.`,
    memory: `From the server’s memory in ${time}.`,
    store: `From the server’s store in ${time}.`,
    render: `Rendered in ${readableTime(serverMilliseconds)}, here after ${time}.`,
  }[tier] ?? `Answered in ${time}.`;
  if (!cacheStatus) return [told];
  // Its key repeats the URL, which stands below.
  const short = cacheStatus.replace(/;\s*key="[^"]*"/g, "");
  return [`${told} `, node("code", { textContent: `Cache-Status: ${short}`, title: cacheStatus }), ...(age ? [" ", node("code", { textContent: `Age: ${age}` })] : [])];
}

/** Where the server's time went, as its Server-Timing says; a kept answer still tells of the day it was made, so it is left out. */
function steps({ tier, serverTiming }) {
  if (tier !== "render" && tier !== "store") return [];
  return [...serverTiming.matchAll(/(\w+);dur=([\d.]+)/g)].map(([, name, duration]) =>
    node("li", {}, `${name} `, node("b", { textContent: readableTime(Number(duration)) })),
  );
}
