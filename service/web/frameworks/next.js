// The entry `darkroom.js/next`: loaders for next/image.

import { image } from "../darkroom.js";

export { LADDER_WIDTHS as deviceSizes, loader, manifestLoader } from "../darkroom.js";

/** Return the properties of `<Image>` for an image of a manifest: its path, size, alternative text and placeholder. */
export function imageProps(manifest, path) {
  const { width, height, alt, placeholder } = image(manifest, path);
  return { src: path, width, height, alt, placeholder: placeholder.data_url };
}
