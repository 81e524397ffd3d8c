// darkroom.js puts Darkroom's images on pages: it makes srcset, `<picture>` and loaders for frameworks from the digest of an image, from a
// manifest (`darkroom push --manifest`) or from an image document (GET /v1/images/{digest}). On servers that have the key, it signs URLs.
//
// It has no dependencies and uses neither the DOM nor Node, so it runs wherever ES modules do. Types are in darkroom.d.ts. Each entry of the
// package for a framework, in the folder `frameworks`, takes from this module the functions that it needs.

/** The version of manifests that this module reads. */
export const MANIFEST_VERSION = 1;

/** The pipeline version of new URLs: PIPELINE_VERSION of service/urls/rendition_url.py. */
export const PIPELINE_VERSION = 3;

/** The widths of the open ladder: the default of DARKROOM_WIDTHS, LADDER_WIDTHS of service/images/ladder.py. */
export const LADDER_WIDTHS = [320, 640, 960, 1280, 1920, 2560];

const DEFAULT_SIZES = "auto, 100vw";

const FORMATS = ["jxl", "avif", "webp", "jpeg", "png", "gif"];
const EXTENSIONS = ["jxl", "avif", "webp", "jpg", "png", "gif", "auto"];
// Every image is open in these: OPEN_FOR_EVERY_IMAGE of service/urls/unsigned.py.
const OPEN_FORMATS = ["jxl", "avif", "webp", "jpeg"];
const MAX_TRANSFORM_CHARACTERS = 1024;
const MAX_OBJECT_PATH_CHARACTERS = 3072;
const MAX_NAME_CHARACTERS = 80;
const MAX_NAME_BYTES = 240;
const SIGNATURE_BYTES = 16;

const DIGEST = /^[a-z2-7]{32}$/;
const TRANSFORM = /^[A-Za-z0-9.:_=,-]+$/;
const SOURCE = /^[a-z][a-z0-9-]{0,31}$/;
// Browsers would take a segment of dots, or an empty one, out of a path.
const LOST_SEGMENT = /(?:^|\/)\.{0,2}(?:\/|$)/;
const NAME = /^(?:[\p{L}\p{Nd}]\p{M}*|[_-])+$/u;
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
export function picture(image, options) {
  const { sources, img } = elements(image, options);
  return [
    "<picture>",
    ...sources.map((source) => `  <source${serializeAttributes(source)}>`),
    `  <img${serializeAttributes(img)}>`,
    "</picture>",
  ].join("\n");
}

/** Return the attributes of the same elements, for components: `{ sources, img }`. */
export function elements(image, { sizes = DEFAULT_SIZES, alt = image.alt, priority = false, ...attributes } = {}) {
  const fallback = source(image);
  const { width, height } = fallback.renditions.at(-1);
  const loading = priority ? { loading: "eager", fetchpriority: "high" } : { loading: "lazy" };
  const lazy = String({ ...loading, ...attributes }.loading).toLowerCase() === "lazy";
  const img = {
    src: image.src,
    srcset: fallback.srcset,
    sizes: lazy ? sizes : withoutAuto(sizes),
    // A ladder without the size of its image has only the widths of its steps.
    width: height && width,
    height,
    alt,
    ...loading,
    decoding: "async",
    ...attributes,
  };
  const sources = image.sources.slice(0, -1).map(({ media, type, srcset, sizes, width, height }) => {
    const own = sizes && (lazy ? sizes : withoutAuto(sizes));
    return { media, type, srcset, sizes: own || img.sizes, width, height };
  });
  return { sources, img };
}

/**
 * Return an image that shows others, often other crops of it, on some screens: the first of `crops` whose `media` applies. `picture`,
 * `preload` and `preloadLinks` take it.
 *
 * A crop is `{ media, image, sizes }`: a media condition such as `(max-width: 40em)`, without media types and commas; an image as `picture`
 * takes it; and the `sizes` of its sources, by default that of the picture.
 */
export function withArtDirection(image, crops) {
  const sources = crops.flatMap(({ media, image: shown, sizes }) => {
    if (!/^(?:not )?\(.+\)$/is.test(media) || /\)\s*,/.test(media))
      throw new Error(`${JSON.stringify(media)} is not a media condition. Expected one such as "(max-width: 40em)".`);
    const { width, height } = source(shown).renditions.at(-1);
    return shown.sources.map((own) => ({
      ...own,
      media: allOf(media, own.media),
      sizes,
      width: height && width,
      height,
    }));
  });
  return { ...image, sources: [...sources, ...image.sources] };
}

// All browsers can read these in larger media conditions. Nested parentheses are Media Queries 4.
const FEATURES = /^\([^()]*\)(?: and \([^()]*\))*$/i;

/** Return a media condition as it can stand beside `and`. */
const operand = (condition) => (FEATURES.test(condition) ? condition : `(${condition})`);

/** Return the media condition that holds where both do; an empty one always holds. */
function allOf(first, second) {
  return first && second ? `${operand(first)} and ${operand(second)}` : first || second;
}

/** Return the media condition that holds where `condition` does and none of `others`. */
function excluding(condition, others) {
  if (!others.length) return condition;
  // A whole media query is negated, which all browsers can read.
  if (!condition && others.length === 1 && FEATURES.test(others[0])) return `not all and ${others[0]}`;
  const negated = others.map((other) => `(not ${/^\([^()]*\)$/.test(other) ? other : `(${other})`})`);
  return (condition ? [operand(condition), ...negated] : negated).join(" and ");
}

/**
 * Return the value of a `Link` header for a page that shows an image with `priority`: the browser fetches the image before it parses the
 * page. `sizes` is that of the `picture`.
 *
 * Only browsers that support the type of the best source preload it, so that none fetches two formats. If there are sources for some
 * screens only, there is a link for each kind of screens, and their conditions exclude each other.
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
  const conditions = [...new Set(sources.map(({ media }) => media || ""))];
  const links = conditions.map((condition) => sources.find(({ media }) => (media || "") === condition));
  return links.map(({ srcset, type, sizes: own, renditions }, index) => ({
    imagesrcset: srcset,
    imagesizes: withoutAuto(own || sizes),
    type,
    media: excluding(conditions[index], conditions.slice(0, index)) || undefined,
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

// ---- URLs from a digest

/**
 * Return the open ladder of an image, which `picture`, `srcset` and `preload` accept in place of its document.
 *
 * `base`, `widths`, `source`, `quality` and `src` are those of `transformer`. `variant` is a transform in canonical form that the server has as a
 * variant. `width` and `height` are the size of the image in pixels, with the variant: the ladder ends there, and the page keeps the place
 * of the image free until it has loaded. `formats` are in the order of preference, the fallback last.
 */
export function ladder({ src, width, height, variant, formats = OPEN_FORMATS, ...server }) {
  const { widths = LADDER_WIDTHS } = server;
  const steps = widths.filter((_, index) => !(widths[index - 1] >= width));
  const sources = formats.map((format) => {
    const renditions = steps.map((step) => ({
      // At the widest step, the rendition has the width of the image, because it does not grow.
      width: Math.min(step, width ?? step),
      height: height && width && Math.round((Math.min(step, width) * height) / width),
      url: openUrl(server, src, format, step, variant),
    }));
    const srcset = renditions.map((rendition) => `${rendition.url} ${rendition.width}w`).join(", ");
    return { type: `image/${format}`, srcset, renditions };
  });
  const { renditions } = sources.at(-1);
  return { alt: "", src: renditions[renditions.length >> 1].url, sources };
}

/** Return the URL of a step of the open ladder, which needs no signature. */
function openUrl({ base, source, quality = {} }, src, format, width, variant) {
  const path = String(src).replace(/^\/+/, "");
  const extension = format === "jpeg" ? "jpg" : format;
  const [, digest, name] = /^([a-z2-7]{32})(?:\/([^/]+))?$/.exec(path) ?? [];
  // A variable of the environment may be missing.
  must(typeof base === "string", "base", "the origin of a Darkroom server", base);
  must(EXTENSIONS.includes(extension), "format", EXTENSIONS.join(", "), format);
  if (source) must(!LOST_SEGMENT.test(path), "path", "names separated by single slashes", src);
  else must(digest, "digest", "32 of a-z and 2-7, as in an image document", src);
  const [start, end] = urlParts({
    digest,
    name,
    source,
    path,
    transform: withQuality(atWidth(variant, width), quality[format === "jpg" ? "jpeg" : format]),
    extension,
  });
  return `${base.replace(/\/+$/, "")}${start}/-${end}`;
}

/** Return a variant with another width; its height is in proportion. */
function atWidth(variant, width) {
  const [, before, ownWidth, after] =
    /^((?:(?:frame|animate|crop|trim|rotate|flip)=[^,]*,)*)(?:width=(\d+),)?(.*)/.exec(variant ? `${variant},` : "");
  const scaled = after.replace(
    /^height=(\d+)/,
    (_, height) => `height=${Math.max(1, Math.round((height * width) / ownWidth))}`,
  );
  return `${before}width=${width},${scaled}`.slice(0, -1);
}

/** Return a transform with a quality, if it does not decide its loss itself. */
function withQuality(transform, quality) {
  return quality && !/,(?:quality|max_bytes|lossless|dynamic_range)=/.test(transform)
    ? transform.replace(/(?:,(?:effort|progressive)=.*)?$/, (rest) => `,quality=${quality}${rest}`)
    : transform;
}

/**
 * Return the variant with the aspect ratio of `width` and `height`, with `quality`, or with both. Variants with another aspect ratio or
 * quality do not fit. The aspect ratio may differ by 2 %, because frameworks round heights.
 */
function fittingVariant(variants, { width, height, quality }) {
  let chosen;
  let most = 0;
  for (const variant of variants) {
    const options = Object.fromEntries(variant.split(",").map((option) => option.split("=")));
    const [across, down] = options.ratio?.split(":") ?? [options.width, options.height];
    // NaN, which is never more, if something differs.
    const shape = down ? (Math.abs((width * down) / (height * across) - 1) < 0.02 ? 2 : Number.NaN) : 0;
    const grade = options.quality ? (options.quality === String(quality) ? 1 : Number.NaN) : 0;
    if (shape + grade > most) {
      most = shape + grade;
      chosen = variant;
    }
  }
  return chosen;
}

// ---- Loaders

/**
 * Return a function that returns the URL of an image: `(src, { width, height, quality, format, variant })` → URL of the narrowest step that
 * is at least `width` pixels wide, or of the widest step. It is a transformer for unpic.
 *
 * With `{ base, widths, source, variants, variant, format }`, it makes URLs of the open ladder of a server, so that images can be chosen at
 * run time:
 * - `base`: the origin of the server.
 * - `widths`: its DARKROOM_WIDTHS, if it has its own.
 * - `source`: the name of one of its DARKROOM_SOURCES; then `src` is the path of an image there. Without it, `src` is the digest of an
 *   image, or the digest, `/` and the name of the image.
 * - `variants`: transforms in canonical form that it has in DARKROOM_VARIANTS. A `quality`, and a `height` that gives an aspect ratio, choose
 *   the variant that has them, and are ignored if there is none.
 * - `variant`: the one for all images.
 * - `quality`: its DARKROOM_QUALITY, such as `{ avif: 55, webp: 78 }`.
 *
 * A URL has one format: browsers support WebP, the default, since 2020, "avif", which is smaller, since 2024, and "jxl", which is smaller
 * still, since October 2026. Darkroom chooses the quality.
 */
export function transformer({ format = "webp", variants = [], variant, ...server }) {
  const { widths = LADDER_WIDTHS } = server;
  return (src, wanted = {}) => {
    const step = widths.find((known) => known >= wanted.width) ?? widths.at(-1);
    return openUrl(
      server,
      src,
      wanted.format ?? format,
      step,
      wanted.variant ?? variant ?? fittingVariant(variants, wanted),
    );
  };
}

/** Return the same as a loader for Next.js: `({ src, width, quality })` → URL. */
export function loader(server) {
  const url = transformer(server);
  return ({ src, ...wanted }) => url(src, wanted);
}

/**
 * Return the same as `transformer` for a manifest: `src` is one of its paths. The URL is that of the narrowest step of the image's own
 * ladder that is wide enough, in `format`, or in the fallback of an image that does not have it. `height` and `quality` are ignored.
 */
export function manifestTransformer(manifest, { format = "webp" } = {}) {
  requireManifest(manifest);
  return (src, wanted = {}) => {
    const { renditions } = source(image(manifest, src), wanted.format ?? format);
    return (renditions.find(({ width }) => width >= wanted.width) ?? renditions.at(-1)).url;
  };
}

/** Return the same as a loader for Next.js. */
export function manifestLoader(manifest, options) {
  const url = manifestTransformer(manifest, options);
  return ({ src, width }) => url(src, { width });
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
 * `keys` has the same value as the server's DARKROOM_KEYS: hexadecimal, the first key signs. The signer takes
 * `{ digest, transform, extension, name, version }` or, for an image of a source, `{ source, path, transform, extension }`, and resolves to
 * the path of the URL; put the server's origin before it. `transform` is in canonical form: its options in the order in which they act.
 * `name` is at the end of the URL, for people and search engines.
 *
 * It uses WebCrypto, which is asynchronous. The package also has `darkroom.js/sign`, which is not.
 */
export function signer(keys) {
  const { key, payload, signed } = signing(keys);
  const { crypto } = globalThis;
  if (!crypto?.subtle) {
    throw new Error(
      "Signing needs WebCrypto, which this runtime does not have. On Node 18, use the `signer` of `darkroom.js/sign`.",
    );
  }
  let imported;
  return async (renditionUrl) => {
    const text = new TextEncoder().encode(payload(renditionUrl));
    imported ??= await crypto.subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
    return signed(renditionUrl, new Uint8Array(await crypto.subtle.sign("HMAC", imported, text)));
  };
}

/**
 * Return the parts of a signer, for another implementation of HMAC-SHA-256 (RFC 2104): `key` is the newest key in bytes,
 * `payload(renditionUrl)` the text to authenticate, and `signed(renditionUrl, code)` the path with its authentication code.
 */
export function signing(keys) {
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
  return {
    key: Uint8Array.from(newest.match(/../g), (digits) => Number.parseInt(digits, 16)),
    payload: (renditionUrl) => checkedParts(renditionUrl).join(""),
    signed(renditionUrl, code) {
      const [start, end] = checkedParts(renditionUrl);
      return `${start}/${base32(code.subarray(0, SIGNATURE_BYTES))}${end}`;
    },
  };
}

function must(right, what, expected, received) {
  if (!right) throw new Error(`The ${what} is invalid: expected ${expected}, got ${JSON.stringify(received)}.`);
}

/** Return the parts of a URL's path before and after its signature; together they are the signed text. */
function urlParts({ digest, name, source, path, transform, extension, version = PIPELINE_VERSION }) {
  return source
    ? [`/from/${source}/${encodePath(path)}/${transform}`, `.${extension}`]
    : [`/i/v${version}/${digest}/${transform}`, `${name ? `/${encodeURIComponent(name)}` : ""}.${extension}`];
}

function encodePath(path) {
  return path.split("/").map(encodeURIComponent).join("/");
}

/** Return the same, or throw an error that names the first invalid field. */
function checkedParts(fields) {
  const {
    source,
    path,
    digest,
    version,
    name = "",
    transform = "full",
    extension = source === undefined ? undefined : "auto",
  } = fields;
  must(
    typeof transform === "string" && TRANSFORM.test(transform) && transform.length <= MAX_TRANSFORM_CHARACTERS,
    "transform",
    `options in canonical form, such as "width=640,height=480,fit=cover", or "full"; at most ${MAX_TRANSFORM_CHARACTERS} characters`,
    transform,
  );
  must(EXTENSIONS.includes(extension), "extension", EXTENSIONS.join(", "), extension);
  if (source !== undefined) {
    must(digest === undefined, "digest", "a digest or a source, not both", digest);
    must(SOURCE.test(source), "source", "the name of one of the server's DARKROOM_SOURCES", source);
    const valid = typeof path === "string" && !LONE_SURROGATE.test(path) && !LOST_SEGMENT.test(path);
    must(
      valid && encodePath(path).length <= MAX_OBJECT_PATH_CHARACTERS,
      "path",
      `the path of an image in the source, of at most ${MAX_OBJECT_PATH_CHARACTERS} characters when it is encoded`,
      path,
    );
    return urlParts({ source, path, transform, extension });
  }
  must(
    typeof digest === "string" && DIGEST.test(digest),
    "digest",
    "32 of a-z and 2-7, as in an image document",
    digest,
  );
  must(
    version === undefined || (Number.isInteger(version) && version >= 1 && version <= 999_999),
    "version",
    "a pipeline version, 1 to 999999",
    version,
  );
  must(
    name === "" || isName(name),
    "name",
    `letters, digits, - and _ in NFC, at most ${MAX_NAME_CHARACTERS} characters and ${MAX_NAME_BYTES} bytes of UTF-8`,
    name,
  );
  return urlParts({ ...fields, transform, extension });
}

/** Return whether a value is a name: `is_image_name` of service/images/name.py. */
function isName(name) {
  return (
    typeof name === "string" &&
    NAME.test(name) &&
    name === name.normalize("NFC") &&
    [...name].length <= MAX_NAME_CHARACTERS &&
    new TextEncoder().encode(name).length <= MAX_NAME_BYTES
  );
}

/** Encode bytes in lower-case base32 without padding (RFC 4648 §6). */
function base32(bytes) {
  const bits = Array.from(bytes, (byte) => byte.toString(2).padStart(8, "0")).join("");
  return bits
    .match(/.{1,5}/g)
    .map((five) => "abcdefghijklmnopqrstuvwxyz234567"[parseInt(five.padEnd(5, "0"), 2)])
    .join("");
}
