// The entry `darkroom.js/react`: a component that shows an image. It has no state, so it also works in server components.

import { createElement } from "react";
import { pictureElements } from "./picture.js";

const NAMES = { srcset: "srcSet", fetchpriority: "fetchPriority" };

/** Show an image of a manifest, a document, or a digest: the browser loads the best format that it supports, at the width that it needs. */
export function Picture(properties) {
  const { sources, img } = pictureElements(properties);
  return createElement(
    "picture",
    null,
    ...sources.map((source) => createElement("source", inReact(source))),
    createElement("img", inReact(img)),
  );
}

function inReact(attributes) {
  return Object.fromEntries(Object.entries(attributes).map(([name, value]) => [NAMES[name] ?? name, value]));
}
