// Requests to the server: uploads, documents, URLs, changes. None of these functions rejects.

/**
 * A problem document (RFC 9457), or one in its form where the server sent none.
 * @typedef {{title: string, detail?: string, expected?: string, received?: string, remedy?: string, type?: string,
 *   status?: number, prefer_region?: string}} Problem
 */

/**
 * The outcome of a request: `document` on success, else `problem`. `status` is 0 where the server could not be reached and −1
 * where the request was aborted.
 * @typedef {{status: number, document?: any, etag?: string | null, link?: string | null, problem?: Problem}} Result
 */

const TOKEN = "darkroom-token";

export const token = () => sessionStorage.getItem(TOKEN);

/**
 * Store an access token for this browser tab only. It is sent as a header, never in a URL.
 * @param {string} text
 */
export function storeToken(text) {
  sessionStorage.setItem(TOKEN, text.trim());
}

/**
 * Whether another token may help: none was sent, or it lacks a scope.
 * @param {number | null | undefined} status
 */
export const needsToken = (status) => status === 401 || status === 403;

/** @type {Result} */
const UNREACHABLE = {
  status: 0,
  problem: {
    title: "No response",
    detail: "The server could not be reached, the connection was closed early, or the file could not be read.",
    remedy: "Check that the server is running and that the file still exists, then try again.",
  },
};

/**
 * The result of a response.
 * @param {number} status
 * @param {string} text
 * @param {(name: string) => string | null} [header]
 * @returns {Result}
 */
export function toResult(status, text, header = () => null) {
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {
    // A proxy on the way may send a page of its own.
  }
  if (status >= 200 && status < 300 && body)
    return { status, document: body, etag: header("ETag"), link: header("Link") };
  const unnamed = {
    title: `The server responded with status ${status}`,
    detail: "The response does not say why.",
    status,
  };
  return { status, problem: body?.title ? body : unnamed };
}

/** @returns {Record<string, string>} */
const authorization = () => (token() ? { Authorization: `Bearer ${token()}` } : {});

/**
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<Result>}
 */
async function request(path, options = {}) {
  try {
    const response = await fetch(path, {
      ...options,
      headers: { ...authorization(), ...options.headers },
    });
    return toResult(response.status, await response.text(), (name) => response.headers.get(name));
  } catch (error) {
    return error.name === "AbortError" ? { status: -1 } : UNREACHABLE;
  }
}

/**
 * @param {string} method
 * @param {object} body
 * @param {Record<string, string>} [headers]
 * @returns {RequestInit}
 */
const json = (method, body, headers) => ({
  method,
  headers: { "Content-Type": "application/json", ...headers },
  body: JSON.stringify(body),
});

/**
 * The region that accepts uploads, once the server has named one. Fly's proxy, which replays no large request, reads it.
 * @type {string | null}
 */
let uploadRegion = null;

/**
 * Upload a file as it is.
 * @param {File} file
 * @param {(sent: number) => void} onProgress Called with the part that was sent, 0 to 1.
 * @returns {Promise<Result>}
 */
export async function upload(file, onProgress) {
  const result = await sendFile(file, onProgress);
  const region = result.status === 421 ? result.problem.prefer_region : null;
  if (!region || region === uploadRegion) return result;
  uploadRegion = region;
  return sendFile(file, onProgress);
}

/**
 * XMLHttpRequest, because fetch does not report the progress of an upload.
 * @param {File} file
 * @param {(sent: number) => void} onProgress
 * @returns {Promise<Result>}
 */
function sendFile(file, onProgress) {
  return new Promise((resolve) => {
    const sent = new XMLHttpRequest();
    sent.open("POST", `/v1/images?name=${encodeURIComponent(file.name)}`);
    // The server looks at the bytes. The file's own type could make it read a dropped .json as a request.
    sent.setRequestHeader("Content-Type", "application/octet-stream");
    if (uploadRegion) sent.setRequestHeader("Fly-Prefer-Region", uploadRegion);
    for (const [name, value] of Object.entries(authorization())) sent.setRequestHeader(name, value);
    sent.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    sent.onload = () => resolve(toResult(sent.status, sent.responseText, (name) => sent.getResponseHeader(name)));
    sent.onerror = () => resolve(UNREACHABLE);
    sent.send(file);
  });
}

/** @param {string} digest */
export const readDocument = (digest) => request(`/v1/images/${digest}`);

/**
 * Create URLs for a transform.
 * @param {string} digest
 * @param {object} body The request's body, as the API describes it.
 * @param {AbortSignal} [signal] Aborts a request whose result is no longer of interest.
 */
export const createUrls = (digest, body, signal) =>
  request(`/v1/images/${digest}/urls`, { ...json("POST", body), signal });

/**
 * Change the focal point, the alt text or the name of the document that `etag` names. 412 means that someone else changed it first.
 * @param {string} digest
 * @param {object} body
 * @param {string} etag
 */
export const updateImage = (digest, body, etag) =>
  request(`/v1/images/${digest}`, json("PATCH", body, { "If-Match": etag }));

/**
 * A page of documents, newest first.
 * @param {string} path The path of the first page, or the one that the page before linked to.
 */
export const listImages = (path) => request(path);

/** The JSON Schema of a transform's options, as the API describes them. */
export async function readTransformSchema() {
  const result = await request("/docs/openapi.json");
  if (!result.document) return result;
  const { schema } = result.document.paths["/v1/images/{digest}/urls"].post.requestBody.content["application/json"];
  return { ...result, document: schema.properties.transform.properties };
}

/**
 * Fetch a rendition as a browser does, and count its bytes.
 * @param {string} url
 * @param {{cache: RequestCache, signal: AbortSignal}} options
 * @returns {Promise<Result & {bytes?: number, headers?: Headers, retryAfter?: string | null}>}
 */
export async function fetchRendition(url, { cache, signal }) {
  try {
    const response = await fetch(url, { cache, signal });
    if (!response.ok)
      return {
        ...toResult(response.status, await response.text()),
        retryAfter: response.headers.get("Retry-After"),
      };
    const bytes = (await response.arrayBuffer()).byteLength;
    return { status: response.status, bytes, headers: response.headers };
  } catch (error) {
    return error.name === "AbortError" ? { status: -1 } : UNREACHABLE;
  }
}

/**
 * The path of a rendition on this server: its document may name another host that stands in front of it.
 * @param {string} url
 */
export function toLocalPath(url) {
  const { pathname } = new URL(url, location.origin);
  return pathname.slice(pathname.indexOf("/i/"));
}
