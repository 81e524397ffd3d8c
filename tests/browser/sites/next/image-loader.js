"use client";

import { loader } from "darkroom.js";
import manifest from "./images.json";

export default loader(manifest, { format: "avif" });
