import itertools
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from service.errors import CdnError
from service.ops import cdn
from service.ops.cdn import MAX_TAGS_PER_CALL, Cloudflare
from tests.support.cloudflare import MAX_TAGS, ONLY_ENTERPRISE, RATE_LIMITED, TOKEN, ZONE, FakeCloudflare, Fault, errors, fake_cloudflare
from tests.support.server import HOST, free_port
from tests.support.waiting import PATIENCE_SECONDS, within

pytestmark = pytest.mark.anyio

SUCCESS = b'{"success": true, "errors": [], "messages": [], "result": {"id": "' + ZONE.encode() + b'"}}'
REFUSED = errors((1000, "No."))


@pytest.fixture
def cloudflare() -> Iterator[FakeCloudflare]:
    with fake_cloudflare() as running:
        yield running


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cdn, "_PAUSES_SECONDS", tuple(seconds / 50 for seconds in cdn._PAUSES_SECONDS))


def client(cloudflare: FakeCloudflare, *, zone: str = ZONE, token: str = TOKEN, seconds: float = PATIENCE_SECONDS) -> Cloudflare:
    return Cloudflare(zone, token, url=cloudflare.url, seconds=seconds)


async def failure_of(purger: Cloudflare, tags: list[str] | None = None) -> CdnError:
    with pytest.raises(CdnError) as caught:
        await purger.purge_tags(tags or ["image-a"])
    return caught.value


def everything_public(error: CdnError) -> str:
    return " ".join([str(error.problem()), str(error), repr(error), repr(error.__cause__), str(error.extra_headers)])


async def test_purge_of_one_tag_is_one_call(cloudflare: FakeCloudflare) -> None:
    await client(cloudflare).purge_tags(["image-a"])
    assert cloudflare.purged == [["image-a"]]
    assert cloudflare.calls == 1


async def test_purge_of_no_tags_makes_no_call(cloudflare: FakeCloudflare) -> None:
    await client(cloudflare).purge_tags([])
    assert cloudflare.calls == 0


async def test_purge_of_more_tags_than_a_call_takes_makes_several_calls(cloudflare: FakeCloudflare) -> None:
    tags = [f"image-{number}" for number in range(2 * MAX_TAGS + 1)]
    await client(cloudflare).purge_tags(tags)
    assert [len(call) for call in cloudflare.purged] == [MAX_TAGS, MAX_TAGS, 1]
    assert cloudflare.purged_tags == tags
    assert MAX_TAGS_PER_CALL == MAX_TAGS


async def test_purge_of_tags_that_differ_in_case_names_them_once(cloudflare: FakeCloudflare) -> None:
    await client(cloudflare).purge_tags(["Image-A", "image-b", "image-a"])
    assert cloudflare.purged == [["image-a", "image-b"]]


async def test_purge_twice_with_one_client_purges_twice(cloudflare: FakeCloudflare) -> None:
    purger = client(cloudflare)
    await purger.purge_tags(["image-a"])
    await purger.purge_tags(["image-b"])
    assert cloudflare.purged == [["image-a"], ["image-b"]]


async def test_purge_with_a_trailing_slash_in_the_url_is_routed(cloudflare: FakeCloudflare) -> None:
    await Cloudflare(ZONE, TOKEN, url=cloudflare.url + "/").purge_tags(["image-a"])
    assert cloudflare.purged == [["image-a"]]


async def test_purge_with_the_wrong_token_names_the_setting_and_is_not_retried(cloudflare: FakeCloudflare) -> None:
    error = await failure_of(client(cloudflare, token="another-token"))
    assert error.problem().status == 502
    assert error.problem().type == "/problems/cdn-failed"
    assert error.detail == "Cloudflare refuses the token."
    assert error.received == "status 403, code 10000"
    assert error.remedy is not None
    assert "DARKROOM_CLOUDFLARE_TOKEN" in error.remedy
    assert "Zone > Cache Purge" in error.remedy
    assert "another-token" not in everything_public(error)
    assert cloudflare.calls == 1


async def test_purge_of_an_unknown_zone_names_the_setting_and_is_not_retried(cloudflare: FakeCloudflare) -> None:
    zone = "f" * 32
    error = await failure_of(client(cloudflare, zone=zone))
    assert error.detail == "Cloudflare does not know the zone."
    assert error.received == "status 404, code 7003, 7000"
    assert error.remedy is not None
    assert "DARKROOM_CLOUDFLARE_ZONE" in error.remedy
    # Cloudflare's own message quotes it.
    assert zone not in everything_public(error)
    assert cloudflare.calls == 1


@pytest.mark.parametrize(
    ("status", "body", "detail"),
    [
        (400, ONLY_ENTERPRISE, "Cloudflare does not purge this zone by tag."),
        (400, errors((6003, "Invalid request headers")), "Cloudflare refuses the token."),
        (401, b"", "Cloudflare refuses the token."),
        (403, b"<html>", "Cloudflare refuses the token."),
        (400, errors((7003, "Could not route")), "Cloudflare does not know the zone."),
        (404, b"", "Cloudflare does not know the zone."),
        (400, REFUSED, "Cloudflare refuses to purge."),
        (400, b"<html>", "The response is not from Cloudflare's API."),
        (200, REFUSED, "Cloudflare refuses to purge."),
        (200, b"", "The response is not from Cloudflare's API."),
        (200, b"purged!", "The response is not from Cloudflare's API."),
        (200, b"\xff\xfe", "The response is not from Cloudflare's API."),
        (200, b"true", "The response is not from Cloudflare's API."),
        (200, b"{}", "The response is not from Cloudflare's API."),
        (200, b'{"success": "true"}', "The response is not from Cloudflare's API."),
        (200, b'{"success": 1}', "The response is not from Cloudflare's API."),
        (200, b'{"success": null}', "The response is not from Cloudflare's API."),
        (200, b"[" * 60_000, "The response is not from Cloudflare's API."),
        (200, b'{"success": true, "result": ' + b"[" * 60_000, "The response is not from Cloudflare's API."),
        (200, b'{"success": true, "errors": [{"code": ' + b"9" * 60_000 + b"}]}", "The response is not from Cloudflare's API."),
        (200, SUCCESS + b"x", "The response is not from Cloudflare's API."),
        (201, SUCCESS, "Cloudflare refuses to purge."),
        (204, b"", "The response is not from Cloudflare's API."),
        (302, b"", "The response is not from Cloudflare's API."),
    ],
)
async def test_purge_with_any_response_but_success_is_an_error_at_once(
    cloudflare: FakeCloudflare, status: int, body: bytes, detail: str
) -> None:
    cloudflare.fail(Fault(status, [body], {"Location": f"{cloudflare.url}/zones/{ZONE}/purge_cache"}))
    error = await failure_of(client(cloudflare))
    assert error.detail == detail
    assert error.received is not None
    assert f"status {status}" in error.received
    assert cloudflare.calls == 1


async def test_purge_whose_first_call_is_refused_makes_no_second(cloudflare: FakeCloudflare) -> None:
    cloudflare.fail(Fault(400, [REFUSED]))
    await failure_of(client(cloudflare), [f"image-{number}" for number in range(2 * MAX_TAGS)])
    assert cloudflare.calls == 1


async def test_purge_waits_as_long_as_retry_after_says(cloudflare: FakeCloudflare) -> None:
    cloudflare.fail(Fault(429, [RATE_LIMITED], {"Retry-After": "1"}))
    began = time.monotonic()
    await client(cloudflare).purge_tags(["image-a"])
    assert time.monotonic() - began >= 1
    assert cloudflare.purged == [["image-a"]]
    assert cloudflare.calls == 2


@pytest.mark.parametrize("name", ["Retry-After", "retry-after"])
async def test_purge_with_a_retry_after_beyond_its_deadline_fails_at_once(cloudflare: FakeCloudflare, name: str) -> None:
    cloudflare.fail(Fault(429, [RATE_LIMITED], {name: "300"}))
    with within(10):
        error = await failure_of(client(cloudflare, seconds=20))
    assert error.detail == "Cloudflare limits the rate of purges."
    assert error.retry_after_seconds == 300
    assert cloudflare.calls == 1


@pytest.mark.parametrize("words", ["", "-1", "soon", "Wed, 21 Oct 2065 07:28:00 GMT", "9" * 5000])
async def test_purge_with_a_malformed_retry_after_is_retried_soon(cloudflare: FakeCloudflare, words: str) -> None:
    cloudflare.fail(Fault(429, [RATE_LIMITED], {"Retry-After": words}))
    await client(cloudflare).purge_tags(["image-a"])
    assert cloudflare.purged == [["image-a"]]


async def test_purge_that_is_always_rate_limited_fails_after_three_calls(cloudflare: FakeCloudflare) -> None:
    cloudflare.fail(Fault(429, [RATE_LIMITED], {"Retry-After": "0"}), times=10)
    error = await failure_of(client(cloudflare))
    assert error.detail == "Cloudflare limits the rate of purges."
    assert error.retry_after_seconds is None
    assert cloudflare.calls == 3


@pytest.mark.parametrize("fault", [Fault(500), Fault(503, [b"<html>"]), Fault(hang_up=True)], ids=["500", "503", "hang up"])
async def test_purge_that_fails_twice_succeeds_at_the_third_attempt(cloudflare: FakeCloudflare, fault: Fault) -> None:
    cloudflare.fail(fault, times=2)
    await client(cloudflare).purge_tags(["image-a"])
    assert cloudflare.purged == [["image-a"]]
    assert cloudflare.calls == 3


async def test_purge_that_fails_twice_in_each_call_has_three_attempts_for_each(cloudflare: FakeCloudflare) -> None:
    tags = [f"image-{number}" for number in range(MAX_TAGS + 1)]
    purger = client(cloudflare)
    cloudflare.fail(Fault(500), times=2)
    cloudflare.fail(Fault(200, [SUCCESS]))
    cloudflare.fail(Fault(500), times=2)
    await purger.purge_tags(tags)
    assert cloudflare.purged == [tags[MAX_TAGS:]]
    assert cloudflare.calls == 6


async def test_purge_that_always_fails_ends_after_three_calls(cloudflare: FakeCloudflare) -> None:
    cloudflare.fail(Fault(500, [errors((1, "Oops"))]), times=10)
    error = await failure_of(client(cloudflare))
    assert error.detail == "Cloudflare failed."
    assert error.received == "status 500, code 1"
    assert cloudflare.calls == 3


async def test_purge_whose_connection_is_always_closed_ends_after_three_calls(cloudflare: FakeCloudflare) -> None:
    cloudflare.fail(Fault(hang_up=True), times=10)
    error = await failure_of(client(cloudflare))
    assert error.detail == "Cloudflare cannot be reached."
    assert cloudflare.calls == 3


async def test_purge_with_a_refused_connection_is_an_error_with_its_cause() -> None:
    error = await failure_of(Cloudflare(ZONE, TOKEN, url=f"http://{HOST}:{free_port()}/client/v4"))
    assert error.detail == "Cloudflare cannot be reached."
    assert type(error.__cause__).__name__ == "ConnectError"


async def test_purge_over_tls_to_a_plain_server_is_an_error(cloudflare: FakeCloudflare) -> None:
    error = await failure_of(Cloudflare(ZONE, TOKEN, url=cloudflare.url.replace("http:", "https:")))
    assert error.detail == "Cloudflare cannot be reached."
    assert cloudflare.purged == []


async def test_purge_whose_pause_would_outlast_its_deadline_fails_at_once(
    cloudflare: FakeCloudflare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cdn, "_PAUSES_SECONDS", (60.0, 60.0))
    cloudflare.fail(Fault(500))
    error = await failure_of(client(cloudflare, seconds=30))
    assert error.detail == "Cloudflare failed."
    assert cloudflare.calls == 1


async def test_purge_without_a_response_ends_at_its_deadline(cloudflare: FakeCloudflare) -> None:
    cloudflare.fail(Fault(silent=True))
    began = time.monotonic()
    with within(5):
        error = await failure_of(client(cloudflare, seconds=1))
    assert time.monotonic() - began >= 1
    assert error.detail == "Cloudflare has not purged within 1 seconds."
    assert cloudflare.calls == 1


async def test_purge_whose_connection_is_never_accepted_ends_at_its_deadline() -> None:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        port: int = listener.getsockname()[1]
        error = await failure_of(Cloudflare(ZONE, TOKEN, url=f"http://{HOST}:{port}", seconds=0.3))
    assert error.detail == "Cloudflare has not purged within 0.3 seconds."


async def test_purge_after_many_without_a_response_succeeds(cloudflare: FakeCloudflare, monkeypatch: pytest.MonkeyPatch) -> None:
    purger = client(cloudflare, seconds=2)
    # As many as httpcore connects at a time.
    cloudflare.fail(Fault(silent=True), times=10)
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(failure_of, purger)
    assert cloudflare.calls == 10
    monkeypatch.setattr(purger, "_seconds", PATIENCE_SECONDS)
    await purger.purge_tags(["image-a"])
    assert cloudflare.purged == [["image-a"]]


async def test_purge_with_an_endless_response_stops_reading(cloudflare: FakeCloudflare) -> None:
    # Success, and then spaces: JSON as far as it goes.
    cloudflare.fail(Fault(200, itertools.chain([SUCCESS], itertools.repeat(b" " * 4096))))
    error = await failure_of(client(cloudflare, seconds=20))
    assert error.detail == "The response is not from Cloudflare's API."
    assert cloudflare.hung_up.wait(PATIENCE_SECONDS)
    assert cloudflare.calls == 1


async def test_purge_reads_responses_of_up_to_64_kibibytes(cloudflare: FakeCloudflare) -> None:
    cloudflare.fail(Fault(200, [SUCCESS.ljust(64 << 10)]))
    await client(cloudflare).purge_tags(["image-a"])
    cloudflare.fail(Fault(200, [SUCCESS.ljust((64 << 10) + 1)]))
    await failure_of(client(cloudflare))


async def test_purge_ignores_proxy_variables_and_netrc(cloudflare: FakeCloudflare, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text(f"machine {HOST} login somebody password else\n")
    netrc.chmod(0o600)
    for name in os.environ:
        if name.lower() == "no_proxy":
            monkeypatch.delenv(name)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://{HOST}:{free_port()}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    await client(cloudflare).purge_tags(["image-a"])
    assert cloudflare.purged == [["image-a"]]


@pytest.mark.parametrize("fault", [None, Fault(500), Fault(hang_up=True), Fault(403, [REFUSED])], ids=["none", "500", "hang up", "403"])
async def test_purge_logs_neither_token_nor_zone(
    cloudflare: FakeCloudflare, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], fault: Fault | None
) -> None:
    caplog.set_level(logging.DEBUG)
    purger = client(cloudflare)
    if fault is None:
        await purger.purge_tags(["image-a"])
    else:
        cloudflare.fail(fault, times=3)
        assert TOKEN not in everything_public(await failure_of(purger))
    written = caplog.text + "".join(capsys.readouterr()) + repr(purger)
    # Shows that httpcore logs its steps at this level, without which this test would prove nothing.
    assert "send_request_headers" in written
    assert TOKEN not in written
    assert ZONE not in written


@pytest.mark.parametrize("zone", ["", ZONE[1:], ZONE + "0", "g" + ZONE[1:], ZONE + "\n", "example.com", "../" + ZONE[3:], "٣" * 32])
def test_malformed_zone_is_refused_and_not_quoted(zone: str) -> None:
    with pytest.raises(ValueError, match="32 hexadecimal digits") as caught:
        Cloudflare(zone, TOKEN)
    assert not zone or zone not in str(caught.value)


@pytest.mark.parametrize("token", ["", "two words", "line\r\nbreak", "trailing\n", "tökén", "tab\t", "nul\0"])
def test_malformed_token_is_refused_and_not_quoted(token: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII without spaces") as caught:
        Cloudflare(ZONE, token)
    assert not token or token not in str(caught.value)
