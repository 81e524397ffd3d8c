// The entry `darkroom.js/nuxt/manifest`: a provider for @nuxt/image, versions 1 and 2, for the images of a manifest.

import { image, manifestTransformer } from "../darkroom.js";

/** Return the URL, the size and the placeholder of an image. The options are those of the provider in nuxt.config. */
export function getImage(src, { modifiers, manifest, format }) {
  const { width, height, placeholder } = image(manifest, src);
  return {
    url: manifestTransformer(manifest, { format })(src, modifiers),
    getMeta: async () => ({ width, height, placeholder: placeholder.data_url }),
  };
}

/** Return the provider, as version 2 of @nuxt/image calls it; version 1 takes `getImage` from the module. */
export default () => ({ getImage });
