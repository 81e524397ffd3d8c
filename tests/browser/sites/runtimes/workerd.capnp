# The worker as the open-source runtime of Cloudflare Workers serves it; its address and variables come from the command line and the environment.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [(name = "main", worker = .worker)],
  sockets = [(name = "http", http = (), service = "main")]
);

const worker :Workerd.Worker = (
  modules = [
    (name = "edge.js", esModule = embed "edge.js"),
    (name = "darkroom.js", esModule = embed "node_modules/darkroom.js/darkroom.js")
  ],
  bindings = [
    (name = "DARKROOM_KEYS", fromEnvironment = "DARKROOM_KEYS"),
    (name = "DARKROOM_URL", fromEnvironment = "DARKROOM_URL")
  ],
  compatibilityDate = "2026-01-01"
);
