// The entry `darkroom.js/sign` in runtimes without the modules of Node.js: signs URLs at once, with the package @noble/hashes.

import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { signing } from "../darkroom.js";

/** Return a function that signs URLs, for servers and edge functions. The key must never reach a browser. */
export function signer(keys) {
  const { key, payload, signed } = signing(keys);
  return (renditionUrl) => signed(renditionUrl, hmac(sha256, key, new TextEncoder().encode(payload(renditionUrl))));
}
