import { image } from "darkroom.js";
import Image from "next/image";
import manifest from "../images.json";
import { Picture } from "./picture.jsx";

const lake = image(manifest, "lake.jpg");
const fill = { width: "100%", height: "auto", display: "block" };

export default function Page() {
  return (
    <main>
      <Image
        src="lake.jpg"
        width={lake.width}
        height={lake.height}
        sizes="100vw"
        alt="A lake, by next/image"
        placeholder={lake.placeholder.data_url}
        style={fill}
      />
      <Picture image={image(manifest, "evening.png")} sizes="(min-width: 60em) 50vw, 100vw" alt="An evening, by the component" style={fill} />
    </main>
  );
}
