export default {
  output: "export",
  images: {
    loader: "custom",
    loaderFile: "./image-loader.js",
    // Darkroom's ladder, so that every width that Next asks for is one that there is.
    deviceSizes: [320, 640, 960, 1280, 1920, 2560],
    imageSizes: [],
  },
};
