// What people say of an image: where its subject is and what it shows, saved with it.

import { announce, node, part } from "./page.js";
import { change, here, readDocument } from "./server.js";

// Fine enough for a finger and short in a URL.
const rounded = (share) => Math.min(1, Math.max(0, Number(share.toFixed(3))));
const percent = (share) => `${Math.round(share * 100)}%`;

/** Fill the panel of `view`. `changed(answer)` is called with what the server says after a change, `refused(answer)` with a problem. */
export function wireSubject(photo, view, { changed, refused }) {
  const original = part("original", view);
  const [across, down] = [part("focal-x", view), part("focal-y", view)];
  const alt = part("alt", view);

  const show = () => {
    const { focal } = photo.document;
    showPoint(focal);
    [across.value, down.value] = focal ?? [0.5, 0.5];
    part("clear-focal", view).hidden = !focal;
    part("focal-said", view).textContent = focal ? `Kept in sight: ${percent(focal[0])} from the left, ${percent(focal[1])} from the top.` : "Click what matters most.";
    alt.value = photo.document.alt;
  };

  const showPoint = (focal) => {
    const point = part("point", view);
    point.hidden = !focal;
    if (focal) [point.style.left, point.style.top] = focal.map((share) => `${share * 100}%`);
  };

  const save = async (wanted, etag = photo.etag) => {
    part("subject-problem", view).replaceChildren();
    const answer = await change(photo.document.digest, wanted, etag);
    if (answer.document) {
      announce("focal" in wanted ? (wanted.focal ? "Focal point saved with the image." : "Focal point removed.") : "Text saved with the image.");
      changed(answer);
      show();
    } else if (answer.status === 412) {
      await tellOvertaken(wanted);
    } else {
      show();
      refused(answer, () => save(wanted));
    }
  };

  // Somebody was faster: theirs is shown, and nothing is overwritten unless the reader says so.
  const tellOvertaken = async (mine) => {
    const theirs = await readDocument(photo.document.digest);
    if (!theirs.document) {
      refused(theirs, () => save(mine));
      return;
    }
    changed(theirs);
    show();
    const again = node("button", { type: "button", className: "small-button", textContent: "Save mine all the same" });
    again.addEventListener("click", () => save(mine));
    const said = "focal" in mine ? (mine.focal ? `Yours, ${mine.focal.map(percent).join(" and ")}, is not saved.` : "Yours is not removed.") : `Yours, “${mine.alt}”, is not saved.`;
    part("subject-problem", view).replaceChildren(
      node("p", {}, node("strong", { textContent: "Somebody else has changed this image since you opened it. " }), `What they saved is shown now. ${said}`),
      again,
    );
  };

  original.src = photo.local ?? here(nearestTo(photo.document.sources, 640).url);
  original.alt = `The whole of ${photo.name}`;
  original.addEventListener("error", () => (original.src = here(nearestTo(photo.document.sources, 640).url)), { once: true });
  original.parentElement.addEventListener("click", ({ clientX, clientY }) => {
    const box = original.getBoundingClientRect();
    const focal = [rounded((clientX - box.left) / box.width), rounded((clientY - box.top) / box.height)];
    showPoint(focal);
    save({ focal });
  });
  for (const slider of [across, down]) {
    slider.addEventListener("input", () => showPoint([Number(across.value), Number(down.value)]));
    slider.addEventListener("change", () => save({ focal: [rounded(Number(across.value)), rounded(Number(down.value))] }));
  }
  part("clear-focal", view).addEventListener("click", () => save({ focal: null }));
  part("alt-form", view).addEventListener("submit", (event) => {
    event.preventDefault();
    save({ alt: alt.value.trim() });
  });
  show();
}

/** The rendition of the fallback, which every browser shows, whose width is nearest to `width`. */
function nearestTo(sources, width) {
  const { renditions } = sources.at(-1);
  return renditions.reduce((nearest, other) => (Math.abs(other.width - width) < Math.abs(nearest.width - width) ? other : nearest));
}
