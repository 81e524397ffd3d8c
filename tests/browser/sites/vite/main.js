import { image, picture } from "darkroom.js";
import manifest from "./images.json";

const lake = image(manifest, "lake.jpg");
const evening = image(manifest, "evening.png");

document.querySelector("main").innerHTML =
  // The first picture that visitors see: it loads eagerly, with its placeholder as background until it has loaded.
  picture(lake, { alt: "A lake", priority: true, style: `background: url("${lake.placeholder.data_url}") center / cover` }) +
  picture(evening, { alt: "An evening", sizes: "(min-width: 60em) 50vw, 100vw" });
