/** The types of darkroom.js. What comes from JSON is typed as `import` of a JSON file types it, so that a manifest fits as it is. */

/** One step of a ladder: the size in pixels of the rendition, and its URL. */
export interface Rendition {
  readonly width: number;
  readonly height: number;
  readonly url: string;
}

/** One format's ladder, narrowest first, and the same as a srcset. */
export interface Source {
  /** Such as `image/avif`. */
  readonly type: string;
  readonly srcset: string;
  readonly renditions: readonly Rendition[];
}

/** What stands in for an image until it is there. */
export interface Placeholder {
  /** In base64. */
  readonly thumbhash: string;
  /** A tiny picture, at most 400 bytes, for `background-image` or Next's `blurDataURL`. */
  readonly data_url: string;
  /** `#rrggbb` */
  readonly color: string;
  readonly palette: readonly string[];
}

/** What a server or a manifest says of an image. Sizes are pixels of the upright original. */
export interface ImageDocument {
  readonly digest: string;
  readonly format: string;
  readonly width: number;
  readonly height: number;
  readonly frames: number;
  readonly alpha: boolean;
  /** What the image shows, in words; empty until somebody says it. */
  readonly alt: string;
  /** x and y from the top left, each 0 to 1. */
  readonly focal: readonly number[] | null;
  readonly placeholder: Placeholder;
  /** The fallback at a middle width. */
  readonly src: string;
  /** In the order of preference, the fallback last. */
  readonly sources: readonly Source[];
  /** All of it as HTML. */
  readonly picture: string;
}

/** What `darkroom push --manifest` writes. */
export interface Manifest {
  readonly version: number;
  /** By path, relative to the folder that was pushed. */
  readonly images: Readonly<Record<string, ImageDocument & { readonly srcset: string }>>;
}

export type Format = "avif" | "webp" | "jpeg" | "jpg" | "png" | "gif";
export type Extension = "avif" | "webp" | "jpg" | "png" | "gif" | "auto";

export interface PictureOptions {
  /** As in `<img sizes>`; `100vw` unless told otherwise. */
  sizes?: string;
  /** In place of the image's own. */
  alt?: string;
  /** Further attributes of the `<img>`. */
  [attribute: string]: string | number | boolean | null | undefined;
}

/** As Next.js calls its loaders; `quality` is not looked at. */
export type Loader = (asked: { src: string; width: number; quality?: number }) => string;

/** As unpic calls its transformers; a height is not looked at: a ladder keeps the image's shape. */
export type Transformer = (
  src: string | URL,
  asked?: { width?: number | string; height?: number | string; format?: string },
  options?: unknown,
) => string;

export interface RenditionAddress {
  digest: string;
  /** As spelled in addresses, such as `width=640,height=480,fit=cover`; `full` unless told otherwise. */
  transform?: string;
  extension: Extension;
  /** The pipeline version, today's unless told otherwise. */
  version?: number;
}

export interface PointerAddress {
  /** Of the remote source; its host must be one that DARKROOM_PULL_HOSTS allows. */
  url: string;
  transform?: string;
  /** `auto`, by the browser's `Accept`, unless told otherwise. */
  extension?: Extension;
}

export type Signer = (address: RenditionAddress | PointerAddress) => Promise<string>;

/** The version of manifests that is read here. */
export const MANIFEST_VERSION: number;

/** The pipeline version of new addresses. */
export const PIPELINE_VERSION: number;

/** The image that a manifest has under `path`; throws for a manifest of another version and an unknown path. */
export function image(manifest: Manifest, path: string): ImageDocument & { readonly srcset: string };

/** The srcset of an image in `format`, by default the one that every browser shows. */
export function srcset(image: Pick<ImageDocument, "sources">, format?: Format): string;

/** An image as `<picture>` in HTML, all values escaped. */
export function picture(image: Pick<ImageDocument, "sources" | "src" | "alt">, options?: PictureOptions): string;

/** A loader as Next.js has them: the URL of the narrowest step that is at least as wide as asked; WebP unless told otherwise. */
export function loader(from: Manifest | Pick<ImageDocument, "sources">, options?: { format?: Format }): Loader;

/** The same as a transformer of unpic. */
export function transformer(
  from: Manifest | Pick<ImageDocument, "sources">,
  options?: { format?: Format },
): Transformer;

/** What signs addresses, on servers: `keys` is DARKROOM_KEYS, `crypto` WebCrypto. It gives the path, without the server's origin. */
export function signer(keys: string, crypto?: { readonly subtle: unknown }): Signer;
