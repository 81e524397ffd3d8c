import { webcrypto } from "node:crypto";
import { signer } from "darkroom.js";

const sign = signer(process.env.DARKROOM_KEYS, webcrypto);
