// ipx as a server of a folder: node ipx.mjs FOLDER PORT
import { createServer } from "node:http";
import { createIPX, createIPXNodeServer, ipxFSStorage } from "ipx";

const [dir, port] = process.argv.slice(2);
const serve = createIPXNodeServer(createIPX({ storage: ipxFSStorage({ dir }) }));

createServer((request, response) => (request.url === "/health" ? response.end("ok") : serve(request, response))).listen(Number(port), "127.0.0.1");
