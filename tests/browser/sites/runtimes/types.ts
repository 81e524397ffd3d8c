// Every function as typed code calls it; what must not type is marked so, and the compiler complains if it does.
import {
  elements,
  image,
  ladder,
  loader,
  manifestLoader,
  manifestTransformer,
  picture,
  preload,
  preloadLinks,
  signer,
  signing,
  srcset,
  transformer,
} from "darkroom.js";
import type { ImageDocument, Manifest } from "darkroom.js";
import manifest from "./images.json";

const typed: Manifest = manifest;
const lake = image(manifest, "lake.jpg");
const html: string = picture(lake, { alt: "A lake", sizes: "50vw", class: "hero", loading: "eager", hidden: false });
const first: string = picture(lake, { priority: true, sizes: "50vw" }) + preload(lake, { sizes: "50vw" }) + preloadLinks(lake);
const set: string = srcset(lake, "avif") + lake.srcset;
const url: string = manifestLoader(manifest, { format: "avif" })({ src: "lake.jpg", width: 640, quality: 75 });
const urls: string[] = [
  manifestTransformer(manifest)(new URL("https://example.com/"), { width: 640 }),
  loader({ base: "https://img.example.com", format: "auto", variants: ["quality=50"] })({ src: lake.digest, width: 640, quality: 75 }),
  transformer({ base: "https://img.example.com", widths: [320] })(lake.digest, { width: "640", format: "jxl" }),
  transformer({ base: "", variants: ["quality=50", "quality=auto,lossless=true"] })(lake.digest, { quality: 50 }),
  transformer({ base: "", variants: ["quality=50,effort=3", "quality=auto,effort=3"] })(lake.digest, { quality: "auto" }),
  transformer({ base: "", variants: ["width=160,height=90,fit=cover"] })(lake.digest, { width: 640, height: 360, variant: "quality=5" }),
  transformer({ base: "", variants: JSON.parse("[]") as string[] })(lake.digest, { height: 360, quality: 50 }),
];
const open = ladder({ base: "https://img.example.com", src: lake.digest, width: 640, height: "480", formats: ["webp", "png"] });
const attributes: string = elements(open, { alt: "A lake" }).img.srcset + picture(open) + preload(open) + srcset(open);
const key: Uint8Array = signing("00".repeat(32)).key;
const path: Promise<string> = signer("00".repeat(32))({ digest: lake.digest, extension: "webp" });
const elsewhere: Promise<string> = signer("00".repeat(32))({ source: "cms", path: "a.jpg", transform: "width=640" });
const tell = (document: ImageDocument): string => `${document.width} × ${document.height}, ${document.placeholder.color}`;

// @ts-expect-error
srcset(lake, "heif");
// @ts-expect-error
picture(lake, { priority: "high" });
// @ts-expect-error
loader(manifest);
// @ts-expect-error
loader({ base: "", formats: ["avif"] });
// @ts-expect-error
manifestLoader(manifest, { formats: ["avif"] });
// @ts-expect-error
transformer({ base: "" })(lake.digest, { quality: 50 });
// @ts-expect-error
transformer({ base: "" })(lake.digest, { width: 640, height: 360 });
// @ts-expect-error
transformer({ base: "", variants: ["quality=50"] })(lake.digest, { quality: 60 });
// @ts-expect-error
transformer({ base: "", variants: ["quality=50"] })(lake.digest, { height: 60 });
// @ts-expect-error
transformer({ base: "", variants: ["width=160,height=90,fit=cover"] })(lake.digest, { quality: 50 });
// @ts-expect-error
manifestTransformer(manifest)("lake.jpg", { quality: 50 });
// @ts-expect-error
ladder({ base: "" });
// @ts-expect-error
signer("00".repeat(32))({ digest: lake.digest });
// @ts-expect-error
image({ images: {} }, "lake.jpg");

export { attributes, elsewhere, first, html, key, path, set, tell, typed, url, urls };
