/** The types of `darkroom.js/svelte`. */

import type { Component } from "svelte";
import type { HTMLImgAttributes } from "svelte/elements";
import type { OpenImage } from "../darkroom.js";
import type { KnownImage, Shown } from "./picture.js";

type Attributes = Omit<HTMLImgAttributes, keyof KnownImage | "srcset">;

/**
 * The image, how it is loaded, and any other attributes of the `<img>`. Either `image`, or `base` and `src`, must be given; the compiler does
 * not know that, because with a union the attributes of Svelte would be too complex for it.
 */
export interface PictureProps extends Attributes, Shown, Partial<OpenImage> {
  image?: KnownImage["image"];
  /** Replaces the alternative text of `image`; without it, it is needed. */
  alt?: string;
}

/** Show an image of a manifest, a document, or a digest: the browser loads the best format that it supports, at the width that it needs. */
export const Picture: Component<PictureProps>;
