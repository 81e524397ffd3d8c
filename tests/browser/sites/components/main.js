// One page for each framework: /?svelte, /?unpic, /?vue.
const pages = { svelte: () => import("./svelte.js"), unpic: () => import("./unpic.jsx"), vue: () => import("./vue.js") };

pages[location.search.slice(1)]();
