"""The help for each environment variable: `darkroom serve --help`, error messages and `docs/settings.md` show it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Setting(msgspec.Struct, frozen=True):
    """The help for one variable. `default` describes the default if the default value itself would not."""

    help: str
    default: str | None = None


HELP: Mapping[str, Setting] = {
    "DARKROOM_CONFIG": Setting(
        "TOML file with settings. A key is the name of a variable in lower case without `DARKROOM_`. The environment goes before the file.",
        "none",
    ),
    "DARKROOM_HOST": Setting("Address to listen on. Any address other than loopback requires `DARKROOM_KEYS` and `DARKROOM_TOKENS`."),
    "DARKROOM_PORT": Setting("Port to listen on."),
    "DARKROOM_DATA": Setting(
        "Folder for the development signing key, the temporary files of uploads, and the default store.", "`.darkroom`"
    ),
    "DARKROOM_STORE": Setting(
        "Where images are stored: `file:///folder`, `memory://`, or `s3://bucket` (`s3://` without a name uses the bucket in "
        "`BUCKET_NAME`). S3 reads `AWS_ENDPOINT_URL_S3`, `AWS_REGION`, `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.",
        "`store` in the data folder",
    ),
    "DARKROOM_KEYS": Setting(
        "Signing keys, newest first, separated by commas. Each has at least 32 hexadecimal digits (`openssl rand -hex 32`). "
        "The first key signs; all of them are accepted.",
        "created once and stored in the data folder",
    ),
    "DARKROOM_KEYS_FILE": Setting(
        "File with the signing keys, one in a line, newest first, in place of DARKROOM_KEYS. The server reads it again when it changes.",
        "none",
    ),
    "DARKROOM_TOKENS": Setting(
        "Bearer tokens, separated by commas, each written as `token:scope+scope`. A token has at least 16 characters; scopes are `ingest`, "
        "`delete` and `read`. A token without scopes has all of them.",
        "none: anyone who reaches the server may upload",
    ),
    "DARKROOM_TOKENS_FILE": Setting(
        "File with the hashes of bearer tokens, one in a line, in place of DARKROOM_TOKENS. `darkroom token` makes a token and its line, "
        "which may bind it to sources or to a number of bytes per day. The server reads the file again when it changes.",
        "none",
    ),
    "DARKROOM_PUBLIC_URL": Setting(
        "URL prefix of the URLs in image documents, for example `https://img.example.com`.", "none: the URLs are relative"
    ),
    "DARKROOM_URL_NAMES": Setting(
        "Whether the URLs in image documents, manifests and `<picture>` end with the names of images: `true` or `false`.", "`false`"
    ),
    "DARKROOM_CORS_ORIGINS": Setting(
        "Origins whose pages may use upload URLs (`POST /v1/uploads`), separated by commas or spaces, as browsers write them: "
        "`https://www.example.com`, `http://localhost:3000`; or `*` for all.",
        "none: only pages of the server's own origin",
    ),
    "DARKROOM_UNSIGNED": Setting(
        "What needs no signature (`-` in its place): `none`, or a list, separated by spaces, of transforms in canonical form and of the "
        "word `ladder`, which stands for every image, and every variant of it, at the widths in DARKROOM_WIDTHS.",
        "`ladder`",
    ),
    "DARKROOM_REGIONS": Setting(
        "The regions of this deployment, separated by commas, the primary region first. `/health` reports them, and `darkroom regions` "
        "reads them.",
        "none",
    ),
    "DARKROOM_METRICS_PORT": Setting("Port of `/metrics` for Prometheus, on the address to listen on. Keep it private.", "none"),
    "DARKROOM_LOG_CLIENTS": Setting(
        "Whether the log has the client's address in the line of a request: `true` or `false`. It is personal data in many countries.",
        "`false`",
    ),
    "DARKROOM_LOG_HITS": Setting(
        "Fraction of the requests that were answered from memory, and of successful health checks, that are in the log, 0 to 1. All other "
        "requests are."
    ),
    "DARKROOM_LOG_LINES_PER_SECOND": Setting(
        "Maximum number of log lines per second of each kind, such as requests with status 400, over ten seconds. The log has the number "
        "of lines that were omitted."
    ),
    "DARKROOM_CACHE_BYTES": Setting("Memory for stored responses, in bytes, including bookkeeping."),
    "DARKROOM_MAX_COLD_REQUESTS": Setting(
        "Maximum number of clients that wait for responses that are not in memory. Further ones get 503.", "12 on Fly, 1024 elsewhere"
    ),
    "DARKROOM_MAX_CONNECTIONS_PER_ADDRESS": Setting(
        "Maximum number of connections of one client address, or of one IPv6 network of 64 bits. The newest connections beyond it are "
        "closed within seconds. Set it where clients connect directly: behind a proxy all connections have the proxy's address.",
        "none",
    ),
    "DARKROOM_TRUSTED_PROXIES": Setting(
        "Addresses and networks of the proxies in front, separated by commas: `10.0.0.0/8, 2001:db8::/32`. The client of a request from "
        "one of them is the last address in `X-Forwarded-For` that is not in this list. On Fly, `Fly-Client-IP` names the client, and this "
        "is only for a CDN in front of Fly.",
        "none: the peer of the connection is the client",
    ),
    "DARKROOM_MAX_HEADER_BYTES": Setting(
        "Maximum size of a request's header in bytes, 4096 to 1048576: its target, field names and values. A larger header gets 431. The "
        "server stops reading a header of more than twice the size, and that 431 has no body; for hits only this second bound applies."
    ),
    "DARKROOM_MAX_UPLOAD_BYTES": Setting("Maximum size of an upload in bytes: the whole body, however many files it has."),
    "DARKROOM_MAX_PARTS": Setting("Maximum number of files in one multipart upload."),
    "DARKROOM_MAX_PIXELS": Setting("Maximum number of pixels of an original, all frames together."),
    "DARKROOM_MAX_WHOLE_PIXELS": Setting(
        "The same for originals that must be decoded as a whole: progressive JPEG, interlaced PNG, WebP, GIF, AVIF, HEIC, JPEG XL, "
        "TIFF, SVG."
    ),
    "DARKROOM_MAX_OUTPUT_PIXELS": Setting("Maximum number of pixels of a rendition."),
    "DARKROOM_MAX_FRAMES": Setting("Maximum number of frames or pages of an original."),
    "DARKROOM_VARIANTS": Setting(
        "Named transforms, separated by `;` or new lines: `card: width=640,height=480,fit=cover; badge: width=96,round=max`. "
        "Requests for URLs name them as `variant`; the URLs contain the transform itself.",
        "none",
    ),
    "DARKROOM_WIDTHS": Setting(
        "Widths of the ladder in pixels, at most 16 and at most 3840, in rising order, separated by commas.", "`320,640,960,1280,1920,2560`"
    ),
    "DARKROOM_QUALITY": Setting(
        "Quality of formats in new URLs whose transform names none, on the scale of each encoder: any of `jxl`, `avif`, `webp` and `jpeg`, "
        "separated by commas, such as `avif=55,webp=78`. The URLs contain it, so stored renditions and other URLs keep theirs.",
        "that of the pipeline version",
    ),
    "DARKROOM_WARM": Setting(
        "Formats in which the ladder of a new image is rendered in the background: any of `jxl`, `avif`, `webp` and "
        "`fallback` (JPEG, PNG or GIF, depending on the image), separated by commas, or `none`.",
        "`jxl,avif,webp,fallback`",
    ),
    "DARKROOM_RENDITIONS_BYTES": Setting(
        "Maximum size of the renditions and intermediates in a store on disk, in bytes. Beyond it the least recently read ones are "
        "removed, and made again on demand. For a bucket, use a lifecycle rule instead.",
        "none: they are never removed",
    ),
    "DARKROOM_SOURCES": Setting(
        "Where images already are, each place with a name, separated by `;` or new lines: `cms=https://cms.example.com/uploads; "
        "shop=s3://bucket/prefix; old=gs://bucket; az=az://account/container`. Everything below such a prefix is public through "
        "`/from/<name>/…`, and the names are public too.",
        "none",
    ),
    "DARKROOM_SOURCE_SECONDS": Setting(
        "How long the image of a source counts as fresh, in seconds. After that the source is revalidated, while caches still serve it."
    ),
    "DARKROOM_SOURCE_RESPONSE": Setting(
        "Response to `/from/…`: `picture`, the picture itself, or `redirect`, a redirect to its immutable URL."
    ),
    "DARKROOM_MACHINE_ROLE": Setting(
        "`true` if buckets in `DARKROOM_SOURCES` without credentials are to be read with the role that the cloud gives this machine or "
        "container. The server requests it from the cloud's metadata service, to which it does not connect otherwise.",
        "`false`",
    ),
    "DARKROOM_CLOUDFLARE_ZONE": Setting(
        "Zone ID of the Cloudflare zone in front of the server, which is purged after takedowns.", "none: no CDN is purged"
    ),
    "DARKROOM_CLOUDFLARE_TOKEN": Setting("API token of Cloudflare with the permission Zone > Cache Purge for that zone.", "none"),
    "DARKROOM_CLOUDFLARE_URL": Setting("Base URL of Cloudflare's API, for servers that reach it through a proxy."),
    "DARKROOM_RENDER_PROCESSES": Setting("Maximum number of render processes. An idle server has one.", "as many as cores"),
    "DARKROOM_RENDER_MEMORY_BYTES": Setting("Address space of one render process in bytes, at least 268435456."),
    "DARKROOM_RENDER_QUEUE": Setting("Maximum number of renders that wait for a render process. Further ones get 503."),
    "DARKROOM_WAIT_SECONDS": Setting(
        "How long a client waits for a rendition, including its time in the queue, in seconds. A render that is not expected to end "
        "within 0.7 of that is refused with 503 at once."
    ),
    "DARKROOM_RENDER_SECONDS": Setting("After this many seconds a render is stopped by killing its process."),
}

# Read by the commands that send requests to a server, not by the server itself.
CLIENT_HELP: Mapping[str, Setting] = {
    "DARKROOM_SERVER": Setting(
        "URL of the Darkroom server that `push`, `import`, `url`, `info`, `rm` and `open` use.", "`http://127.0.0.1:8080`"
    ),
    "DARKROOM_TOKEN": Setting(
        "Bearer token that they send, one that the server knows. It can only be set here, not on the command line.",
        "none",
    ),
}
