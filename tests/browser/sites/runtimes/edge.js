import { signer } from "darkroom.js";

let sign;

/** /avatar/<digest> → the image cropped to a circle, in the best format that the browser supports. */
export default {
  async fetch(request, env) {
    sign ??= signer(env.DARKROOM_KEYS);
    const digest = new URL(request.url).pathname.split("/").at(-1);
    const path = await sign({ digest, transform: "width=96,height=96,fit=cover,round=max", extension: "auto" });
    return Response.redirect(new URL(path, env.DARKROOM_URL), 302);
  },
};
