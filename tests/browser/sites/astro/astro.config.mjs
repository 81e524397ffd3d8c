import node from "@astrojs/node";
import { breakpoints } from "darkroom.js/astro";
const service = { entrypoint: "darkroom.js/astro", config: { base: "https://img.example.com" } };
export default { adapter: node({ mode: "standalone" }), image: { service, breakpoints } };
