// The entry `darkroom.js/astro`: an image service for Astro. Its `config` has the options of `transformer`, or a manifest.

import { image, LADDER_WIDTHS, manifestTransformer, transformer } from "../darkroom.js";

export { LADDER_WIDTHS as breakpoints } from "../darkroom.js";

// Properties of Astro's components that are no attributes of the `<img>`.
const OPTIONS = [
  "background",
  "densities",
  "fit",
  "format",
  "formats",
  "layout",
  "position",
  "priority",
  "quality",
  "variant",
  "widths",
];

export default {
  /** Add the format and, from a manifest, the size. */
  validateOptions(options, { service: { config } }) {
    const { format = config.format ?? "webp" } = options;
    if (!config.manifest || options.width || options.height || isImported(options)) return { ...options, format };
    const { width, height } = image(config.manifest, options.src);
    return { ...options, format, width, height };
  },

  getURL(options, { service: { config } }) {
    if (isImported(options)) return options.src.src;
    const url = config.manifest ? manifestTransformer(config.manifest, config) : transformer(config);
    return url(options.src, options);
  },

  /** Return the steps of the ladder for `widths`, each once, or for `densities`. */
  getSrcSet(options, { service: { config } }) {
    if (isImported(options)) return [];
    const { width, height, widths = [], densities, ...rest } = options;
    const steps = config.manifest
      ? image(config.manifest, options.src)
          .sources.at(-1)
          .renditions.map((rendition) => rendition.width)
      : (config.widths ?? LADDER_WIDTHS);
    const entry = (wanted, descriptor) => {
      const step = steps.find((known) => known >= wanted) ?? steps.at(-1);
      return {
        transform: { ...rest, width: step, height: width && height && Math.round((step * height) / width) },
        descriptor: descriptor ?? `${step}w`,
        attributes: { type: `image/${options.format}` },
      };
    };
    if (densities)
      return densities.map((density) => entry(Number.parseFloat(density) * width, `${Number.parseFloat(density)}x`));
    const entries = new Map(
      [...widths]
        .sort((one, other) => one - other)
        .map((wanted) => entry(wanted))
        .map((one) => [one.descriptor, one]),
    );
    return [...entries.values()];
  },

  getHTMLAttributes({ src, ...options }) {
    const size =
      options.width || options.height || typeof src === "string" ? {} : { width: src.width, height: src.height };
    const attributes = Object.entries(options).filter(([name]) => !OPTIONS.includes(name));
    return { loading: "lazy", decoding: "async", ...size, ...Object.fromEntries(attributes) };
  },
};

/** Whether an image is a file of the site, which Darkroom does not have. */
function isImported({ src }) {
  return typeof src !== "string";
}
