// The library alone, behind the smallest server: node sharp.mjs FOLDER PORT
import { createServer } from "node:http";
import { basename, join } from "node:path";
import sharp from "sharp";

const [folder, port] = process.argv.slice(2);

async function render({ pathname, searchParams }) {
  const number = (name) => Number(searchParams.get(name)) || undefined;
  const size = { width: number("width"), height: number("height"), fit: "cover", position: sharp.strategy.attention };
  const picture = sharp(join(folder, basename(pathname))).autoOrient().resize(size);
  const quality = number("quality");
  return picture.toFormat(searchParams.get("format"), quality === undefined ? {} : { quality }).toBuffer();
}

createServer(async (request, response) => {
  const url = new URL(request.url, "http://127.0.0.1");
  response.end(url.pathname === "/health" ? "ok" : await render(url));
}).listen(Number(port), "127.0.0.1");
