// A standalone server, as the documentation recommends for hosting it oneself, with the widths and the qualities that are measured.
export default {
  output: "standalone",
  outputFileTracingRoot: import.meta.dirname,
  images: {
    formats: ["image/avif", "image/webp"],
    imageSizes: [400, 480],
    localPatterns: [{ pathname: "/originals/**" }],
    qualities: [60, 63, 66, 69, 72, 75, 78, 81, 84, 87, 90, 93, 96],
  },
};
