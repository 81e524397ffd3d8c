/** The types of `darkroom.js/react`. */

import type { ComponentPropsWithRef, ReactElement } from "react";
import type { ImageOnServer, KnownImage } from "./picture.js";

type Attributes = Omit<ComponentPropsWithRef<"img">, keyof ImageOnServer | "srcSet">;

/** The image, how it is loaded, and any other attributes of the `<img>`. */
export type PictureProps = Attributes & (KnownImage | ImageOnServer);

/** Show an image of a manifest, a document, or a digest: the browser loads the best format that it supports, at the width that it needs. */
export function Picture(properties: PictureProps): ReactElement;
