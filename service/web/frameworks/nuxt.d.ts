/** The types of `darkroom.js/nuxt`. */

import type { Format, LoaderOptions } from "../darkroom.js";

/** The modifiers that have an effect. */
export interface Modifiers {
  width?: number | string;
  /** In pixels: the aspect ratio chooses a variant; ignored if there is none. */
  height?: number | string;
  /** Chooses a variant; ignored if there is none. */
  quality?: number | string;
  format?: Format | "auto";
  /** A transform in canonical form that the server has as a variant. */
  variant?: string;
  // Other modifiers of @nuxt/image are transforms that need a variant.
  fit?: never;
  background?: never;
  blur?: never;
}

/** The options of the provider in nuxt.config: those of a loader, with `baseURL` in place of `base`. */
export interface ProviderOptions extends Omit<LoaderOptions, "base"> {
  /** The server's origin, such as `https://img.example.com`. */
  baseURL?: string;
  modifiers?: Modifiers;
}

/** The modifiers as @nuxt/image passes them. */
export interface AnyModifiers {
  width?: number | string;
  height?: number | string;
  quality?: number | string;
  format?: string;
}

export interface Provider<Options> {
  defaults?: Options;
  getImage(
    src: string,
    options: Omit<Options, "modifiers"> & { modifiers?: AnyModifiers },
  ): {
    url: string;
    getMeta?: () => Promise<{ width: number; height: number; placeholder?: string }>;
  };
}

/** Return the URL of an image, for version 1 of @nuxt/image. */
export const getImage: Provider<ProviderOptions>["getImage"];

/** Return the provider, for version 2 of @nuxt/image. */
export default function provider(): Provider<ProviderOptions>;
