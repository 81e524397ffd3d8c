// The entry `darkroom.js/svelte`: a component that shows an image, which the site's own Svelte compiles.

export { default as Picture } from "./Picture.svelte";
