// darkroom.js: Darkroom's images on pages and sites, from a manifest (`darkroom push --manifest`) or an image document
// (GET /v1/images/{digest}): srcset, `<picture>`, loaders of frameworks. And signed URLs, on servers that have the key.
//
// No dependency, and nothing of the DOM or of Node: it runs wherever ES modules do. Types are in darkroom.d.ts.

/** The version of manifests that is read here. */
export const MANIFEST_VERSION = 1;

/** The pipeline version of new addresses: PIPELINE_VERSION of service/address.py. */
export const PIPELINE_VERSION = 2;

const FORMATS = ["avif", "webp", "jpeg", "png", "gif"];
const EXTENSIONS = ["avif", "webp", "jpg", "png", "gif", "auto"];
const MAX_TRANSFORM_CHARACTERS = 1024;
const MAX_URL_CHARACTERS = 2048;
const SIGNATURE_BYTES = 16;

const DIGEST = /^[a-z2-7]{32}$/;
const TRANSFORM = /^[A-Za-z0-9.:_=,-]+$/;
const HEX_KEY = /^(?:[0-9a-fA-F]{2}){16,}$/;
// With the flag `u` the two halves of a pair are one character, so that only halves without the other are found.
const HALF_CHARACTER = /\p{Surrogate}/u;

// ---- Images

/** The image that a manifest has under `path`; a leading `/` or `./` does not matter. Throws for a manifest of another version and an unknown path. */
export function image(manifest, path) {
  const { images } = checked(manifest);
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

/** The srcset of an image in `format`, by default the one that every browser shows. */
export function srcset(image, format) {
  return source(image, format).srcset;
}

/**
 * An image as `<picture>` in HTML, as in its document: the best format that the browser knows, at the width that it needs.
 *
 * Further `attributes` go to the `<img>`, over those that it has: `{ class: "hero", loading: "eager" }`. `false`, `null` and `undefined`
 * leave one out, `true` is one without a value. All values are escaped.
 */
export function picture(image, { sizes = "100vw", alt = image.alt, ...attributes } = {}) {
  const fallback = source(image);
  const { width, height } = fallback.renditions.at(-1);
  const img = {
    src: image.src,
    srcset: fallback.srcset,
    sizes,
    width,
    height,
    alt,
    loading: "lazy",
    decoding: "async",
    ...attributes,
  };
  return [
    "<picture>",
    ...image.sources.slice(0, -1).map(({ type, srcset }) => `  <source${written({ type, srcset, sizes })}>`),
    `  <img${written(img)}>`,
    "</picture>",
  ].join("\n");
}

// ---- Loaders

/**
 * A loader as Next.js has them: `({ src, width })` → the URL of the narrowest step that is at least `width` pixels wide, or of the widest.
 *
 * `from` is a manifest, whose paths are then the values of `src`, or one image's document, whatever `src` says. One URL has one format:
 * WebP is shown by every browser since 2020, "avif" is smaller and shown by those since 2024. `quality` is Darkroom's affair.
 */
export function loader(from, { format = "webp" } = {}) {
  const find = finder(from);
  return ({ src, width }) => step(source(find(src), format), width).url;
}

/** The same as a transformer of unpic: `(src, { width, format })` → URL; without a width that of the widest step. */
export function transformer(from, { format = "webp" } = {}) {
  const find = finder(from);
  return (src, asked = {}) => step(source(find(src), asked.format ?? format), asked.width).url;
}

function finder(from) {
  if (Array.isArray(from?.sources)) return () => from;
  checked(from);
  return (path) => image(from, path);
}

function checked(manifest) {
  const version = manifest?.version;
  if (version === MANIFEST_VERSION && typeof manifest.images === "object" && manifest.images !== null) return manifest;
  const received =
    typeof manifest !== "object" || manifest === null
      ? typeof manifest
      : `version ${JSON.stringify(version)}${"images" in manifest ? "" : " without images"}`;
  const remedy =
    version > MANIFEST_VERSION
      ? "It was written by a newer Darkroom: take darkroom.js from there too, or push with the one that this came with."
      : "Remove its file and run `darkroom push --manifest` again: it is made anew, and nothing is sent twice.";
  throw new Error(
    `This is not a manifest that darkroom.js can read: expected version ${MANIFEST_VERSION}, got ${received}. ${remedy}`,
  );
}

/**
 * An image's ladder in `format`. Where it does not come in that one: for "avif" its best, since who shows AVIF shows all the others;
 * else the last, which everybody shows.
 */
function source({ sources }, format = sources.at(-1).type.replace("image/", "")) {
  const name = format === "jpg" ? "jpeg" : format;
  if (!FORMATS.includes(name))
    throw new Error(`There is no format ${JSON.stringify(format)}. Expected one of ${FORMATS.join(", ")}.`);
  return sources.find(({ type }) => type === `image/${name}`) ?? (name === "avif" ? sources[0] : sources.at(-1));
}

function step({ renditions }, width = Infinity) {
  return renditions.find((rendition) => rendition.width >= width) ?? renditions.at(-1);
}

// ---- HTML

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;" };

function written(attributes) {
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
 * What signs addresses, for servers and edge functions: the key must never reach a browser.
 *
 * `keys` is DARKROOM_KEYS as the server has it: hexadecimal, the first signs. `crypto` is WebCrypto, which Node 18 has as `webcrypto` of
 * `node:crypto` alone. The signer takes `{ digest, transform, extension, version }` or, for a remote source, `{ url, transform, extension }`
 * and gives the path; the server's own origin goes before it. `transform` is spelled as in addresses, its keys in the order in which they act.
 */
export function signer(keys, crypto = globalThis.crypto) {
  const [newest = ""] = String(keys ?? "")
    .split(",")
    .map((key) => key.trim())
    .filter(Boolean);
  if (!HEX_KEY.test(newest)) {
    // The key itself is a secret, and errors go to logs.
    throw new Error(
      `A signing key is an even number, at least 32, of hexadecimal digits; this one has ${newest.length} characters. ` +
        "Give DARKROOM_KEYS as the server has it.",
    );
  }
  if (!crypto?.subtle) {
    throw new Error(
      'Signing needs WebCrypto, which this runtime has not. On Node 18: `import { webcrypto } from "node:crypto"`, and `signer(keys, webcrypto)`.',
    );
  }
  const bytes = Uint8Array.from(newest.match(/../g), (digits) => parseInt(digits, 16));
  let key;
  return async (address) => {
    const [start, end] = spelled(address);
    key ??= await crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
    const mac = await crypto.subtle.sign("HMAC", key, new TextEncoder().encode(start + end));
    return `${start}/${base32(new Uint8Array(mac, 0, SIGNATURE_BYTES))}${end}`;
  };
}

/** What stands before the signature in an address, and after it: the two together are what is signed. */
function spelled({
  digest,
  url,
  transform = "full",
  extension = url === undefined ? undefined : "auto",
  version = PIPELINE_VERSION,
}) {
  const must = (right, what, expected, received) => {
    if (!right)
      throw new Error(`An address cannot have this ${what}. Expected ${expected}, got ${JSON.stringify(received)}.`);
  };
  must(
    typeof transform === "string" && TRANSFORM.test(transform) && transform.length <= MAX_TRANSFORM_CHARACTERS,
    "transform",
    `key=value pairs as in addresses, such as "width=640,height=480,fit=cover", or "full"; at most ${MAX_TRANSFORM_CHARACTERS} characters`,
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

/** RFC 4648 §6 base32 in lower case without padding. */
function base32(bytes) {
  const bits = Array.from(bytes, (byte) => byte.toString(2).padStart(8, "0")).join("");
  return bits
    .match(/.{1,5}/g)
    .map((five) => "abcdefghijklmnopqrstuvwxyz234567"[parseInt(five.padEnd(5, "0"), 2)])
    .join("");
}

/** RFC 4648 §5 base64url of the UTF-8 of a text, without padding; null for what has no UTF-8, or none that an address could hold. */
function base64url(text) {
  if (typeof text !== "string" || text === "" || text.length > MAX_URL_CHARACTERS || HALF_CHARACTER.test(text))
    return null;
  const bytes = new TextEncoder().encode(text);
  return btoa(String.fromCharCode(...bytes))
    .replace(/\+/g, "-")
    .replace(/\//g, "_")
    .replace(/=+$/, "");
}
