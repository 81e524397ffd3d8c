import { baseService } from "astro/assets";
import { transformer } from "darkroom.js";
import manifest from "../images.json";

const transform = transformer(manifest);

export default { ...baseService, getURL: (wanted) => transform(wanted.src, wanted) };
