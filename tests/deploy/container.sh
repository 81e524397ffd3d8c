#!/usr/bin/env bash
# Builds the image from the Dockerfile and runs it as an operator would: with a read-only root, without capabilities, not
# as root, with one volume. Then uploads a photo, fetches renditions, restarts, and fetches the same bytes again.
#
#   tests/deploy/container.sh [PHOTO]      (without PHOTO it uses a picture that it makes in the container)
#
# It prints the size of each layer, and makes 25 renders of 24 megapixels at once with a limit of memory.
#
# Needs buildah and podman; as root on Debian it installs them if they are missing. If no registry can be reached, it makes
# the base image with debootstrap, from DEBIAN_MIRROR if that is set. The machine's settings for pip and apt (index, proxy,
# CA) are mounted into the build and never become part of the image. Containers, volumes and files are removed at the end;
# image layers stay, so that the next run is quick.
set -euo pipefail
cd "$(dirname "$0")/../.."

image=localhost/darkroom-test
base=docker.io/library/debian:trixie-slim
own_base=localhost/darkroom-test-base:trixie-slim
name=darkroom-test-$$
# Of the image, of which Debian with Python is 120 MB.
ceiling_megabytes=275
# Of the container while it is under load.
memory_megabytes=1536
work=$(mktemp -d)
photo=${1:-}

say() { printf '%s\n' "$*"; }
fail() {
    say "FAILED: $*" >&2
    command podman logs "$name" 2>&1 | tail -n 40 | sed 's/^/  log: /' >&2 || true
    exit 1
}
# Without systemd every podman command warns that it cannot schedule health checks; this script runs them by hand.
podman() { command podman --log-level=fatal "$@"; }

cleanup() {
    podman rm --force --volumes --time 0 "$name" >/dev/null 2>&1 || true
    podman volume rm --force "$name" >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap cleanup EXIT

# ---------------------------------------------------------------------------------------------------- required tools

need() { # the names of commands, which on Debian are in packages of the same name
    local missing=()
    for tool in "$@"; do type -P "$tool" >/dev/null || missing+=("$tool"); done
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "Installing ${missing[*]}"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends "${missing[@]}" >/dev/null
    else
        say "Please install: ${missing[*]}" >&2
        exit 1
    fi
}

# Mounts are what container tools need and what containers of CI services often do not permit.
[ "$(id -u)" = 0 ] && own_mounts=(unshare --mount) || own_mounts=(unshare --mount --map-root-user)
if ! "${own_mounts[@]}" true 2>/dev/null; then
    say "SKIPPED: the container is neither built nor run, because this machine permits no mount namespaces."
    exit 0
fi

need buildah podman curl python3

# chroot isolation needs no namespaces, so it also works inside containers and small virtual machines. Only Docker's image
# format has HEALTHCHECK.
export BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot} BUILDAH_FORMAT=docker

from=()
if podman image exists "$own_base"; then
    from=(--from "$own_base")
elif ! podman image exists "$base" && ! timeout 120 podman pull --quiet "$base" >/dev/null 2>&1; then
    say "No registry can be reached: making the base image with debootstrap"
    [ "$(id -u)" = 0 ] || { say "debootstrap needs root: run this once as root, or pull $base." >&2; exit 1; }
    need debootstrap
    # Debian's own slim image leaves out the same paths; docker-clean removes downloaded packages from layers.
    debootstrap --variant=minbase trixie "$work/base" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$work/debootstrap.log" 2>&1 ||
        { tail -n 20 "$work/debootstrap.log" >&2; exit 1; }
    printf 'path-exclude /usr/share/%s/*\n' doc man info locale >"$work/base/etc/dpkg/dpkg.cfg.d/slim"
    printf 'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\nDPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };\n' \
        >"$work/base/etc/apt/apt.conf.d/docker-clean"
    rm -rf "$work"/base/usr/share/{doc,man,info,locale}/* "$work"/base/var/cache/apt/* "$work"/base/var/lib/apt/lists/*
    tar -C "$work/base" -c . | podman import --change 'CMD ["bash"]' - "$own_base" >/dev/null 2>&1
    rm -rf "$work/base"
    from=(--from "$own_base")
fi

# ----------------------------------------------------------------------------- the machine's settings, for the build only

mounts=()
settings=$(python3 -m pip config list 2>/dev/null || true)
ca=$(sed -n "s/^[^=]*\.cert='\(.*\)'$/\1/p" <<<"$settings" | tail -n 1)
ca=${ca:-${SSL_CERT_FILE:-${REQUESTS_CA_BUNDLE:-}}}
{
    say '[global]'
    sed -n "s/^[^=]*\.\(index-url\|extra-index-url\|trusted-host\|proxy\|timeout\|default-timeout\)='\(.*\)'$/\1 = \2/p" <<<"$settings"
    if [ -f "$ca" ]; then
        say 'cert = /etc/pip-ca.crt'
        mounts+=(--volume "$(realpath "$ca"):/etc/pip-ca.crt:ro")
    fi
} >"$work/pip.conf"
[ "$(wc -l <"$work/pip.conf")" -gt 1 ] && mounts+=(--volume "$work/pip.conf:/etc/pip.conf:ro")
if command -v apt-config >/dev/null; then
    apt-config dump | grep -E '^Acquire::https?::Proxy ' >"$work/apt.conf" || true
    [ -s "$work/apt.conf" ] && mounts+=(--volume "$work/apt.conf:/etc/apt/apt.conf.d/99-machine:ro")
fi

# --------------------------------------------------------------------------------------------------------------- build

began=$SECONDS
buildah bud --pull-never --layers "${from[@]}" "${mounts[@]}" --tag "$image" . >"$work/build.log" 2>&1 ||
    { tail -n 40 "$work/build.log" >&2; fail "the image does not build"; }
megabytes=$(podman image inspect --format '{{.Size}}' "$image" | awk '{printf "%.0f", $1 / 1e6}')
say "built in $((SECONDS - began)) s; $megabytes MB, by layer:"
podman history --no-trunc --format '{{.Size}} {{.CreatedBy}}' "$image" | grep -v '^0 B' | sed 's#/bin/sh -c \(\#(nop)\)\? *##' | cut -c 1-100 | sed 's/^/  /'
[ "$megabytes" -le "$ceiling_megabytes" ] || fail "the image has $megabytes MB, expected at most $ceiling_megabytes"

# As root inside another container, podman may be unable to raise limits and to create a network.
run=(run --network host)
own_limits=()
if ! podman "${run[@]}" --rm "$image" true >/dev/null 2>&1; then
    cat >"$work/containers.conf" <<'CONF'
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
[containers]
cgroups = "enabled"
netns = "host"
default_ulimits = ["nofile=16384:16384", "nproc=16384:16384"]
CONF
    need runc
    # An option --ulimit replaces all of the configured ones.
    own_limits=(--ulimit nproc=16384:16384)
    export CONTAINERS_CONF="$work/containers.conf"
    podman "${run[@]}" --rm "$image" true || fail "podman cannot run a container on this machine"
fi

# -------------------------------------------------------------------------------------------------------------- helpers

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
url=http://127.0.0.1:$port
key=$(python3 -c 'import secrets; print(secrets.token_hex(32))')
# Without a writable tmpfs, like Docker's --read-only.
locked=(--read-only --read-only-tmpfs=false --cap-drop ALL --security-opt no-new-privileges --memory ${memory_megabytes}m)

# get FILE CURL-ARGUMENTS… prints the status, and writes the body to FILE and the headers, with names in lower case, to FILE.headers.
get() {
    local file=$work/$1
    shift
    curl --silent --show-error --noproxy '*' --max-time 60 --output "$file" --dump-header "$file.raw" --write-out '%{http_code}' "$@" || true
    tr -d '\r' <"$file.raw" 2>/dev/null | sed 's/^\([^:]*\):/\L\1:/' >"$file.headers" || true
}
expect() { [ "$2" = "$3" ] || fail "$1: expected $2, got $3"; say "ok: $1: $2"; }
header() { sed -n "s/^$2: //p" "$work/$1.headers"; }
has() { grep -qiE "$3" <<<"$(header "$1" "$2")" || fail "$1: $2 is '$(header "$1" "$2")', expected $3"; say "ok: $1: $2: $(header "$1" "$2")"; }
field() { python3 -c "import json, sys; document = json.load(open(sys.argv[1])); print(document$2)" "$work/$1"; }
sum() { sha256sum <"$work/$1" | cut -d ' ' -f 1; }
# The value of Repr-Digest (RFC 9530) for the body in a file.
repr_digest() { python3 -c 'import base64, hashlib, sys; print("sha-256=:%s:" % base64.b64encode(hashlib.sha256(sys.stdin.buffer.read()).digest()).decode())' <"$work/$1"; }

wait_for_health() { # $1: the time of the start, in nanoseconds
    for _ in $(seq 600); do
        if [ "$(get health "$url/health" 2>/dev/null)" = 200 ]; then
            say "the container is healthy after $((($(date +%s%N) - $1) / 1000000)) ms"
            return
        fi
        [ "$(podman inspect --format '{{.State.Running}}' "$name")" = true ] || fail "the container stopped"
        sleep 0.05
    done
    fail "not healthy within 30 s: $(cat "$work/health" 2>/dev/null)"
}

# ------------------------------------------------------------------------------------------------------------- the image

inspect() { podman image inspect --format "$1" "$image"; }
expect "the image's user" 10001:10001 "$(inspect '{{.Config.User}}')"
expect "the image's stop signal" SIGTERM "$(inspect '{{.Config.StopSignal}}')"
expect "the image has no pip" 1 "$(podman "${run[@]}" --rm "$image" python -c 'import pip' >/dev/null 2>&1; echo $?)"

# Without keys and tokens the server must refuse to listen on all interfaces, and must name the missing settings.
status=0
timeout 30 podman --log-level=fatal "${run[@]}" --rm "${locked[@]}" --env DARKROOM_PORT="$port" "$image" \
    >"$work/refusal" 2>&1 || status=$?
[ "$status" != 0 ] && [ "$status" != 124 ] || fail "the server started without a key and a token"
for variable in DARKROOM_KEYS DARKROOM_TOKENS; do
    grep -q "$variable" "$work/refusal" || fail "the refusal does not name $variable: $(cat "$work/refusal")"
done
say "ok: without a key and a token the server refuses to start, exit code $status"

# ------------------------------------------------------------------------------------------------------------------ run

picture() { # width, height, and how many pixels wide and high a step of its two gradients is
    podman "${run[@]}" --rm "${locked[@]}" "$image" python -c '
import sys, pyvips
width, height, across, down = map(int, sys.argv[1:])
x = pyvips.Image.xyz(width, height)
noise = pyvips.Image.gaussnoise(width, height, sigma=6, seed=1)
bands = (x[0] / across).bandjoin([x[1] / down, 128 + 100 * (x[0] / 90).math("sin")]) + noise
sys.stdout.buffer.write(bands.cast("uchar").copy(interpretation="srgb").jpegsave_buffer(Q=90))
' "$@"
}

if [ -z "$photo" ]; then
    photo=$work/photo.jpg
    picture 2400 1600 10 7 >"$photo"
fi

large=$work/large.jpg
picture 6000 4000 25 17 >"$large"

# As docs/deployments.md has it: secrets in files for the container's user, everything else from deploy/compose.yaml.
mkdir "$work/secrets"
printf '%s\n' "$key" >"$work/secrets/keys"
podman "${run[@]}" --rm "${locked[@]}" "$image" darkroom token owner >"$work/secrets/tokens" 2>"$work/token"
token=$(tail -n 1 "$work/token")
chmod 0400 "$work"/secrets/*
chmod 0711 "$work" "$work/secrets"
chown 10001:10001 "$work"/secrets/*
mapfile -t composed < <("${PYTHON:-.venv/bin/python}" tests/deploy/compose_flags.py "$work/secrets")
say "compose: podman run ${composed[*]/#--volume=$work/--volume=.}"

podman volume create "$name" >/dev/null
began=$(date +%s%N)
podman "${run[@]}" --detach --name "$name" "${composed[@]}" "${own_limits[@]}" --volume "$name:/data" --env DARKROOM_PORT="$port" "$image" >/dev/null
wait_for_health "$began"
expect "/health" ok "$(field health '["status"]')"
expect "/livez" 200 "$(get livez "$url/livez")"
expect "HEALTHCHECK" 0 "$(podman healthcheck run "$name" >/dev/null 2>&1; echo $?)"
expect "the user" 10001 "$(podman exec "$name" id -u)"
expect "capabilities of process 1" 0000000000000000 "$(podman exec "$name" sed -n 's/^CapBnd:\s*//p' /proc/1/status)"
expect "process 1 may gain no privileges" 1 "$(podman exec "$name" sed -n 's/^NoNewPrivs:\s*//p' /proc/1/status)"
for place in / /tmp /run /opt/darkroom /usr/lib; do
    podman exec "$name" touch "$place/x" 2>/dev/null && fail "$place is writable"
done
say "ok: only /data is writable"

bearer="Authorization: Bearer $token"
expect "upload without a token" 401 "$(get refused --data-binary "@$photo" "$url/v1/images")"
expect "upload" 201 "$(get document --header "$bearer" --data-binary "@$photo" "$url/v1/images")"
src=$(field document '["src"]')
smallest=$(field document '["sources"][-1]["renditions"][0]["url"]')
best=$(field document '["sources"][0]["renditions"][0]["url"]')
say "src: $src"

for one in "src $src" "smallest $smallest" "best $best"; do
    file=${one%% *} path=${one#* }
    expect "$file" 200 "$(get "$file" "$url$path")"
    has "$file" cache-control '^public, max-age=31536000, immutable$'
    has "$file" content-type '^image/'
    has "$file" etag '^"[^"]+"$'
    has "$file" x-content-type-options '^nosniff$'
    has "$file" cache-status '^darkroom; fwd=uri-miss; stored'
    expect "$file: Repr-Digest is the digest of the body" "$(header "$file" repr-digest)" "$(repr_digest "$file")"
done
has best content-type '^image/jxl$'
expect "the length of the body equals Content-Length" "$(header src content-length)" "$(stat -c %s "$work/src")"
expect "a request with the same ETag" 304 "$(get unchanged --header "If-None-Match: $(header src etag)" "$url$src")"
expect "the same request again" 200 "$(get again "$url$src")"
has again cache-status 'hit'
expect "a transform that is not open, without a signature" 403 "$(get unsigned "$url$(sed -E 's#/width=[0-9]+/-\.#/width=333/-.#' <<<"$src")")"
expect "a forged signature" 403 "$(get forged "$url$(sed -E 's#/-\.#/aaaaaaaaaaaaaaaaaaaaaaaaaa.#' <<<"$src")")"
for page in llms.txt docs/transforms.md; do
    expect "/$page" 200 "$(get page "$url/$page")"
    has page content-type '^text/(plain|markdown); charset=utf-8$'
done
expect "an unknown original" 404 "$(get absent --header "$bearer" "$url/v1/images/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")"

# ----------------------------------------------------------------------------------------------------- stop and start again

began=$(date +%s%N)
podman stop --time 75 "$name" >/dev/null
say "stopped after $((($(date +%s%N) - began) / 1000000)) ms"
expect "exit status after SIGTERM" 0 "$(podman inspect --format '{{.State.ExitCode}}' "$name")"
began=$(date +%s%N)
podman start "$name" >/dev/null
wait_for_health "$began"
for one in "src $src" "smallest $smallest" "best $best"; do
    file=${one%% *} path=${one#* }
    expect "$file after the restart" 200 "$(get "$file.after" "$url$path")"
    has "$file.after" server-timing '^tier;desc=store;'
    expect "$file after the restart: the same bytes" "$(sum "$file")" "$(sum "$file.after")"
    expect "$file after the restart: the same ETag" "$(header "$file" etag)" "$(header "$file.after" etag)"
done
expect "the same photo once more" 200 "$(get known --header "$bearer" --data-binary "@$photo" "$url/v1/images")"

# ------------------------------------------------------------------------------------- 25 renders of 24 megapixels at once

cgroup_limit() { podman exec "$name" sh -c 'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null' | head -n 1; }
[ "$(cgroup_limit)" = $((memory_megabytes * 1024 * 1024)) ] && limited=yes || limited=no
[ $limited = yes ] || say "The memory of the container is NOT limited on this machine: its use is measured instead."
python3 tests/deploy/container_load.py --url "$url" --token "$token" --photo "$large" --megabytes $memory_megabytes --limited $limited \
    --pid "$(podman inspect --format '{{.State.Pid}}' "$name")" || fail "the container does not hold under load"
expect "the container after it" true "$(podman inspect --format '{{.State.Running}}' "$name")"

command podman logs "$name" >"$work/log" 2>&1
if grep -q 'Traceback' "$work/log"; then fail "the log contains a traceback"; fi
if grep -qF -e "$token" -e "$key" "$work/log"; then fail "the log contains a secret"; fi
say "ok: no traceback and no secret in the log"
say "All checks passed."
