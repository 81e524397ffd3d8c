// The API page: Swagger UI, from the files of an installed package, with this server's own description.

// Swagger UI's script defines it.
const { SwaggerUIBundle } = /** @type {any} */ (window);

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

SwaggerUIBundle({
  url: "/docs/openapi.json",
  dom_id: "#api",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  docExpansion: "list",
  // No validator badge: nothing is sent to another host.
  validatorUrl: null,
});
