export default {
  output: "export",
  images: {
    loader: "custom",
    loaderFile: "./image-loader.js",
    // The widths of Darkroom's ladder, so that Next only requests widths that exist.
    deviceSizes: [320, 640, 960, 1280, 1920, 2560],
    imageSizes: [],
  },
};
