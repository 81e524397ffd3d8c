// The entry `darkroom.js/nuxt`: a provider for @nuxt/image, versions 1 and 2.

import { transformer } from "../darkroom.js";

/** Return the URL of an image. The options are those of the provider in nuxt.config, and the modifiers those of the component. */
export function getImage(src, { modifiers, baseURL, ...options }) {
  return { url: transformer({ ...options, base: baseURL })(src, modifiers) };
}

/** Return the provider, as version 2 of @nuxt/image calls it; version 1 takes `getImage` from the module. */
export default () => ({ getImage });
