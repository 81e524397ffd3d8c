/** The types of darkroom.js. JSON is typed as TypeScript types an imported JSON file, so you can pass an imported manifest without a cast. */

/** One step of a ladder: the rendition's size in pixels, and its URL. */
export interface Rendition {
  readonly width: number;
  readonly height: number;
  readonly url: string;
}

/** The ladder of one format, narrowest step first, and the same as a srcset. */
export interface Source {
  /** Such as `image/jxl`. */
  readonly type: string;
  readonly srcset: string;
  /** The media query of the screens that it is for; without it, it is for all. */
  readonly media?: string;
  readonly renditions: readonly Rendition[];
}

/** Shown in place of an image until it has loaded. */
export interface Placeholder {
  /** In base64. */
  readonly thumbhash: string;
  /** A tiny picture, at most 400 bytes, for `background-image` or Next's `blurDataURL`. */
  readonly data_url: string;
  /** `#rrggbb` */
  readonly color: string;
  readonly palette: readonly string[];
}

/** An image as a server or a manifest describes it. Sizes are in pixels of the upright original. */
export interface ImageDocument {
  readonly digest: string;
  readonly format: string;
  readonly width: number;
  readonly height: number;
  readonly frames: number;
  readonly alpha: boolean;
  /** `high` if the original is brighter than white on screens that allow it. */
  readonly dynamic_range: string;
  /** The alternative text; empty until it is set. */
  readonly alt: string;
  /** x and y from the top left, each 0 to 1. */
  readonly focal: readonly number[] | null;
  /** Sentences that report what was removed from a drawing for safety, or is drawn differently. */
  readonly warnings: readonly string[];
  readonly placeholder: Placeholder;
  /** The fallback at a middle width. */
  readonly src: string;
  /** In the order of preference, the fallback last. */
  readonly sources: readonly Source[];
  /** The `<picture>` element as HTML. */
  readonly picture: string;
}

/** The content of the file that `darkroom push --manifest` writes. */
export interface Manifest {
  readonly version: number;
  /** Images by path, relative to the pushed folder. */
  readonly images: Readonly<Record<string, ImageDocument & { readonly srcset: string }>>;
}

export type Format = "jxl" | "avif" | "webp" | "jpeg" | "jpg" | "png" | "gif";
export type Extension = "jxl" | "avif" | "webp" | "jpg" | "png" | "gif" | "auto";

export interface PictureOptions {
  /** As in `<img sizes>`; `auto, 100vw` by default, and `100vw` if the image is not loaded lazily. */
  sizes?: string;
  /** Load the image at once and before others, for the largest image in the first view of a page; `false` by default. */
  priority?: boolean;
  /** Replaces the image's own alternative text. */
  alt?: string;
  /** Further attributes of the `<img>`. */
  [attribute: string]: string | number | boolean | null | undefined;
}

/** A loader for Next.js; `quality` is ignored. */
export type Loader = (wanted: { src: string; width: number; quality?: number }) => string;

/** A transformer for unpic; the height is ignored, because a ladder has the image's aspect ratio. */
export type Transformer = (
  src: string | URL,
  wanted?: { width?: number | string; height?: number | string; format?: string },
  options?: unknown,
) => string;

export interface RenditionUrl {
  digest: string;
  /** In canonical form, such as `width=640,height=480,fit=cover`; `full` by default. */
  transform?: string;
  extension: Extension;
  /** The pipeline version, the newest by default. */
  version?: number;
}

export interface PullUrl {
  /** The URL of the image at its source, whose host DARKROOM_PULL_HOSTS must allow. */
  url: string;
  transform?: string;
  /** `auto` by default: the browser's `Accept` decides. */
  extension?: Extension;
}

export type Signer = (url: RenditionUrl | PullUrl) => Promise<string>;

/** The version of manifests that this module reads. */
export const MANIFEST_VERSION: number;

/** The pipeline version of new URLs. */
export const PIPELINE_VERSION: number;

/** Return the image at `path` of a manifest. Throws if the manifest has another version or no such path. */
export function image(manifest: Manifest, path: string): ImageDocument & { readonly srcset: string };

/** Return the srcset of an image in `format`, by default in the fallback format, which every browser supports. */
export function srcset(image: Pick<ImageDocument, "sources">, format?: Format): string;

/** Return an image as `<picture>` in HTML, with all values escaped. */
export function picture(image: Pick<ImageDocument, "sources" | "src" | "alt">, options?: PictureOptions): string;

/**
 * Return the value of a `Link` header for a page that shows an image with `priority`. `sizes` is that of the `picture`. Only browsers that
 * support the type of the best source preload it.
 */
export function preload(image: Pick<ImageDocument, "sources">, options?: { sizes?: string }): string;

/** Return the same as `<link>` elements in HTML, for the `<head>` of a page. */
export function preloadLinks(image: Pick<ImageDocument, "sources">, options?: { sizes?: string }): string;

/** A Darkroom server with its open ladder. */
export interface OpenLadder {
  /** The server's origin, such as `https://img.example.com`. */
  base: string;
  /** The server's DARKROOM_WIDTHS, in rising order; its default by default. */
  widths?: readonly number[];
}

/**
 * Return a loader for Next.js. It chooses the narrowest step that is wide enough, in WebP by default. `src` is the digest of an image on the
 * server `from`, or a path of the manifest `from`.
 */
export function loader(
  from: OpenLadder | Manifest | Pick<ImageDocument, "sources">,
  options?: { format?: Format | "auto" },
): Loader;

/** Return the same as a transformer for unpic. */
export function transformer(
  from: OpenLadder | Manifest | Pick<ImageDocument, "sources">,
  options?: { format?: Format | "auto" },
): Transformer;

/** Return a function that signs URLs on servers. `keys` is DARKROOM_KEYS, `crypto` is WebCrypto. It resolves to the path, without the server's origin. */
export function signer(keys: string, crypto?: { readonly subtle: unknown }): Signer;
