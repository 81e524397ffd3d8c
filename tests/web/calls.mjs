// Calls darkroom.js for the tests. For each line `[name, ...arguments]` it prints a line `{"value": …}` or `{"error": "…"}`.

import { createInterface } from "node:readline";

const darkroom = await import(process.argv[2]);
const entry = (name) => import(new URL(`frameworks/${name}.js`, process.argv[2]));
const names = ["astro", "next", "nuxt", "nuxt-manifest", "sign-node", "unpic"];
const [astro, next, nuxt, nuxtManifest, node, unpic] = await Promise.all(names.map(entry));

const calls = {
  ...darkroom,
  load: (server, wanted) => darkroom.loader(server)(wanted),
  loadFromManifest: (manifest, options, wanted) => darkroom.manifestLoader(manifest, options)(wanted),
  transform: (server, ...wanted) => darkroom.transformer(server)(...wanted),
  transformFromManifest: (manifest, options, ...wanted) => darkroom.manifestTransformer(manifest, options)(...wanted),
  sign: async (keys, urls) => {
    const sign = darkroom.signer(keys);
    return Promise.all(urls.map((url) => sign(url)));
  },
  signAtOnce: (keys, urls) => urls.map(node.signer(keys)),
  ...next,
  nuxt: (version, src, options) => (version === 1 ? nuxt : nuxt.default()).getImage(src, options).url,
  nuxtManifest: async (src, options) => {
    const { url, getMeta } = nuxtManifest.default().getImage(src, options);
    return { url, ...(await getMeta()) };
  },
  extract: unpic.extract,
  unpic: (src, operations, options) => unpic.transform(src, operations, options),
  // What Astro calls for an image.
  astro(config, image) {
    const imageConfig = { service: { config } };
    const options = astro.default.validateOptions(image, imageConfig);
    return {
      src: astro.default.getURL(options, imageConfig),
      srcset: astro.default
        .getSrcSet(options, imageConfig)
        .map(({ transform, descriptor }) => `${astro.default.getURL(transform, imageConfig)} ${descriptor}`),
      attributes: astro.default.getHTMLAttributes(options, imageConfig),
    };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...parameters] = JSON.parse(line);
  let result;
  try {
    result = { value: (await (typeof calls[name] === "function" ? calls[name](...parameters) : calls[name])) ?? null };
  } catch (error) {
    result = { error: error.message };
  }
  console.log(JSON.stringify(result));
}
