// Asking the server: uploads, documents, URLs, changes. Every answer is `{status, document, etag}` or `{status, problem}`; nothing rejects.

const TOKEN = "darkroom-token";

export const token = () => sessionStorage.getItem(TOKEN);

/** Keep a token for this tab alone. It is sent as a header, never in a URL. */
export function keepToken(text) {
  sessionStorage.setItem(TOKEN, text.trim());
}

/** Whether another token may help: none came, or it lacks a scope. */
export const wantsToken = (status) => status === 401 || status === 403;

const UNREACHABLE = {
  status: 0,
  problem: {
    title: "No answer",
    detail: "The server could not be reached, the connection ended early, or the file could not be read.",
    remedy: "See that the server runs and that the file is still there, then try again.",
  },
};

/** What an answer becomes: the document in it, or the problem in its place. */
export function answerOf(status, text, header = () => null) {
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {
    // A proxy on the way may answer in words of its own.
  }
  if (status >= 200 && status < 300 && body) return { status, document: body, etag: header("ETag"), link: header("Link") };
  return { status, problem: body?.title ? body : { title: `The server answered ${status}`, detail: "Its answer does not say why.", status } };
}

const authorization = () => (token() ? { Authorization: `Bearer ${token()}` } : {});

async function asked(path, options = {}) {
  try {
    const answer = await fetch(path, { ...options, headers: { ...authorization(), ...options.headers } });
    return answerOf(answer.status, await answer.text(), (name) => answer.headers.get(name));
  } catch (error) {
    return error.name === "AbortError" ? { status: -1 } : UNREACHABLE;
  }
}

const json = (method, body, headers = {}) => ({ method, headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(body) });

/** The region that takes images in, once the server has said that only one does. Fly's proxy, which hands on no large request, reads it. */
let takingIn = null;

/** Send a file as it is. XMLHttpRequest, because fetch tells nothing of an upload's progress. */
export async function upload(file, onProgress) {
  const answer = await sendFile(file, onProgress);
  const region = answer.status === 421 ? answer.problem.prefer_region : null;
  if (!region || region === takingIn) return answer;
  takingIn = region;
  return sendFile(file, onProgress);
}

function sendFile(file, onProgress) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/v1/images");
    // The server looks at the bytes. The file's own type could make it read a dropped .json as a request.
    request.setRequestHeader("Content-Type", "application/octet-stream");
    if (takingIn) request.setRequestHeader("Fly-Prefer-Region", takingIn);
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = () => resolve(answerOf(request.status, request.responseText, (name) => request.getResponseHeader(name)));
    request.onerror = () => resolve(UNREACHABLE);
    request.send(file);
  });
}

export const readDocument = (digest) => asked(`/v1/images/${digest}`);

/** URLs for a transform; `signal` ends a question that is no longer of interest: its status is −1. */
export const mint = (digest, wanted, signal) => asked(`/v1/images/${digest}/urls`, { ...json("POST", wanted), signal });

/** Change the focal point or the alternative text of the document that `etag` names: 412 where someone else was faster. */
export const change = (digest, changed, etag) => asked(`/v1/images/${digest}`, json("PATCH", changed, { "If-Match": etag }));

/** A page of documents, newest first. `path` is that of the first page, or what the page before linked to. */
export const readPage = (path) => asked(path);

/** What can be asked of an image: the JSON Schema of a transform, as the API describes it. */
export async function readOptions() {
  const answer = await asked("/docs/openapi.json");
  if (!answer.document) return answer;
  const { schema } = answer.document.paths["/v1/images/{digest}/urls"].post.requestBody.content["application/json"];
  return { ...answer, document: schema.properties.transform.properties };
}

/** Fetch a rendition as a browser does, its bytes counted and its way told. */
export async function fetchRendition(url, { cache, signal }) {
  try {
    const answer = await fetch(url, { cache, signal });
    if (!answer.ok) return { ...answerOf(answer.status, await answer.text()), retryAfter: answer.headers.get("Retry-After") };
    return { status: answer.status, bytes: (await answer.arrayBuffer()).byteLength, headers: answer.headers };
  } catch (error) {
    return error.name === "AbortError" ? { status: -1 } : UNREACHABLE;
  }
}

/** Where this server answers the URL of a rendition: the document may name another host that stands in front of it. */
export function here(url) {
  const { pathname } = new URL(url, location.origin);
  return pathname.slice(pathname.indexOf("/i/"));
}
