// Renders the components on a server, as JSON on standard output: for each of the properties in the arguments, the HTML of each framework.
import { readFile, writeFile } from "node:fs/promises";
import { Picture as ReactPicture } from "darkroom.js/react";
import { Picture as VuePicture } from "darkroom.js/vue";
import { createElement } from "react";
import { renderToStaticMarkup } from "react-dom/server";
import { compile } from "svelte/compiler";
import { render } from "svelte/server";
import { createSSRApp, h } from "vue";
import { renderToString } from "vue/server-renderer";

// As the plugin of a bundler compiles it.
const component = new URL("node_modules/darkroom.js/frameworks/Picture.svelte", import.meta.url);
const { js, warnings } = compile(await readFile(component, "utf8"), { generate: "server", filename: "Picture.svelte" });
if (warnings.length) throw new Error(warnings.join("\n"));
const compiled = new URL(`${component.href}.js`);
await writeFile(compiled, js.code);
const { default: SveltePicture } = await import(compiled.href);

const rendered = JSON.parse(process.argv[2]).map(async (properties) => ({
  react: renderToStaticMarkup(createElement(ReactPicture, properties)),
  svelte: render(SveltePicture, { props: properties }).body,
  vue: await renderToString(createSSRApp({ render: () => h(VuePicture, properties) })),
}));
console.log(JSON.stringify(await Promise.all(rendered)));
