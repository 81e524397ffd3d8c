/** The properties of the components `Picture`. */

import type { ImageDocument, OpenImage, PictureElements } from "../darkroom.js";

export interface Shown {
  /** As in `<img sizes>`; `auto, 100vw` by default, and `100vw` if the image is not loaded lazily. */
  sizes?: string;
  /** Load the image at once and before others, for the largest image in the first view of a page; `false` by default. */
  priority?: boolean;
}

/** An image of a manifest or a document; its alternative text is that of the image by default. */
export interface KnownImage extends Shown {
  image: Pick<ImageDocument, "sources" | "src" | "alt">;
  alt?: string;
  width?: number | string;
  height?: number | string;
  base?: undefined;
  src?: undefined;
  source?: undefined;
  widths?: undefined;
  variant?: undefined;
  quality?: undefined;
  formats?: undefined;
}

/** An image on a server, which can be chosen at run time. */
export interface ImageOnServer extends Shown, OpenImage {
  image?: undefined;
  alt: string;
}

/** Return the attributes of the elements of a component. */
export function pictureElements(properties: KnownImage | ImageOnServer): PictureElements;
