import { Image } from "@unpic/react/base";
import { breakpoints, transformer } from "darkroom.js/unpic";
import { createRoot } from "react-dom/client";

const photo = new URLSearchParams(location.search).get("photo");
const transform = transformer({ base: "https://img.example.com" });

createRoot(document.querySelector("main")).render(
  <Image src={photo} transformer={transform} breakpoints={breakpoints} layout="fullWidth" aspectRatio={4 / 3} alt="A lake" />,
);
