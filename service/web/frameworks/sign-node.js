// The entry `darkroom.js/sign` in Node.js, Deno and Bun: signs URLs at once, with the runtime's own HMAC.

import { createHmac } from "node:crypto";
import { signing } from "../darkroom.js";

/** Return a function that signs URLs, for servers. The key must never reach a browser. */
export function signer(keys) {
  const { key, payload, signed } = signing(keys);
  return (renditionUrl) => signed(renditionUrl, createHmac("sha256", key).update(payload(renditionUrl)).digest());
}
