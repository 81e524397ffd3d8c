import { image, withArtDirection } from "darkroom.js";
import { Picture } from "darkroom.js/react";
import manifest from "../../images.json";

const lake = image(manifest, "lake.jpg");
const upright = image(manifest, "upright.jpg");
const hero = withArtDirection(lake, [{ media: "(max-width: 40em)", image: upright }]);

export default function Page() {
  return <Picture image={hero} priority alt="A lake" style={{ width: "100%", height: "auto" }} />;
}
