// Calls darkroom.js for the tests. For each line `[name, ...arguments]` it prints a line `{"value": …}` or `{"error": "…"}`.

import { createInterface } from "node:readline";

const darkroom = await import(process.argv[2]);

const calls = {
  ...darkroom,
  load: (from, options, wanted) => darkroom.loader(from, options)(wanted),
  transform: (from, options, ...wanted) => darkroom.transformer(from, options)(...wanted),
  sign: async (keys, urls) => {
    const sign = darkroom.signer(keys);
    return Promise.all(urls.map((url) => sign(url)));
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...parameters] = JSON.parse(line);
  let result;
  try {
    result = { value: (await (typeof calls[name] === "function" ? calls[name](...parameters) : calls[name])) ?? null };
  } catch (error) {
    result = { error: error.message };
  }
  console.log(JSON.stringify(result));
}
