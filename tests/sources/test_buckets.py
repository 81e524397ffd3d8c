"""Buckets as sources, on servers that speak the protocols of the three clouds."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from service.errors import BadAddressError, ServiceError, SettingsError, SourceFailedError, SourceSlowError, TooLargeError
from service.settings.bucket_variables import VARIABLES, variables_of
from service.settings.source_locations import parse_sources
from service.sources import bucket_stores
from service.sources.buckets import Bucket, open_bucket
from service.sources.source import Validators
from tests.support.buckets import AWS_SECRET, AZURE_KEY, KINDS, BucketServer, Failure, Kind, bucket_server
from tests.support.source_server import http_response, source

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("without_foreign_variables")]

MAX_BYTES = 1_000_000
PICTURE = bytes(range(256)) * 1_000

# Names that are spelled differently in a URL, in a signature or in XML. The stores permit all of them.
NAMES = (
    "a.jpg",
    "with space.jpg",
    "plus+plus.jpg",
    "100%.jpg",
    "per%20cent.jpg",
    "ünï/cödé 日本.jpg",
    "Zu\u0308rich.jpg",
    "query?a=b&c=d#e;f.jpg",
    "q'\"!()*~[]{}^`|<>.jpg",
    "a:b@c$d,e=f.jpg",
    "deep/er/x.jpg",
    "no extension",
)


@pytest.fixture(scope="module", params=KINDS)
def running(request: pytest.FixtureRequest) -> Iterator[BucketServer]:
    """Yield the server of each kind of bucket in turn."""
    with bucket_server(request.param) as server:
        yield server


@pytest.fixture
def server(running: BucketServer) -> Iterator[BucketServer]:
    """Yield a server without failures, and with an empty record of its requests."""
    running.requests.clear()
    yield running
    running.failure_for = lambda _: None
    running.is_public = False


def bucket(server: BucketServer, prefix: str = "", **variables: str) -> Bucket:
    location = parse_sources(f"shop={server.location}/{prefix}")["shop"]
    return open_bucket("shop", location, server.environment | variables, max_bytes=MAX_BYTES)


async def fetched(source: Bucket, path: str, validators: Validators | None = None) -> tuple[bytes, Validators | None]:
    parts: list[bytes] = []

    async def write(part: bytes) -> None:
        parts.append(part)

    found = await source.fetch(path, validators or Validators(), write)
    return b"".join(parts), found


async def failure(source: Bucket, path: str = "a.jpg") -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await fetched(source, path)
    return caught.value


# Objects.


@pytest.mark.parametrize("name", NAMES)
async def test_fetch_of_any_name_reads_its_own_object(server: BucketServer, name: str) -> None:
    server.put(f"names/{name}", name.encode())
    assert (await fetched(bucket(server), f"names/{name}"))[0] == name.encode()
    assert (await fetched(bucket(server, "names"), name))[0] == name.encode()


async def test_fetch_with_its_validators_is_conditional(server: BucketServer) -> None:
    server.put("a.jpg", PICTURE)
    source = bucket(server)
    body, validators = await fetched(source, "a.jpg")
    assert body == PICTURE
    assert validators is not None
    assert validators.etag
    assert await fetched(source, "a.jpg", validators) == (b"", None)
    server.put("a.jpg", b"another picture")
    body, changed = await fetched(source, "a.jpg", validators)
    assert body == b"another picture"
    assert changed not in {None, validators}


async def test_fetch_of_a_missing_object_is_gone(server: BucketServer) -> None:
    for path in ("missing.jpg", "NoSuchBucket", " - Server returned non-2xx status code: 500"):
        error = await failure(bucket(server), path)
        assert isinstance(error, SourceFailedError)
        assert error.source_status == 404


async def test_fetch_of_a_large_object_is_refused_before_its_body(server: BucketServer) -> None:
    server.put("large.jpg", bytes(MAX_BYTES + 1))
    parts: list[bytes] = []

    async def write(part: bytes) -> None:
        parts.append(part)

    with pytest.raises(TooLargeError) as caught:
        await bucket(server).fetch("large.jpg", Validators(), write)
    assert caught.value.received == f"{MAX_BYTES + 1} bytes"
    assert not parts
    server.put("large.jpg", bytes(MAX_BYTES))
    assert len((await fetched(bucket(server), "large.jpg"))[0]) == MAX_BYTES


async def test_fetch_of_a_compressed_object_is_refused(server: BucketServer) -> None:
    server.put("a.svg", b"\x1f\x8b", coding="gzip")
    assert (await failure(bucket(server), "a.svg")).received == "gzip"


async def test_fetch_passes_on_what_write_raises(server: BucketServer) -> None:
    server.put("a.jpg", PICTURE)

    async def write(_: bytes) -> None:
        raise OSError("the spool is full")

    with pytest.raises(OSError, match="the spool is full"):
        await bucket(server).fetch("a.jpg", Validators(), write)


# Objects that change, and connections that break.


async def test_fetch_that_breaks_off_reads_the_rest(server: BucketServer) -> None:
    server.put("a.jpg", PICTURE)
    failures = iter([Failure(breaks_off=True)])
    server.failure_for = lambda _: next(failures, None)
    # The proxy in front of moto asks twice for each request, once for its status and once for its end.
    if server.kind == "s3":
        failures = iter([None, Failure(breaks_off=True)])  # type: ignore[list-item]
    assert (await fetched(bucket(server), "a.jpg"))[0] == PICTURE
    assert server.requests == ["a.jpg", "a.jpg"]


async def test_fetch_of_an_object_that_changes_meanwhile_is_refused(server: BucketServer) -> None:
    server.put("a.jpg", PICTURE)

    def breaks_off_and_changes(_: str) -> Failure | None:
        if len(server.requests) > 1:
            server.put("a.jpg", PICTURE[::-1])
            return None
        return Failure(breaks_off=True)

    server.failure_for = breaks_off_and_changes
    error = await failure(bucket(server))
    assert isinstance(error, SourceFailedError)
    assert error.source_status is None
    assert error.detail == "The object changed, or its bucket went away, while it was read."
    server.failure_for = lambda _: None
    assert (await fetched(bucket(server), "a.jpg"))[0] == PICTURE[::-1]


async def test_fetch_repeats_a_request_that_fails(server: BucketServer) -> None:
    server.put("a.jpg", PICTURE)
    server.failure_for = lambda _: Failure(503, "SlowDown") if len(server.requests) < 3 else None
    assert (await fetched(bucket(server), "a.jpg"))[0] == PICTURE


async def test_fetch_from_a_server_that_is_down_fails(server: BucketServer) -> None:
    server.put("a.jpg", PICTURE)
    server.stop()
    try:
        error = await failure(bucket(server))
        assert isinstance(error, SourceFailedError)
        assert error.detail == "The bucket of this source cannot be reached, or it redirects to another host."
        assert error.source_status is None
    finally:
        server.start()
    assert (await fetched(bucket(server), "a.jpg"))[0] == PICTURE


async def test_fetch_from_a_silent_server_is_slow(running: BucketServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_stores, "SILENCE_SECONDS", 0.2)

    async def is_silent(_: object) -> None:
        await asyncio.Event().wait()

    async with source() as silent:
        endpoint = f"http://127.0.0.1:{silent.port}"
        variables = {name: endpoint for name in VARIABLES[running.kind] if "ENDPOINT" in name or "BASE_URL" in name}
        for path in ("/pictures/a.jpg", "/pictures/a%2Ejpg"):
            silent.replies[path] = is_silent
        assert isinstance(await failure(bucket(running, **variables)), SourceSlowError)


# Access.


@pytest.mark.parametrize(
    ("given", "detail"),
    [
        (Failure(403, "AccessDenied"), "The bucket of this source denies the server access."),
        (Failure(403, "Unheard"), "The bucket of this source denies the server access."),
        (Failure(401, ""), "The bucket of this source does not accept the server's credentials."),
        (Failure(403, "InvalidAccessKeyId"), "The bucket of this source does not accept the server's credentials."),
        (Failure(403, "AuthenticationFailed"), "The bucket of this source does not accept the server's credentials."),
        (Failure(400, "AuthorizationHeaderMalformed"), "The bucket of this source is in another region."),
        (Failure(301, "PermanentRedirect"), "The bucket of this source is in another region."),
        (Failure(404, "NoSuchBucket"), "The bucket of this source does not exist, or is not public."),
        (Failure(404, "ContainerNotFound"), "The bucket of this source does not exist, or is not public."),
        (Failure(409, "PublicAccessNotPermitted"), "The bucket of this source denies the server access."),
        (Failure(500, "InternalError"), "The bucket of this source responds with errors."),
        (Failure(418, ""), "The bucket of this source responds with something else than the object."),
    ],
)
async def test_failure_of_a_bucket_names_its_cause(
    server: BucketServer, given: Failure, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_stores, "RETRIES", 0)
    server.failure_for = lambda _: given
    source = bucket(server)
    error = await failure(source)
    assert isinstance(error, SourceFailedError)
    assert error.detail == detail
    assert "`shop`" in (error.expected or "")
    # A missing bucket does not mean that the image is gone.
    assert error.source_status == (None if given.status in {404, 301} else given.status)
    with pytest.raises(SourceFailedError) as caught:
        await source.list("", 10)
    assert caught.value.detail == detail


async def test_failure_of_access_names_the_variables_of_the_source(server: BucketServer) -> None:
    server.failure_for = lambda _: Failure(403, "")
    own = {f"DARKROOM_SOURCE_SHOP_{name}": value for name, value in server.environment.items()}
    location = parse_sources(f"shop={server.location}")["shop"]
    error = await failure(open_bucket("shop", location, own, max_bytes=MAX_BYTES))
    assert "DARKROOM_SOURCE_SHOP_A" in (error.remedy or "") or "DARKROOM_SOURCE_SHOP_GOOGLE" in (error.remedy or "")
    assert "DARKROOM_SOURCE" not in ((await failure(bucket(server))).remedy or "")


async def test_missing_bucket_is_no_missing_object(server: BucketServer) -> None:
    location = parse_sources(f"shop={server.location}-of-others")["shop"]
    error = await failure(open_bucket("shop", location, server.environment, max_bytes=MAX_BYTES))
    assert isinstance(error, SourceFailedError)
    assert (error.source_status, error.detail) == (None, "The bucket of this source does not exist, or is not public.")


async def test_secrets_are_in_no_error_and_no_log(server: BucketServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.failure_for = lambda _: Failure(403, "SignatureDoesNotMatch")
    source = bucket(server)
    error = await failure(source)
    with pytest.raises(ServiceError):
        await source.list("", 10)
    location = parse_sources(f"shop={server.location}")["shop"]
    texts = [repr(source), repr(variables_of("shop", location, server.environment)), str(error.problem()), *capsys.readouterr()]
    assert not any(secret in text for text in texts for secret in (AWS_SECRET, AZURE_KEY))
    assert any("a bucket failed" in text for text in texts)


async def test_public_bucket_needs_no_credentials(server: BucketServer) -> None:
    server.put("a.jpg", PICTURE)
    server.is_public = True
    # The environment's credentials are not used.
    own = {name: value for name, value in server.environment.items() if value.startswith("http")}
    own[next(name for name in VARIABLES[server.kind] if name.endswith("SKIP_SIGNATURE"))] = "true"
    variables = server.environment | {f"DARKROOM_SOURCE_SHOP_{name}": value for name, value in own.items()}
    location = parse_sources(f"shop={server.location}")["shop"]
    assert (await fetched(open_bucket("shop", location, variables, max_bytes=MAX_BYTES), "a.jpg"))[0] == PICTURE


@pytest.mark.parametrize("variable", ["GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_APPLICATION_CREDENTIALS"])
async def test_service_account_signs_requests(tmp_path: Path, variable: str) -> None:
    """Its key signs a token (RFC 7519) that is sent to the bucket; no other server is asked for one."""
    private_key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    pem = private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    key = json.dumps({"type": "service_account", "private_key": pem, "private_key_id": "1", "client_email": "darkroom@example.com"})
    (tmp_path / "key.json").write_text(key)
    with bucket_server("gs") as server:
        server.put("a.jpg", PICTURE)
        value = key if variable == "GOOGLE_SERVICE_ACCOUNT_KEY" else str(tmp_path / "key.json")
        own = {"GOOGLE_BASE_URL": server.environment["GOOGLE_BASE_URL"], variable: value}
        environ = {f"DARKROOM_SOURCE_SHOP_{name}": text for name, text in own.items()}
        location = parse_sources(f"shop={server.location}")["shop"]
        assert (await fetched(open_bucket("shop", location, environ, max_bytes=MAX_BYTES), "a.jpg"))[0] == PICTURE
        scheme, _, token = server.authorization.partition(" ")
        header, claims, signature = (base64.urlsafe_b64decode(part + "==") for part in token.split("."))
        assert (scheme, json.loads(header)["alg"], json.loads(claims)["iss"]) == ("Bearer", "RS256", "darkroom@example.com")
        signed = token.rpartition(".")[0].encode()
        private_key.public_key().verify(signature, signed, PKCS1v15(), SHA256())


async def test_environment_of_other_stores_is_not_used(server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """obstore reads the variables of its process by itself; those would lead elsewhere."""
    server.put("a.jpg", PICTURE)
    for name, value in {
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_REGION": "nowhere",
        "AWS_SESSION_TOKEN": "foreign",
        "GOOGLE_BASE_URL": "http://127.0.0.1:1",
        "GOOGLE_APPLICATION_CREDENTIALS": "/nowhere.json",
        "AZURE_STORAGE_ENDPOINT": "http://127.0.0.1:1",
        "AZURE_STORAGE_ACCOUNT_NAME": "foreign",
        "AZURE_STORAGE_SAS_TOKEN": "sig=foreign",
        "AZURE_STORAGE_USE_EMULATOR": "true",
    }.items():
        monkeypatch.setenv(name, value)
    own = {f"DARKROOM_SOURCE_SHOP_{name}": value for name, value in server.environment.items()}
    location = parse_sources(f"shop={server.location}")["shop"]
    assert (await fetched(open_bucket("shop", location, {**os.environ, **own}, max_bytes=MAX_BYTES), "a.jpg"))[0] == PICTURE


# Listings.


async def test_list_goes_through_a_bucket_in_order(server: BucketServer) -> None:
    names = sorted(f"list/{name}" for name in NAMES)
    for name in names:
        server.put(name, b"12345")
    source = bucket(server, "list")
    seen: list[str] = []
    while page := await source.list(seen[-1] if seen else "", 5):
        assert all(entry.bytes == 5 for entry in page)
        assert len(page) <= 5
        seen += [entry.path for entry in page]
    assert [f"list/{path}" for path in seen] == names


async def test_list_leaves_out_what_marks_folders(server: BucketServer) -> None:
    for name in ("odd/folder/", "odd/empty.jpg"):
        server.put(name, b"")
    for name in ("odd/folder/a.jpg", "odd/z.jpg", "oddly.jpg"):
        server.put(name, b"1")
    assert [entry.path for entry in await bucket(server, "odd").list("", 100)] == ["folder/a.jpg", "z.jpg"]


async def test_list_with_a_key_that_is_no_path_names_it(server: BucketServer) -> None:
    server.put("bad//key.jpg", b"1")
    try:
        with pytest.raises(SourceFailedError) as caught:
            await bucket(server).list("", 1_000)
        assert caught.value.received == "bad//key.jpg"
    finally:
        server.delete("bad//key.jpg")


@pytest.mark.parametrize("after", ["../", "a//b", "\0", "a/./b", "\n"])
async def test_list_after_a_text_that_is_no_path_is_refused(server: BucketServer, after: str) -> None:
    with pytest.raises(BadAddressError) as caught:
        await bucket(server).list(after, 10)
    assert caught.value.remedy


# Variables.


def refusal(location: str, environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        open_bucket("my-shop", parse_sources(f"my-shop={location}")["my-shop"], environ, max_bytes=MAX_BYTES)
    assert not any(secret in str(caught.value) for secret in ("hidden-secret", AZURE_KEY))
    return str(caught.value)


def test_own_variables_exclude_those_of_the_environment() -> None:
    location = parse_sources("my-shop=s3://bucket")["my-shop"]
    environ = {"AWS_ACCESS_KEY_ID": "theirs", "AWS_REGION": "theirs", "AWS_SECRET_ACCESS_KEY": "", "GOOGLE_BASE_URL": "other"}
    shared = variables_of("my-shop", location, environ)
    assert (shared.values, shared.are_own) == ({"AWS_ACCESS_KEY_ID": "theirs", "AWS_REGION": "theirs"}, False)
    own = variables_of("my-shop", location, environ | {"DARKROOM_SOURCE_MY_SHOP_AWS_ACCESS_KEY_ID": "own"})
    assert (own.values, own.are_own, own.name("AWS_REGION")) == (
        {"AWS_ACCESS_KEY_ID": "own"},
        True,
        "DARKROOM_SOURCE_MY_SHOP_AWS_REGION",
    )
    assert repr(own) == "<BucketVariables: DARKROOM_SOURCE_MY_SHOP_AWS_ACCESS_KEY_ID>"


OWN = "DARKROOM_SOURCE_MY_SHOP_"


@pytest.mark.parametrize(
    ("location", "variables", "message"),
    [
        ("s3://bucket", {"AWS_REGION": "eu-north-1"}, f"Set {OWN}AWS_ACCESS_KEY_ID and {OWN}AWS_SECRET_ACCESS_KEY, or"),
        ("s3://bucket", {"AWS_ACCESS_KEY_ID": "id"}, f"{OWN}AWS_SECRET_ACCESS_KEY is missing"),
        ("s3://bucket", {"AWS_SECRET_ACCESS_KEY": "hidden-secret"}, f"{OWN}AWS_ACCESS_KEY_ID is missing"),
        ("s3://bucket", {"AWS_SKIP_SIGNATURE": "maybe"}, f"{OWN}AWS_SKIP_SIGNATURE is invalid: expected true or false"),
        ("s3://bucket", {"AWS_ENDPOINT_URL": "s3.example.com"}, f"{OWN}AWS_ENDPOINT_URL is invalid"),
        ("gs://bucket", {"GOOGLE_BASE_URL": "http://127.0.0.1:1"}, f"Set {OWN}GOOGLE_APPLICATION_CREDENTIALS or"),
        ("gs://bucket", {"GOOGLE_APPLICATION_CREDENTIALS": "/nowhere.json"}, "No such file"),
        ("s3://bucket", {"AWS_ENDPOINT_URL": "https://me:hidden-secret@s3.example.com"}, "got a URL with a user name"),
        ("gs://bucket", {"GOOGLE_APPLICATION_CREDENTIALS": "/etc/hostname"}, f"{OWN}GOOGLE_APPLICATION_CREDENTIALS is invalid"),
        ("gs://bucket", {"GOOGLE_SERVICE_ACCOUNT_KEY": "hidden-secret"}, f"{OWN}GOOGLE_SERVICE_ACCOUNT_KEY is invalid"),
        ("gs://bucket", {"GOOGLE_SERVICE_ACCOUNT_KEY": '"hidden-secret"'}, "got other text"),
        ("gs://bucket", {"GOOGLE_SERVICE_ACCOUNT_KEY": '{"private_key": ["hidden-secret"]}'}, "got JSON without one"),
        (
            "gs://bucket",
            {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps({"private_key": "hidden-secret", "private_key_id": "1", "client_email": "a@b"})},
            f"{OWN}GOOGLE_SERVICE_ACCOUNT_KEY cannot be used",
        ),
        ("az://account/container", {"AZURE_CLIENT_ID": "id"}, f"Set {OWN}AZURE_STORAGE_KEY or {OWN}AZURE_STORAGE_SAS_TOKEN, or"),
        ("az://account/container", {"AZURE_STORAGE_KEY": "hidden-secret!"}, f"{OWN}AZURE_STORAGE_KEY cannot be used"),
    ],
)
def test_variables_that_cannot_be_used_are_refused(location: str, variables: dict[str, str], message: str) -> None:
    assert message in refusal(location, {OWN + name: value for name, value in variables.items()})


@pytest.mark.parametrize("kind", KINDS)
def test_bucket_without_credentials_is_refused_unless_the_machine_has_a_role(kind: Kind) -> None:
    location = {"s3": "s3://bucket", "gs": "gs://bucket/prefix", "az": "az://account/container"}[kind]
    message = refusal(location, {})
    assert message.startswith(f"{location}/ in DARKROOM_SOURCES has no credentials.")
    assert "DARKROOM_MACHINE_ROLE=true" in message
    opened = open_bucket("shop", parse_sources(f"shop={location}")["shop"], {}, max_bytes=MAX_BYTES, use_machine_role=True)
    assert repr(opened) == f"<Bucket shop: {location}/>"


async def test_fetch_ignores_proxies_of_the_environment(server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server.put("a.jpg", PICTURE)
    assert (await fetched(bucket(server), "a.jpg"))[0] == PICTURE


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_fetch_follows_no_redirect_to_another_host(status: int) -> None:
    """obstore would follow it to any address, and return what is there."""
    async with source() as elsewhere, source() as endpoint:
        headers = ('ETag: "1"', "Last-Modified: Tue, 24 Nov 2026 00:00:00 GMT")
        elsewhere.replies["/secret"] = http_response(200, *headers, body=b"secret")
        # Both listen at the same address, under different names.
        endpoint.replies["/pictures/a.jpg"] = http_response(status, f"Location: {elsewhere.url('/secret', host='127.0.0.1')}")
        variables = {
            "AWS_ENDPOINT_URL_S3": endpoint.url("", host="localhost"),
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": AWS_SECRET,
        }
        error = await failure(open_bucket("shop", parse_sources("shop=s3://pictures")["shop"], variables, max_bytes=MAX_BYTES))
        assert error.detail == "The bucket of this source cannot be reached, or it redirects to another host."
        assert endpoint.requests
        assert elsewhere.requests == []
