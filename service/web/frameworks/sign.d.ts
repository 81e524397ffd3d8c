/** The types of `darkroom.js/sign`. */

import type { RenditionUrl, SourceUrl } from "../darkroom.js";

export type { RenditionUrl, SourceUrl } from "../darkroom.js";

/** Return a function that signs URLs on servers: it returns the path, without the server's origin. `keys` is DARKROOM_KEYS. */
export function signer(keys: string): (url: RenditionUrl | SourceUrl) => string;
