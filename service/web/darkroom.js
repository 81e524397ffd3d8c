// darkroom.js puts Darkroom's images on pages: it makes srcset, `<picture>` and loaders for frameworks from a manifest
// (`darkroom push --manifest`) or an image document (GET /v1/images/{digest}), and loaders from a digest only. On servers that have the key,
// it signs URLs.
//
// It has no dependencies and uses neither the DOM nor Node, so it runs wherever ES modules do. Types are in darkroom.d.ts.

/** The version of manifests that this module reads. */
export const MANIFEST_VERSION = 1;

/** The pipeline version of new URLs: PIPELINE_VERSION of service/urls/rendition_url.py. */
export const PIPELINE_VERSION = 3;

// The default of DARKROOM_WIDTHS: LADDER_WIDTHS of service/images/ladder.py.
const LADDER_WIDTHS = [320, 640, 960, 1280, 1920, 2560];

const DEFAULT_SIZES = "auto, 100vw";

const FORMATS = ["jxl", "avif", "webp", "jpeg", "png", "gif"];
const EXTENSIONS = ["jxl", "avif", "webp", "jpg", "png", "gif", "auto"];
const MAX_TRANSFORM_CHARACTERS = 1024;
const MAX_URL_CHARACTERS = 2048;
const SIGNATURE_BYTES = 16;

const DIGEST = /^[a-z2-7]{32}$/;
const TRANSFORM = /^[A-Za-z0-9.:_=,-]+$/;
const HEX_KEY = /^(?:[0-9a-fA-F]{2}){16,}$/;
// With the flag `u` a surrogate pair is one character, so only lone surrogates match.
const LONE_SURROGATE = /\p{Surrogate}/u;

// ---- Images

/** Return the image at `path` of a manifest; a leading `/` or `./` is ignored. Throws if the manifest has another version or no such path. */
export function image(manifest, path) {
  const { images } = requireManifest(manifest);
  const name = String(path).replace(/^\.?\/+/, "");
  if (Object.hasOwn(images, name)) return images[name];
  const paths = Object.keys(images);
  const ending = name.slice(name.lastIndexOf("/") + 1).toLowerCase();
  const near = paths.filter((known) => known.toLowerCase().endsWith(ending));
  const some = (near.length ? near : paths).slice(0, 3).map((known) => JSON.stringify(known));
  throw new Error(
    `The manifest has no image ${JSON.stringify(path)}. ${near.length ? "Near it" : "Expected one"} of its ${paths.length} paths` +
      `${some.length ? `: ${some.join(", ")}` : ""}. Correct the path, or push the image and write the manifest again.`,
  );
}

/** Return the srcset of an image in `format`, by default in the fallback format, which every browser supports. */
export function srcset(image, format) {
  return source(image, format).srcset;
}

/**
 * Return an image as `<picture>` in HTML: the browser loads the best format that it supports, at the width that it needs.
 *
 * With `priority`, the image is loaded at once and before others, for the largest image in the first view of a page. Other images are
 * loaded lazily, when they come near the view; then the default `sizes` is the width at which the page shows them, in browsers that know
 * `auto`, and the width of the window in others. Images that are not loaded lazily cannot have `auto`, so it is removed.
 *
 * Further `attributes` are added to the `<img>` or replace its own: `{ class: "hero", loading: "eager" }`. `false`, `null` and `undefined`
 * remove an attribute, `true` is an attribute without a value. All values are escaped.
 */
export function picture(image, { sizes = DEFAULT_SIZES, alt = image.alt, priority = false, ...attributes } = {}) {
  const fallback = source(image);
  const { width, height } = fallback.renditions.at(-1);
  const loading = priority ? { loading: "eager", fetchpriority: "high" } : { loading: "lazy" };
  const lazy = String({ ...loading, ...attributes }.loading).toLowerCase() === "lazy";
  const img = {
    src: image.src,
    srcset: fallback.srcset,
    sizes: lazy ? sizes : withoutAuto(sizes),
    width,
    height,
    alt,
    ...loading,
    decoding: "async",
    ...attributes,
  };
  return [
    "<picture>",
    ...image.sources
      .slice(0, -1)
      .map(({ media, type, srcset }) => `  <source${serializeAttributes({ media, type, srcset, sizes: img.sizes })}>`),
    `  <img${serializeAttributes(img)}>`,
    "</picture>",
  ].join("\n");
}

/**
 * Return the value of a `Link` header for a page that shows an image with `priority`: the browser fetches the image before it parses the
 * page. `sizes` is that of the `picture`.
 *
 * Only browsers that support the type of the best source preload it, so that none fetches two formats. If that source is for some screens
 * only, there is a second link for the others.
 */
export function preload(image, { sizes = DEFAULT_SIZES } = {}) {
  return preloads(image, sizes)
    .map(({ imagesrcset, imagesizes, type, media, href }) => {
      const quoted = Object.entries({ imagesrcset, imagesizes, type, media })
        .filter(([, value]) => value)
        .map(([name, value]) => `; ${name}=${quotedString(value)}`)
        .join("");
      return `<${href}>; rel=preload; as=image${quoted}; fetchpriority=high`;
    })
    .join(", ");
}

/** Return the same as `<link>` elements in HTML, for the `<head>` of a page. */
export function preloadLinks(image, { sizes = DEFAULT_SIZES } = {}) {
  return preloads(image, sizes)
    .map(({ imagesrcset, imagesizes, type, media }) => {
      const attributes = { rel: "preload", as: "image", imagesrcset, imagesizes, type, media, fetchpriority: "high" };
      return `<link${serializeAttributes(attributes)}>`;
    })
    .join("\n");
}

function preloads({ sources }, sizes) {
  const first = sources[0];
  const links = first.media
    ? [first, { ...sources.find(({ media }) => !media), media: `not all and ${first.media}` }]
    : [first];
  return links.map(({ srcset, type, media, renditions }) => ({
    imagesrcset: srcset,
    imagesizes: withoutAuto(sizes),
    type,
    media,
    // For browsers that know the type and not `imagesrcset`: the narrowest rendition wastes the fewest bytes there.
    href: renditions[0].url,
  }));
}

function withoutAuto(sizes) {
  return String(sizes ?? "").replace(/^[ \t\n\f\r]*auto[ \t\n\f\r]*(?:,[ \t\n\f\r]*|$)/i, "") || "100vw";
}

/** Return a quoted string (RFC 9110 §5.6.4). White space of CSS becomes a space, and characters that a header cannot carry become `?`. */
function quotedString(text) {
  const printable = text.replace(/[\t\n\f\r]/g, " ").replace(/[^ -~]/gu, "?");
  return `"${printable.replace(/["\\]/g, "\\$&")}"`;
}

// ---- Loaders

/**
 * Return a loader for Next.js: `({ src, width })` → the URL of the narrowest step that is at least `width` pixels wide, or of the widest step.
 *
 * `from` is one of these:
 * - `{ base, widths }`: the origin of a Darkroom server with its open ladder, and the server's DARKROOM_WIDTHS if it has its own; `src` is
 *   the digest of an image. Nothing else is needed, so images can be chosen at run time.
 * - A manifest; `src` is one of its paths.
 * - The document of one image; `src` is ignored.
 *
 * A URL has one format: browsers support WebP since 2020, "avif", which is smaller, since 2024, and "jxl", which is smaller still, since
 * October 2026. Darkroom chooses the quality.
 */
export function loader(from, { format = "webp" } = {}) {
  const find = urlFinder(from);
  return ({ src, width }) => find(src, format, width);
}

/** Return the same as a transformer for unpic: `(src, { width, format })` → URL; without a width, the URL of the widest step. */
export function transformer(from, { format = "webp" } = {}) {
  const find = urlFinder(from);
  return (src, wanted = {}) => find(src, wanted.format ?? format, wanted.width);
}

function urlFinder(from) {
  if (typeof from?.base === "string") return (digest, format, width) => openUrl(from, digest, format, width);
  if (Array.isArray(from?.sources)) return (_, format, width) => step(source(from, format), width).url;
  requireManifest(from);
  return (path, format, width) => step(source(image(from, path), format), width).url;
}

/** Return the URL of a step of the open ladder, which needs no signature. */
function openUrl({ base, widths = LADDER_WIDTHS }, digest, format, width = Infinity) {
  const chosen = widths.find((step) => step >= width) ?? widths.at(-1);
  const extension = format === "jpeg" ? "jpg" : format;
  const [start, end] = signedParts({ digest: String(digest), transform: `width=${chosen}`, extension });
  return `${base.replace(/\/+$/, "")}${start}/-${end}`;
}

function requireManifest(manifest) {
  const version = manifest?.version;
  if (version === MANIFEST_VERSION && typeof manifest.images === "object" && manifest.images !== null) return manifest;
  const received =
    typeof manifest !== "object" || manifest === null
      ? typeof manifest
      : `version ${JSON.stringify(version)}${"images" in manifest ? "" : " without images"}`;
  const remedy =
    version > MANIFEST_VERSION
      ? "It was written by a newer Darkroom: update darkroom.js, or run `darkroom push` with the Darkroom that this darkroom.js came from."
      : "Delete the file and run `darkroom push --manifest` again: it writes a new manifest, and uploads nothing twice.";
  throw new Error(
    `This is not a manifest that darkroom.js can read: expected version ${MANIFEST_VERSION}, got ${received}. ${remedy}`,
  );
}

/**
 * Return an image's ladder in `format`. If the image has no such ladder, return its best format that browsers with `format` support: the
 * first one after it in the order of `FORMATS`. Ladders for some screens only are left out.
 */
function source(image, format = image.sources.at(-1).type.replace("image/", "")) {
  const sources = image.sources.filter(({ media }) => !media);
  const name = format === "jpg" ? "jpeg" : format;
  if (!FORMATS.includes(name))
    throw new Error(`There is no format ${JSON.stringify(format)}. Expected one of ${FORMATS.join(", ")}.`);
  const supported = FORMATS.slice(FORMATS.indexOf(name)).map((known) => `image/${known}`);
  return sources.find(({ type }) => supported.includes(type)) ?? sources.at(-1);
}

function step({ renditions }, width = Infinity) {
  return renditions.find((rendition) => rendition.width >= width) ?? renditions.at(-1);
}

// ---- HTML

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;" };

function serializeAttributes(attributes) {
  return Object.entries(attributes)
    .filter(([, value]) => value !== false && value !== null && value !== undefined)
    .map(([name, value]) => {
      if (!/^[A-Za-z][A-Za-z0-9-]*$/.test(name))
        throw new Error(`${JSON.stringify(name)} is not the name of an attribute. Expected letters, digits and "-".`);
      return value === true
        ? ` ${name}`
        : ` ${name}="${String(value).replace(/[&<>"']/g, (character) => ENTITIES[character])}"`;
    })
    .join("");
}

// ---- Signing

/**
 * Return a function that signs URLs, for servers and edge functions. The key must never reach a browser.
 *
 * `keys` has the same value as the server's DARKROOM_KEYS: hexadecimal, the first key signs. `crypto` is WebCrypto; Node 18 has it only as
 * `webcrypto` in `node:crypto`. The signer takes `{ digest, transform, extension, version }` or, for a remote source,
 * `{ url, transform, extension }`, and resolves to the path of the URL; put the server's origin before it. `transform` is in canonical
 * form: its options in the order in which they act.
 */
export function signer(keys, crypto = globalThis.crypto) {
  const [newest = ""] = String(keys ?? "")
    .split(",")
    .map((key) => key.trim())
    .filter(Boolean);
  if (!HEX_KEY.test(newest)) {
    // The key itself is a secret, and errors go to logs.
    throw new Error(
      `This is not a signing key: expected an even number of hexadecimal digits, at least 32, got ${newest.length} characters. ` +
        "Use the value of the server's DARKROOM_KEYS.",
    );
  }
  if (!crypto?.subtle) {
    throw new Error(
      'Signing needs WebCrypto, which this runtime does not have. On Node 18, write `import { webcrypto } from "node:crypto"` and `signer(keys, webcrypto)`.',
    );
  }
  const bytes = Uint8Array.from(newest.match(/../g), (digits) => parseInt(digits, 16));
  let key;
  return async (renditionUrl) => {
    const [start, end] = signedParts(renditionUrl);
    key ??= await crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
    const mac = await crypto.subtle.sign("HMAC", key, new TextEncoder().encode(start + end));
    return `${start}/${base32(new Uint8Array(mac, 0, SIGNATURE_BYTES))}${end}`;
  };
}

/** Return the parts of a URL's path before and after its signature; together they are the signed text. */
function signedParts({
  digest,
  url,
  transform = "full",
  extension = url === undefined ? undefined : "auto",
  version = PIPELINE_VERSION,
}) {
  const must = (right, what, expected, received) => {
    if (!right) throw new Error(`The ${what} is invalid: expected ${expected}, got ${JSON.stringify(received)}.`);
  };
  must(
    typeof transform === "string" && TRANSFORM.test(transform) && transform.length <= MAX_TRANSFORM_CHARACTERS,
    "transform",
    `options in canonical form, such as "width=640,height=480,fit=cover", or "full"; at most ${MAX_TRANSFORM_CHARACTERS} characters`,
    transform,
  );
  must(EXTENSIONS.includes(extension), "extension", EXTENSIONS.join(", "), extension);
  if (url !== undefined) {
    must(digest === undefined, "digest", "a digest or a URL, not both", digest);
    const encoded = base64url(url);
    must(
      encoded !== null && encoded.length <= MAX_URL_CHARACTERS,
      "URL",
      `text of at most ${MAX_URL_CHARACTERS} characters in base64url`,
      url,
    );
    return [`/pull/v1/${encoded}/${transform}`, `.${extension}`];
  }
  must(
    typeof digest === "string" && DIGEST.test(digest),
    "digest",
    "32 of a-z and 2-7, as in an image document",
    digest,
  );
  must(
    Number.isInteger(version) && version >= 1 && version <= 999_999,
    "version",
    "a pipeline version, 1 to 999999",
    version,
  );
  return [`/i/v${version}/${digest}/${transform}`, `.${extension}`];
}

/** Encode bytes in lower-case base32 without padding (RFC 4648 §6). */
function base32(bytes) {
  const bits = Array.from(bytes, (byte) => byte.toString(2).padStart(8, "0")).join("");
  return bits
    .match(/.{1,5}/g)
    .map((five) => "abcdefghijklmnopqrstuvwxyz234567"[parseInt(five.padEnd(5, "0"), 2)])
    .join("");
}

/** Encode a text's UTF-8 in base64url without padding (RFC 4648 §5); return null if it has no UTF-8 or is too long for a URL. */
function base64url(text) {
  if (typeof text !== "string" || text === "" || text.length > MAX_URL_CHARACTERS || LONE_SURROGATE.test(text))
    return null;
  const bytes = new TextEncoder().encode(text);
  return btoa(String.fromCharCode(...bytes))
    .replace(/\+/g, "-")
    .replace(/\//g, "_")
    .replace(/=+$/, "");
}
