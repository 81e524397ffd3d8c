import { Image } from "@unpic/react/base";
import { image, transformer } from "darkroom.js";
import { createRoot } from "react-dom/client";
import manifest from "./images.json";

const transform = transformer(manifest, { format: "avif" });
const lake = image(manifest, "lake.jpg");
const evening = image(manifest, "evening.png");

// The widths of Darkroom's ladder, so that unpic only requests widths that exist.
const breakpoints = [320, 640, 960, 1280, 1920, 2560];

createRoot(document.querySelector("main")).render(
  <>
    <Image src="lake.jpg" transformer={transform} breakpoints={breakpoints} layout="fullWidth" aspectRatio={lake.width / lake.height} alt="A lake" />
    <Image
      src="evening.png"
      transformer={transform}
      breakpoints={breakpoints}
      width={evening.width}
      height={evening.height}
      sizes="(min-width: 60em) 50vw, 100vw"
      alt="An evening"
    />
  </>,
);
