/** The types of `darkroom.js/unpic`. */

import type { Format, LoaderOptions, Manifest, Operations } from "../darkroom.js";

export type { LoaderOptions, Operations } from "../darkroom.js";
export { LADDER_WIDTHS as breakpoints } from "../darkroom.js";

/** The operations of any transformer. */
export interface AnyOperations extends Omit<Operations, "format"> {
  format?: Format | "auto" | (string & {});
}

/**
 * Returns the URL of an image. The components of unpic have one type of operations for all transformers, so the compiler
 * does not know the formats, and the qualities of the variants, as it does with the `transformer` of the main module.
 */
export type Transformer = (src: string | URL, operations?: AnyOperations, options?: unknown) => string;

/** Return a transformer for the images of a server, by their digests. */
export function transformer(server: LoaderOptions): Transformer;

/** Return a transformer for the images of a manifest, by their paths. */
export function manifestTransformer(manifest: Manifest, options?: { format?: Format }): Transformer;

/** Return the parts of an open URL of a Darkroom, or `null` if it is another URL. */
export function extract(
  url: string | URL,
): { src: string; operations: Operations; options: { base: string; source?: string } } | null;

/** Return the URL of an image from its digest. */
export function generate(src: string | URL, operations: AnyOperations, options: LoaderOptions): string;

/** Return the URL of an image from its digest, or from another open URL of it. */
export function transform(src: string | URL, operations: AnyOperations, options?: Partial<LoaderOptions>): string;
