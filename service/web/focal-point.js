// The focal point, the alt text and the name of an image, saved with it.

import { readDocument, toLocalPath, updateImage } from "./api.js";
import { announce, element, part } from "./dom.js";

// Fine enough for a finger and short in a URL.
const rounded = (share) => Math.min(1, Math.max(0, Number(share.toFixed(3))));
const percent = (share) => `${Math.round(share * 100)}%`;

/**
 * Wire the panel of `view`.
 * @param {import("./state.js").Photo} photo
 * @param {ParentNode} view
 * @param {object} handlers
 * @param {(result: import("./api.js").Result) => void} handlers.onChanged Called with the server's new document.
 * @param {(result: import("./api.js").Result, retry: () => void) => void} handlers.onProblem
 */
export function wireFocalPoint(photo, view, { onChanged, onProblem }) {
  const original = part("original", view);
  const [horizontal, vertical] = [part("focal-x", view), part("focal-y", view)];
  const alt = part("alt", view);
  const name = part("image-name", view);

  const render = () => {
    const { focal } = photo.document;
    renderPoint(focal);
    [horizontal.value, vertical.value] = focal ?? [0.5, 0.5];
    part("clear-focal", view).hidden = !focal;
    part("focal-said", view).textContent = focal
      ? `Focal point: ${percent(focal[0])} from the left, ${percent(focal[1])} from the top. Crops keep it in view.`
      : "Click the most important point of the picture.";
    alt.value = photo.document.alt;
    name.value = photo.document.name;
  };

  const renderPoint = (focal) => {
    const point = part("point", view);
    point.hidden = !focal;
    if (focal) [point.style.left, point.style.top] = focal.map((share) => `${share * 100}%`);
  };

  const save = async (change) => {
    part("subject-problem", view).replaceChildren();
    const result = await updateImage(photo.document.digest, change, photo.etag);
    if (result.document) {
      announce(savedText(change));
      onChanged(result);
      render();
    } else if (result.status === 412) {
      await showConflict(change);
    } else {
      render();
      onProblem(result, () => save(change));
    }
  };

  // Someone else was first: their version is shown, and nothing is overwritten unless the reader says so.
  const showConflict = async (mine) => {
    const theirs = await readDocument(photo.document.digest);
    if (!theirs.document) {
      onProblem(theirs, () => save(mine));
      return;
    }
    onChanged(theirs);
    render();
    const overwrite = element("button", {
      type: "button",
      className: "small-button",
      textContent: "Overwrite with mine",
    });
    overwrite.addEventListener("click", () => save(mine));
    part("subject-problem", view).replaceChildren(
      element(
        "p",
        {},
        element("strong", {
          textContent: "Someone else changed this image after you opened it. ",
        }),
        `Their version is shown now; ${unsavedText(mine)}`,
      ),
      overwrite,
    );
  };

  original.src = photo.local ?? toLocalPath(nearestTo(photo.document.sources, 640).url);
  original.alt = `The whole of ${photo.name}`;
  original.addEventListener(
    "error",
    () => {
      original.src = toLocalPath(nearestTo(photo.document.sources, 640).url);
    },
    { once: true },
  );
  original.parentElement.addEventListener("click", ({ clientX, clientY }) => {
    const box = original.getBoundingClientRect();
    const focal = [rounded((clientX - box.left) / box.width), rounded((clientY - box.top) / box.height)];
    renderPoint(focal);
    save({ focal });
  });
  for (const slider of [horizontal, vertical]) {
    slider.addEventListener("input", () => renderPoint([Number(horizontal.value), Number(vertical.value)]));
    slider.addEventListener("change", () =>
      save({ focal: [rounded(Number(horizontal.value)), rounded(Number(vertical.value))] }),
    );
  }
  part("clear-focal", view).addEventListener("click", () => save({ focal: null }));
  part("alt-form", view).addEventListener("submit", (event) => {
    event.preventDefault();
    save({ alt: alt.value.trim() });
  });
  part("name-form", view).addEventListener("submit", (event) => {
    event.preventDefault();
    save({ name: name.value.trim().normalize("NFC") });
  });
  render();
}

function savedText(change) {
  if ("alt" in change) return "Alt text saved.";
  if ("name" in change) return change.name ? "Name saved." : "Name removed.";
  return change.focal ? "Focal point saved." : "Focal point removed.";
}

function unsavedText(mine) {
  if (!("focal" in mine)) return `yours (“${mine.alt ?? mine.name}”) was not saved.`;
  return mine.focal
    ? `yours (${mine.focal.map(percent).join(" and ")}) was not saved.`
    : "the focal point was not removed.";
}

/** The fallback rendition, which every browser shows, whose width is nearest to `width`. */
function nearestTo(sources, width) {
  const { renditions } = sources.at(-1);
  return renditions.reduce((nearest, other) =>
    Math.abs(other.width - width) < Math.abs(nearest.width - width) ? other : nearest,
  );
}
