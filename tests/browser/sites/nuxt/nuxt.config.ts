export default defineNuxtConfig({
  modules: ["@nuxt/image"],
  image: {
    densities: [1],
    providers: { darkroom: { provider: "darkroom.js/nuxt", options: { baseURL: "https://img.example.com" } } },
  },
});
