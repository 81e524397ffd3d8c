import { deviceSizes } from "darkroom.js/next";
export default { images: { loader: "custom", loaderFile: "./image-loader.js", deviceSizes, imageSizes: [] } };
