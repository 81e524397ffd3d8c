// Every function as typed code calls it; what must not type is marked so, and the compiler complains if it does.
import { image, loader, picture, preload, preloadLinks, signer, srcset, transformer } from "darkroom.js";
import type { ImageDocument, Manifest } from "darkroom.js";
import manifest from "./images.json";

const typed: Manifest = manifest;
const lake = image(manifest, "lake.jpg");
const html: string = picture(lake, { alt: "A lake", sizes: "50vw", class: "hero", loading: "eager", hidden: false });
const first: string = picture(lake, { priority: true, sizes: "50vw" }) + preload(lake, { sizes: "50vw" }) + preloadLinks(lake);
const set: string = srcset(lake, "avif") + lake.srcset;
const url: string = loader(manifest, { format: "avif" })({ src: "lake.jpg", width: 640, quality: 75 });
const ofDocument: string = transformer(lake)(new URL("https://example.com/"), { width: 640, height: 480 });
const path: Promise<string> = signer("00".repeat(32))({ digest: lake.digest, extension: "webp" });
const pulled: Promise<string> = signer("00".repeat(32), globalThis.crypto)({ url: "https://example.com/a.jpg", transform: "width=640" });
const tell = (document: ImageDocument): string => `${document.width} × ${document.height}, ${document.placeholder.color}`;

// @ts-expect-error
srcset(lake, "heif");
// @ts-expect-error
picture(lake, { priority: "high" });
// @ts-expect-error
loader(manifest, { formats: ["avif"] });
// @ts-expect-error
signer("00".repeat(32))({ digest: lake.digest });
// @ts-expect-error
image({ images: {} }, "lake.jpg");

export { first, html, ofDocument, path, pulled, set, tell, typed, url };
