import { image, picture } from "darkroom.js";
import manifest from "./images.json";

document.querySelector("main").innerHTML =
  picture(image(manifest, "lake.jpg"), { alt: "A lake" }) +
  picture(image(manifest, "evening.png"), { alt: "An evening", sizes: "(min-width: 60em) 50vw, 100vw" });
