// The attributes of the elements that the components `Picture` for React, Vue and Svelte make.

import { elements, ladder } from "../darkroom.js";

/**
 * Return the attributes of the `<source>` elements and of the `<img>`: `{ sources, img }`.
 *
 * The properties are those of the components: `image`, or the options of `ladder`; the options of `picture`; and other attributes of the
 * `<img>`.
 */
export function pictureElements({ image, ...all }) {
  // Vue passes all properties that it knows, and a page that leaves one open means its default.
  const properties = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
  if (image) return ordered(elements(image, properties));
  const { base, src, source, widths, variant, quality, formats, width, height, ...options } = properties;
  return ordered(elements(ladder({ base, src, source, widths, variant, quality, formats, width, height }), options));
}

/** Components set attributes one after the other: browsers must know the candidates before they fetch `src`. */
function ordered({ sources, img: { src, srcset, ...img } }) {
  return { sources, img: { ...img, srcset, src } };
}
