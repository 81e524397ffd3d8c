// The entry `darkroom.js/unpic`: transformers for the components of unpic, and a provider in the form of those of the package unpic.

import { transformer } from "../darkroom.js";

export { LADDER_WIDTHS as breakpoints, manifestTransformer, transformer } from "../darkroom.js";

const OPEN_URL = /^(.*)\/(?:i\/v\d+|from\/([^/]+))\/(.+)\/([^/]+)\/-(?:\/([^/.]+))?\.([a-z]+)$/;

/** Return the parts of an open URL of a Darkroom, `{ src, operations, options }`, or `null` if it is another URL. */
export function extract(url) {
  const [, base, source, path, transform, name, format] = OPEN_URL.exec(String(url)) ?? [];
  if (!path) return null;
  const width = /(?:^|,)width=(\d+)/.exec(transform);
  const variant = transform.replace(/(?:^|,)width=\d+|^full$/, "").replace(/^,/, "");
  return {
    src: decodeURIComponent(name ? `${path}/${name}` : path),
    operations: { format, ...(width && { width: Number(width[1]) }), ...(variant && { variant }) },
    options: { base, ...(source && { source }) },
  };
}

/** Return the URL of the digest of an image; `options` are those of `transformer`. */
export function generate(src, operations, options) {
  return transformer(options)(src, operations);
}

/** Return the URL of the digest or of a URL of an image with other operations; `options` are those of `transformer`. */
export function transform(src, operations, options) {
  const found = extract(src);
  return found
    ? generate(found.src, { ...found.operations, ...operations }, { ...found.options, ...options })
    : generate(src, operations, options);
}
