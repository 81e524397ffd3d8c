import { signer } from "darkroom.js/sign";

const sign = signer(process.env.DARKROOM_KEYS);

const [digest] = process.argv.slice(2);
const path = sign({ digest, transform: "width=640,height=480,fit=cover", extension: "webp" });
console.log(new URL(path, process.env.DARKROOM_URL).href);
