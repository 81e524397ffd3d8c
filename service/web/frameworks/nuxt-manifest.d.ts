/** The types of `darkroom.js/nuxt/manifest`. */

import type { Format, Manifest } from "../darkroom.js";
import type { Modifiers, Provider } from "./nuxt.js";

/** The options of the provider in nuxt.config. */
export interface ProviderOptions {
  manifest?: Manifest;
  /** WebP by default. */
  format?: Format;
  modifiers?: Omit<Modifiers, "height" | "quality" | "variant"> & { height?: never; quality?: never };
}

/** Return the URL, the size and the placeholder of an image, for version 1 of @nuxt/image. */
export const getImage: Provider<ProviderOptions>["getImage"];

/** Return the provider, for version 2 of @nuxt/image. */
export default function provider(): Provider<ProviderOptions>;
