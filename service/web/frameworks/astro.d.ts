/** The types of `darkroom.js/astro`. */

import type { LoaderOptions, Manifest } from "../darkroom.js";

export { LADDER_WIDTHS as breakpoints } from "../darkroom.js";

/** The `config` of the service: the options of a loader, or a manifest. */
export type Config = LoaderOptions | (Pick<LoaderOptions, "format"> & { manifest: Manifest });

interface ImageConfig {
  service: { config: Config };
}

/** An image as Astro describes it to a service. */
export interface ImageTransform {
  src: string | { src: string; width: number; height: number };
  width?: number;
  height?: number;
  widths?: number[];
  densities?: (number | `${number}x`)[];
  format?: string;
  quality?: number | string;
  /** A transform in canonical form that the server has as a variant. */
  variant?: string;
  [attribute: string]: unknown;
}

declare const service: {
  validateOptions(options: ImageTransform, config: ImageConfig): ImageTransform;
  getURL(options: ImageTransform, config: ImageConfig): string;
  getSrcSet(
    options: ImageTransform,
    config: ImageConfig,
  ): { transform: ImageTransform; descriptor: string; attributes: Record<string, string> }[];
  getHTMLAttributes(options: ImageTransform, config: ImageConfig): Record<string, unknown>;
};

export default service;
