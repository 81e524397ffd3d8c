// Every entry as typed code uses it; what must not type is marked so, and the compiler complains if it does.
import { Image } from "@unpic/react/base";
import type { ImageDocument, Manifest } from "darkroom.js";
import service, { type Config } from "darkroom.js/astro";
import { deviceSizes, imageProps, loader, manifestLoader } from "darkroom.js/next";
import provider, { getImage, type Modifiers } from "darkroom.js/nuxt";
import manifestProvider from "darkroom.js/nuxt/manifest";
import { Picture } from "darkroom.js/react";
import { signer } from "darkroom.js/sign";
import { Picture as SveltePicture, type PictureProps as SvelteProps } from "darkroom.js/svelte";
import { breakpoints, extract, generate, manifestTransformer, transform, transformer } from "darkroom.js/unpic";
import { Picture as VuePicture, type PictureProps as VueProps } from "darkroom.js/vue";
import type { Component } from "svelte";
import { h } from "vue";

declare const manifest: Manifest;
declare const lake: ImageDocument;
const base = "https://img.example.com";
const digest = lake.digest;

// ---- Next.js. These are the types of next/image.

type ImageLoader = (wanted: { src: string; width: number; quality?: number }) => string;
type NextPlaceholder = "blur" | "empty" | `data:image/${string}`;

const loaders: ImageLoader[] = [loader({ base, variants: ["quality=50"], source: "shop" }), manifestLoader(manifest)];
const placeholder: NextPlaceholder = imageProps(manifest, "lake.jpg").placeholder;
const sizes: number[] = deviceSizes;
// @ts-expect-error
loader({ widths: [320] });
// @ts-expect-error
loader({ base, format: "heic" });
// @ts-expect-error
loader(manifest);

// ---- Nuxt. These are the types of providers of @nuxt/image 2, and how it finds the options of a provider.

interface NuxtModifiers {
  width: number;
  height: number;
  fit: string;
  format: string;
  quality: string | number;
  background: string;
  blur: number;
}
interface NuxtProvider<T> {
  modifiers?: Record<string, unknown>;
  defaults?: T;
  getImage: (
    src: string,
    options: { preset?: string; sizes?: string | Record<string, unknown>; modifiers: Partial<NuxtModifiers> } & T,
    context: object,
  ) => { url: string; format?: string; getMeta?: () => Promise<{ width: number; height: number; placeholder?: string }> };
}
type NuxtOptions<F extends () => unknown> = ReturnType<F> extends NuxtProvider<infer Options> ? Options : unknown;

const nuxtOptions: [NuxtOptions<typeof provider>, NuxtOptions<typeof manifestProvider>] = [
  { baseURL: base, variants: ["quality=50"], modifiers: { quality: 50 } },
  { manifest, format: "avif" },
];
// @ts-expect-error
const baseInNuxt: NuxtOptions<typeof provider> = { base };
// @ts-expect-error
const serverOfManifest: NuxtOptions<typeof manifestProvider> = { baseURL: base };

const nuxt: string[] = [getImage("/" + digest, { baseURL: base, modifiers: { width: 640, quality: 50 } }).url, provider().getImage(digest, {}).url];
const modifiers: Modifiers = { variant: "ratio=16:9", format: "avif" };
// @ts-expect-error
const fitted: Modifiers = { fit: "cover" };
// @ts-expect-error
const blurred: Modifiers = { blur: 5 };

// ---- unpic

const images = (
  <>
    <Image src={digest} layout="fullWidth" transformer={transformer({ base })} breakpoints={breakpoints} alt="A lake" />
    <Image src={digest} width={640} height={360} transformer={transformer({ base, variants: ["quality=50"] })} operations={{ quality: 50 }} alt="A lake" />
    <Image src="lake.jpg" width={640} height={360} transformer={manifestTransformer(manifest)} operations={{ format: "avif" }} alt="A lake" />
    <Image src={digest} width={640} height={360} transformer={transform} options={{ base, variants: ["quality=50"] }} alt="A lake" />
  </>
);
const urls: string = generate(digest, { width: 640 }, { base }) + transform(new URL(base), { width: 640 });
const parts: string | undefined = extract(base)?.options.base;

// ---- Astro

const configs: Config[] = [{ base, variants: ["quality=50"] }, { manifest, format: "avif" }];
const url: string = service.getURL({ src: digest, width: 640 }, { service: { config: configs[0] } });
// @ts-expect-error
const baseless: Config = { format: "avif" };

// ---- React

const pictures = (
  <>
    <Picture image={lake} />
    <Picture image={manifest.images["lake.jpg"]} sizes="50vw" alt="A lake" className="hero" style={{ width: "100%" }} onLoad={() => undefined} />
    <Picture base={base} src={digest} alt="A lake" priority />
    <Picture base={base} src="a/b.jpg" source="shop" widths={[320]} variant="ratio=16:9" formats={["avif"]} width={640} height={360} alt="" />
    {/* @ts-expect-error: the alternative text is missing. */}
    <Picture base={base} src={digest} />
    {/* @ts-expect-error: neither an image nor a server. */}
    <Picture src={digest} alt="A lake" />
    {/* @ts-expect-error: both. */}
    <Picture image={lake} base={base} src={digest} alt="A lake" />
    {/* @ts-expect-error: Darkroom chooses the quality, unless a variant has one. */}
    <Picture image={lake} quality={50} />
    {/* @ts-expect-error */}
    <Picture image={lake} priority="high" />
  </>
);

// ---- Vue

const nodes = [h(VuePicture, { image: lake }), h(VuePicture, { base, src: digest, alt: "A lake" })];
const vueProperties: VueProps[] = [
  { image: lake, class: "hero", onLoad: () => undefined },
  { base, src: digest, alt: "A lake", width: "640", height: "480" },
  // @ts-expect-error: the alternative text is missing.
  { base, src: digest },
  // @ts-expect-error
  { image: lake, quality: 50 },
];

// ---- Svelte

const component: Component<SvelteProps> = SveltePicture;
const properties: SvelteProps[] = [
  { image: lake, class: "hero", onload: () => undefined },
  { base, src: digest, alt: "A lake", width: 640, height: 480, "data-x": 1 },
  // @ts-expect-error
  { image: lake, quality: 50 },
];

// ---- Signing

const path: string = signer("00".repeat(32))({ digest, transform: "width=640", extension: "webp" });
// @ts-expect-error: signing is not asynchronous here.
signer("00".repeat(32))({ digest, extension: "webp" }).then(String);
// @ts-expect-error
signer(7);

export { baseInNuxt, baseless, blurred, component, fitted, images, loaders, modifiers, nodes, nuxt, nuxtOptions, parts, path, pictures, placeholder, properties, serverOfManifest, sizes, url, urls, vueProperties };