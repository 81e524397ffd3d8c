/** The types of `darkroom.js/next`. */

import type { Manifest } from "../darkroom.js";

export type { Loader, LoaderOptions } from "../darkroom.js";
export { LADDER_WIDTHS as deviceSizes, loader, manifestLoader } from "../darkroom.js";

/** The properties of `<Image>` that a manifest knows. */
export interface ImageProps {
  src: string;
  width: number;
  height: number;
  alt: string;
  placeholder: `data:image/${string}`;
}

/** Return the properties of `<Image>` for an image of a manifest: its path, size, alternative text and placeholder. */
export function imageProps(manifest: Manifest, path: string): ImageProps;
