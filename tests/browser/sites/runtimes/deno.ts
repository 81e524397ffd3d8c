import { signer } from "https://img.example.com/darkroom.js";

const sign = signer(Deno.env.get("DARKROOM_KEYS")!);

const path = await sign({ digest: Deno.args[0], transform: "width=640,height=480,fit=cover", extension: "webp" });
console.log(new URL(path, Deno.env.get("DARKROOM_URL")).href);
