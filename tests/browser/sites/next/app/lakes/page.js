import { image } from "darkroom.js";
import { Picture } from "darkroom.js/react";
import manifest from "../../images.json";

const fill = { width: "100%", height: "auto", display: "block" };

export default function Page() {
  return (
    <main>
      <Picture image={image(manifest, "lake.jpg")} priority alt="A lake" style={fill} />
      <Picture image={image(manifest, "evening.png")} sizes="(min-width: 60em) 50vw, 100vw" alt="An evening" style={fill} />
    </main>
  );
}
