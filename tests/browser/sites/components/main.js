// /?page=react and so on.
const pages = {
  react: () => import("./react.jsx"),
  source: () => import("./source.jsx"),
  svelte: () => import("./svelte.js"),
  unpic: () => import("./unpic.jsx"),
  vue: () => import("./vue.js"),
};

pages[new URLSearchParams(location.search).get("page")]();
