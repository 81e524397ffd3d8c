// Measures what the code in the arguments adds to a bundle, as JSON on standard output: minified, and compressed with gzip and Brotli.
import { brotliCompressSync, gzipSync } from "node:zlib";
import { rolldown } from "rolldown";

async function size(code) {
  const entry = {
    name: "entry",
    resolveId: (id) => (id === "entry" ? `${import.meta.dirname}/entry.js` : null),
    load: (id) => (id.endsWith("/entry.js") ? code : null),
  };
  // What the site has anyway.
  const external = [/^(?:react|vue|svelte)(?:\/|$)/, /^@noble\//, /^node:/];
  const bundle = await rolldown({ input: "entry", plugins: [entry], external });
  const { output } = await bundle.generate({ format: "esm", minify: true });
  const bytes = Buffer.from(output[0].code);
  return { imports: output[0].imports, bytes: bytes.length, gzip: gzipSync(bytes, { level: 9 }).length, brotli: brotliCompressSync(bytes).length };
}

const sizes = Object.entries(JSON.parse(process.argv[2])).map(async ([name, code]) => [name, await size(code)]);
console.log(JSON.stringify(Object.fromEntries(await Promise.all(sizes))));
