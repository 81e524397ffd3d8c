// Calls darkroom.js for the tests: a line of JSON in, `[name, ...arguments]`; a line of JSON out, `{"value": …}` or `{"error": "…"}`.

import { createInterface } from "node:readline";

const darkroom = await import(process.argv[2]);

const calls = {
  ...darkroom,
  load: (from, options, asked) => darkroom.loader(from, options)(asked),
  transform: (from, options, ...asked) => darkroom.transformer(from, options)(...asked),
  sign: async (keys, addresses) => {
    const sign = darkroom.signer(keys);
    return Promise.all(addresses.map((address) => sign(address)));
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...given] = JSON.parse(line);
  let answer;
  try {
    answer = { value: (await (typeof calls[name] === "function" ? calls[name](...given) : calls[name])) ?? null };
  } catch (error) {
    answer = { error: error.message };
  }
  console.log(JSON.stringify(answer));
}
