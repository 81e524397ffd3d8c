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
  /** The attributes of the `<source>` of a crop; without them, those of the `<img>` apply. */
  readonly sizes?: string;
  readonly width?: number;
  readonly height?: number;
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
  /** The name that URLs may end with; empty if the image has none. */
  readonly name: string;
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

/** The attributes of the elements of a `<picture>`, by their names in HTML. */
export interface PictureElements {
  readonly sources: readonly {
    media?: string;
    type: string;
    srcset: string;
    sizes: string;
    width?: number;
    height?: number;
  }[];
  readonly img: {
    readonly src: string;
    readonly srcset: string;
    readonly [attribute: string]: string | number | boolean | null | undefined;
  };
}

/** A Darkroom server with its open ladder. */
export interface Server {
  /** The server's origin, such as `https://img.example.com`. */
  base: string;
  /** The server's DARKROOM_WIDTHS, in rising order; its default by default. */
  widths?: readonly number[];
  /** The name of one of the server's DARKROOM_SOURCES; then `src` is the path of an image there. */
  source?: string;
  /** The server's DARKROOM_QUALITY, such as `{ avif: 55, webp: 78 }`. */
  quality?: { readonly [F in "jxl" | "avif" | "webp" | "jpeg"]?: number };
}

/** A server, and how loaders use it. `V` are its variants, from which the types of `quality` and `height` follow. */
export interface LoaderOptions<V extends string = string> extends Server {
  /** WebP by default. */
  format?: Format | "auto";
  /** Transforms in canonical form that the server has in DARKROOM_VARIANTS, from which `quality` and `height` choose. */
  variants?: readonly V[];
  /** The variant of all images; `quality` and `height` are then ignored. */
  variant?: string;
}

type Qualities<V extends string> = V extends `${string}quality=${infer Q}`
  ? Q extends `${infer N extends number},${string}` | `${infer N extends number}`
    ? N
    : Q extends `${infer Word},${string}`
      ? Word
      : Q
  : never;

/** The qualities that variants have: `never` without one, and any if the variants are unknown at compile time. */
export type QualityOf<V extends string> = string extends V ? number | string : Qualities<V>;

/** Whether variants have an aspect ratio, which the height of an image can choose: `never` if none has. */
export type HeightOf<V extends string> = string extends V
  ? number | string
  : V extends `${string}ratio=${string}` | `${string}height=${string}`
    ? number | string
    : never;

/** The wanted rendition of an image. */
export interface Operations<V extends string = string> {
  /** In pixels; the widest step by default. */
  width?: number | string;
  /** In pixels: the aspect ratio chooses a variant. */
  height?: HeightOf<V>;
  /** Chooses a variant; Darkroom chooses the quality by default. */
  quality?: QualityOf<V>;
  format?: Format | "auto";
  /** A transform in canonical form that the server has as a variant. */
  variant?: string;
}

/** Returns the URL of an image. */
export type Transformer<V extends string = string> = (src: string | URL, wanted?: Operations<V>) => string;

/**
 * A loader for Next.js. `quality` can be any number, because next/image has one for all loaders: without a variant that has it, it is
 * ignored.
 */
export type Loader = (wanted: { src: string; width: number; quality?: number }) => string;

/** The open ladder of an image, in place of its document. */
export interface OpenLadder {
  readonly alt: string;
  readonly src: string;
  readonly sources: readonly Source[];
}

/** An image on a server, for `ladder`. */
export interface OpenImage extends Server {
  /** The digest of an image, or `<digest>/<name>`, or its path in `source`. */
  src: string;
  /** The size of the image in pixels, with the variant. */
  width?: number | string;
  height?: number | string;
  /** A transform in canonical form that the server has as a variant. */
  variant?: string;
  /** In the order of preference, the fallback last; JPEG XL, AVIF, WebP and JPEG by default. */
  formats?: readonly Format[];
}

export interface RenditionUrl {
  digest: string;
  /** In canonical form, such as `width=640,height=480,fit=cover`; `full` by default. */
  transform?: string;
  extension: Extension;
  /** At the end of the URL: letters, digits, `-` and `_`, in NFC. */
  name?: string;
  /** The pipeline version, the newest by default. */
  version?: number;
}

export interface SourceUrl {
  /** One of the names in the server's DARKROOM_SOURCES. */
  source: string;
  /** The path of the image below the source's prefix, not encoded: `2026/Größe 1.jpg`. */
  path: string;
  transform?: string;
  /** `auto` by default: the browser's `Accept` decides. */
  extension?: Extension;
}

export type Signer = (url: RenditionUrl | SourceUrl) => Promise<string>;

/** The text that a signature is made from, and the path of a URL, for another implementation of HMAC-SHA-256 (RFC 2104). */
export interface Signing {
  /** The newest key. */
  readonly key: Uint8Array;
  /** Return the text to authenticate. */
  payload(url: RenditionUrl | SourceUrl): string;
  /** Return the path of a URL with its authentication code, without the server's origin. */
  signed(url: RenditionUrl | SourceUrl, code: Uint8Array): string;
}

/** The version of manifests that this module reads. */
export const MANIFEST_VERSION: number;

/** The pipeline version of new URLs. */
export const PIPELINE_VERSION: number;

/** The widths of the open ladder, if the server has no DARKROOM_WIDTHS of its own. */
export const LADDER_WIDTHS: number[];

/** Return the image at `path` of a manifest. Throws if the manifest has another version or no such path. */
export function image(manifest: Manifest, path: string): ImageDocument & { readonly srcset: string };

/** Return the srcset of an image in `format`, by default in the fallback format, which every browser supports. */
export function srcset(image: Pick<ImageDocument, "sources">, format?: Format): string;

/** Return an image as `<picture>` in HTML, with all values escaped. */
export function picture(image: Pick<ImageDocument, "sources" | "src" | "alt">, options?: PictureOptions): string;

/** Return the attributes of the same elements, for components. */
export function elements(
  image: Pick<ImageDocument, "sources" | "src" | "alt">,
  options?: PictureOptions,
): PictureElements;

/** What some screens show in place of an image, often another crop of it. */
export interface Crop {
  /** A media condition, such as `(max-width: 40em)`, without media types and commas. */
  media: string;
  image: Pick<ImageDocument, "sources">;
  /** As in `<source sizes>`; that of the picture by default. */
  sizes?: string;
}

/** Return an image that shows the first of `crops` whose `media` applies, and itself on all other screens. */
export function withArtDirection<Image extends Pick<ImageDocument, "sources">>(
  image: Image,
  crops: readonly Crop[],
): Image;

/**
 * Return the value of a `Link` header for a page that shows an image with `priority`. `sizes` is that of the `picture`. Only browsers that
 * support the type of the best source preload it.
 */
export function preload(image: Pick<ImageDocument, "sources">, options?: { sizes?: string }): string;

/** Return the same as `<link>` elements in HTML, for the `<head>` of a page. */
export function preloadLinks(image: Pick<ImageDocument, "sources">, options?: { sizes?: string }): string;

/** Return the open ladder of an image, which `picture`, `elements`, `srcset` and `preload` accept in place of its document. */
export function ladder(image: OpenImage): OpenLadder;

/**
 * Return a function that returns the URL of an image on a server: the narrowest step that is wide enough, in WebP by default. `src` is the
 * digest of the image, or `<digest>/<name>`, or its path in `source`.
 */
export function transformer<const V extends string = never>(server: LoaderOptions<V>): Transformer<V>;

/** Return the same as a loader for Next.js. */
export function loader(server: LoaderOptions): Loader;

/** Return the same as `transformer` for the images of a manifest, by their paths. */
export function manifestTransformer(manifest: Manifest, options?: { format?: Format }): Transformer<never>;

/** Return the same as a loader for Next.js. */
export function manifestLoader(manifest: Manifest, options?: { format?: Format }): Loader;

/**
 * Return the parts of a signer, for another implementation of HMAC-SHA-256. `keys` is DARKROOM_KEYS. The key must never reach a browser.
 */
export function signing(keys: string): Signing;

/** Return a function that signs URLs on servers. `keys` is DARKROOM_KEYS. It resolves to the path, without the server's origin. */
export function signer(keys: string): Signer;
