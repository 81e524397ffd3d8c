// Signs the URLs in the arguments with @noble/hashes, as runtimes do that have no modules of Node.js, as JSON on standard output.
import { signer } from "./node_modules/darkroom.js/frameworks/sign.js";

const [keys, urls] = JSON.parse(process.argv[2]);
console.log(JSON.stringify(urls.map(signer(keys))));
