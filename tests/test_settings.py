import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import SettingsError
from service.images.options import Region
from service.images.transform import Transform
from service.settings.environment import load
from service.settings.help import CLIENT_HELP, HELP
from service.settings.loopback import is_loopback
from service.settings.sections import SCOPES, Settings, available_cores
from service.settings.signing_key import development_key
from service.settings.source_locations import SourceLocation

KEY = "00112233445566778899aabbccddeeff"
OTHER_KEY = KEY[::-1]
TOKEN = "a-token-of-22-letters_"
# The fields of every section by their environment variables.
FIELDS = {field.encode_name: field for section in msgspec.structs.fields(Settings) for field in msgspec.structs.fields(section.type)}
BEYOND = {"DARKROOM_HOST": "0.0.0.0", "DARKROOM_KEYS": KEY, "DARKROOM_TOKENS": TOKEN}


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load(environ)
    return str(caught.value)


def test_settings_without_any_variable_are_the_documented_defaults() -> None:
    settings = load({})
    assert settings == Settings()
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8080)
    assert settings.storage.data == Path.cwd() / ".darkroom"
    assert settings.storage.url == (Path.cwd() / ".darkroom" / "store").as_uri()
    assert settings.rendering.processes == available_cores() == len(os.sched_getaffinity(0))
    assert settings.server.max_cold_requests == 1_024
    assert (settings.auth.signing_keys, settings.auth.tokens, settings.auth.unsigned) == ((), {}, ("ladder",))
    assert settings.rendering.memory_bytes == 512 << 20
    assert (settings.rendering.wait_seconds, settings.rendering.render_seconds) == (30.0, 60.0)


def test_settings_are_all_documented_and_nothing_else_is() -> None:
    assert set(HELP) == set(FIELDS) - {"FLY_REGION", "FLY_MACHINE_ID", "PRIMARY_REGION"}
    assert all(setting.help.endswith(".") for setting in HELP.values())


def test_settings_with_a_computed_default_describe_it() -> None:
    literal = {name for name, field in FIELDS.items() if isinstance(field.default, str | int | float) and field.default not in {"", 0}}
    # Fewer on Fly.
    assert {name for name in HELP if HELP[name].default is None} == literal - {"DARKROOM_MAX_COLD_REQUESTS"}


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "proxy", "10.0.0.0/8;::1", "fe80::1%eth0/64x", "10.0.0"])
def test_settings_with_networks_of_proxies_that_are_none_are_refused(text: str) -> None:
    assert "DARKROOM_TRUSTED_PROXIES is invalid: expected addresses and networks" in refusal({"DARKROOM_TRUSTED_PROXIES": text})


@pytest.mark.parametrize("text", ["1", "yes", "True", "on", " true"])
def test_settings_with_names_in_urls_that_are_neither_true_nor_false_are_refused(text: str) -> None:
    assert refusal({"DARKROOM_URL_NAMES": text}) == f"DARKROOM_URL_NAMES is invalid: expected true or false, got {text!r}."


def test_settings_variables_are_prefixed_except_those_of_fly() -> None:
    assert FIELDS["DARKROOM_MAX_PIXELS"].name == "max_pixels"
    assert {name for name in FIELDS if not name.startswith("DARKROOM_")} == {"FLY_REGION", "FLY_MACHINE_ID", "PRIMARY_REGION"}


def test_settings_of_every_variable_are_read() -> None:
    environ = {
        "DARKROOM_HOST": "::1",
        "DARKROOM_PORT": "9000",
        "DARKROOM_DATA": "/var/darkroom",
        "DARKROOM_STORE": "file:///proc/store",
        "DARKROOM_KEYS": f"{KEY}, {OTHER_KEY}",
        "DARKROOM_TOKENS": f"{TOKEN}:ingest+read , another-token-here",
        "DARKROOM_PUBLIC_URL": "https://img.example.com",
        "DARKROOM_URL_NAMES": "true",
        "DARKROOM_CORS_ORIGINS": "https://www.example.com, http://localhost:3000",
        "DARKROOM_UNSIGNED": "full width=640  width=640,height=480,fit=cover",
        "DARKROOM_REGIONS": "fra,iad",
        "DARKROOM_CACHE_BYTES": "1000",
        "DARKROOM_MAX_COLD_REQUESTS": "7",
        "DARKROOM_MAX_CONNECTIONS_PER_ADDRESS": "20",
        "DARKROOM_TRUSTED_PROXIES": "10.0.0.0/8, 2001:db8::/32 192.0.2.7",
        "DARKROOM_MAX_HEADER_BYTES": "8192",
        "DARKROOM_MAX_UPLOAD_BYTES": "2000",
        "DARKROOM_MAX_PARTS": "3",
        "DARKROOM_MAX_PIXELS": "4000",
        "DARKROOM_MAX_WHOLE_PIXELS": "5000",
        "DARKROOM_MAX_OUTPUT_PIXELS": "6000",
        "DARKROOM_MAX_FRAMES": "7",
        "DARKROOM_VARIANTS": "card: width=640,height=480,fit=cover; part_2:crop=0p:0p:50p:50p\n\n  badge : width=96,round=max ;",
        "DARKROOM_WIDTHS": "100, 200,3840",
        "DARKROOM_QUALITY": "avif=55, webp=78",
        "DARKROOM_WARM": "avif, fallback",
        "DARKROOM_RENDITIONS_BYTES": "100000000",
        "DARKROOM_SOURCES": "cms=https://cms.example.com/uploads",
        "DARKROOM_SOURCE_SECONDS": "60",
        "DARKROOM_SOURCE_RESPONSE": "redirect",
        "DARKROOM_MACHINE_ROLE": "true",
        "DARKROOM_CLOUDFLARE_ZONE": "0" * 32,
        "DARKROOM_CLOUDFLARE_TOKEN": "token",
        "DARKROOM_CLOUDFLARE_URL": "https://proxy.example.com",
        "DARKROOM_METRICS_PORT": "9091",
        "DARKROOM_LOG_CLIENTS": "true",
        "DARKROOM_LOG_HITS": "0.25",
        "DARKROOM_LOG_LINES_PER_SECOND": "100",
        "DARKROOM_RENDER_PROCESSES": "5",
        "DARKROOM_RENDER_MEMORY_BYTES": "268435456",
        "DARKROOM_RENDER_QUEUE": "8",
        "DARKROOM_WAIT_SECONDS": "2.5",
        "DARKROOM_RENDER_SECONDS": "9",
        "FLY_REGION": "fra",
        "FLY_MACHINE_ID": "148e21ea",
        "PRIMARY_REGION": "iad",
        "HOME": "/root",
    }
    # tests/test_secret_files.py and tests/test_config_file.py read those that may not be set beside the others.
    in_place_of_others = {"DARKROOM_KEYS_FILE", "DARKROOM_TOKENS_FILE", "DARKROOM_CONFIG"}
    assert set(environ) - {"HOME"} == set(FIELDS) - in_place_of_others
    settings = load(environ)
    for section in msgspec.structs.fields(Settings):
        for field in msgspec.structs.fields(section.type):
            if field.encode_name in in_place_of_others:
                continue
            assert getattr(getattr(settings, section.name), field.name) != getattr(getattr(Settings(), section.name), field.name)
    assert settings.rendering.processes == 5
    assert settings.server.max_cold_requests == 7
    assert settings.storage.data == Path("/var/darkroom")
    assert settings.storage.url == "file:///proc/store"
    assert settings.auth.signing_keys == (bytes.fromhex(KEY), bytes.fromhex(OTHER_KEY))
    assert settings.auth.tokens == {TOKEN: frozenset({"ingest", "read"}), "another-token-here": frozenset(SCOPES)}
    assert settings.auth.unsigned == ("full", "width=640", "width=640,height=480,fit=cover")
    assert settings.sources.machine_role
    assert settings.sources.locations == {"cms": SourceLocation("https", "cms.example.com", prefix="uploads/")}
    assert settings.fly.declared_regions == ("fra", "iad")
    assert settings.server.trusted_proxies == ("10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32")
    assert (settings.rendering.wait_seconds, settings.rendering.render_seconds) == (2.5, 9.0)
    assert settings.rendering.widths == (100, 200, 3_840)
    assert settings.rendering.quality == {"avif": 55, "webp": 78}
    assert settings.rendering.warm_formats == ("avif", "fallback")
    assert settings.rendering.variants == {
        "card": Transform(width=640, height=480, fit="cover"),
        "part_2": Transform(crop=Region(0, 0, 50, 50, percent=True)),
        "badge": Transform(width=96, round="max"),
    }


@pytest.mark.parametrize(
    "text", ["80", "webp", "webp=0", "webp=101", "webp=8O", "webp=80,webp=80", "png=80", "gif=1", "jpg=80", "WEBP=80", "webp:80", "=", ","]
)
def test_settings_with_a_quality_that_no_format_has_are_refused(text: str) -> None:
    message = refusal({"DARKROOM_QUALITY": text})
    expected = "some of jxl, avif, webp, jpeg, each once with a whole number from 1 to 100, separated by commas"
    assert message == f"DARKROOM_QUALITY is invalid: expected {expected}, got {text!r}. Write for example avif=55,webp=78."


def test_settings_of_the_commands_are_accepted_and_ignored_by_a_server() -> None:
    assert set(CLIENT_HELP) == {"DARKROOM_SERVER", "DARKROOM_TOKEN"}
    assert not set(CLIENT_HELP) & set(HELP)
    assert all(setting.help.endswith(".") and setting.default for setting in CLIENT_HELP.values())
    assert load({"DARKROOM_SERVER": "https://img.example.com", "DARKROOM_TOKEN": TOKEN}) == Settings()


def test_settings_with_an_empty_variable_have_its_default() -> None:
    assert load(dict.fromkeys(HELP, "")) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DARKROOM_PORT", "0"),
        ("DARKROOM_PORT", "65536"),
        ("DARKROOM_PORT", "http"),
        ("DARKROOM_PORT", "80 "),
        ("DARKROOM_CACHE_BYTES", "0"),
        ("DARKROOM_CACHE_BYTES", "256MB"),
        ("DARKROOM_MAX_COLD_REQUESTS", "-1"),
        ("DARKROOM_MAX_HEADER_BYTES", "4095"),
        ("DARKROOM_MAX_HEADER_BYTES", "1048577"),
        ("DARKROOM_MAX_UPLOAD_BYTES", "-5"),
        ("DARKROOM_MAX_PARTS", "0"),
        ("DARKROOM_MAX_PIXELS", "0"),
        ("DARKROOM_MAX_WHOLE_PIXELS", "1.5"),
        ("DARKROOM_MAX_OUTPUT_PIXELS", "many"),
        ("DARKROOM_RENDER_PROCESSES", "-1"),
        ("DARKROOM_RENDER_MEMORY_BYTES", "268435455"),
        ("DARKROOM_RENDER_QUEUE", "0"),
        ("DARKROOM_WAIT_SECONDS", "0"),
        ("DARKROOM_WAIT_SECONDS", "nan"),
        ("DARKROOM_RENDER_SECONDS", "-1"),
        ("DARKROOM_RENDER_SECONDS", "1m"),
    ],
)
def test_settings_with_a_value_out_of_range_are_refused_with_range_value_and_help(name: str, value: str) -> None:
    message = refusal({name: value})
    assert re.match(rf"{name} is invalid: expected a (whole )?number (from \d+ to|of at least|greater than) \d+, got {value!r}\. ", message)
    assert message.endswith(HELP[name].help)


@pytest.mark.parametrize(
    ("name", "value", "number"),
    [
        ("DARKROOM_CACHE_BYTES", "256MB", "256000000"),
        ("DARKROOM_CACHE_BYTES", "1.5 GiB", "1610612736"),
        ("DARKROOM_RENDER_MEMORY_BYTES", "512M", "536870912"),
        ("DARKROOM_MAX_PIXELS", "100MP", "100000000"),
        ("DARKROOM_RENDER_SECONDS", "1m", "60"),
        ("DARKROOM_WAIT_SECONDS", "500ms", "0.5"),
    ],
)
def test_settings_with_a_unit_are_refused_with_the_number_to_write(name: str, value: str, number: str) -> None:
    message = refusal({name: value})
    assert f", got {value!r}. Write {number}. {HELP[name].help}" in message
    assert load({name: number, "DARKROOM_RENDER_MEMORY_BYTES": "536870912"})


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("DARKROOM_KEY", "Did you mean DARKROOM_KEYS?"),
        ("DARKROOM_TOKENZ", "Did you mean DARKROOM_TOKENS?"),
        ("DARKROOM_MAX_UPLOAD_SIZE", "Did you mean DARKROOM_MAX_UPLOAD_BYTES?"),
        ("DARKROOM_FLY_REGION", "Did you mean"),
        ("DARKROOM_", "Remove it."),
        ("DARKROOM_XYZZY_PLUGH", "Remove it."),
    ],
)
def test_settings_with_an_unknown_variable_are_refused_with_a_suggestion(name: str, hint: str) -> None:
    message = refusal({name: ""})
    assert message.startswith(f"{name} is not a setting of Darkroom.")
    assert hint in message


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "[::1]", "localhost"])
def test_settings_on_loopback_require_neither_key_nor_token(host: str) -> None:
    assert is_loopback(host)
    assert load({"DARKROOM_HOST": host}).server.host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "10.0.0.1", "192.168.1.5", "fdaa::3", "example.com", "localhost.example.com"])
def test_settings_beyond_loopback_without_key_or_token_name_the_missing_ones(host: str) -> None:
    assert not is_loopback(host)
    both = refusal({"DARKROOM_HOST": host})
    assert f"Listening on {host}, which other machines can reach, requires" in both
    assert "missing: DARKROOM_KEYS and DARKROOM_TOKENS." in both
    assert "missing: DARKROOM_TOKENS." in refusal({"DARKROOM_HOST": host, "DARKROOM_KEYS": KEY})
    assert "missing: DARKROOM_KEYS." in refusal({"DARKROOM_HOST": host, "DARKROOM_TOKENS": TOKEN})
    assert load({**BEYOND, "DARKROOM_HOST": host}).server.host == host


@pytest.mark.parametrize("empty", ["", ",", " ", " , ,"])
def test_settings_beyond_loopback_with_an_empty_list_of_keys_or_tokens_are_refused(empty: str) -> None:
    assert "missing: DARKROOM_TOKENS." in refusal({**BEYOND, "DARKROOM_TOKENS": empty})
    assert "missing: DARKROOM_KEYS." in refusal({**BEYOND, "DARKROOM_KEYS": empty})


@pytest.mark.parametrize("key", ["abc", "0" * 31, "0" * 33, "g" * 32, "0x" + "0" * 32, f"{KEY} {KEY}", f"{KEY},short", f"{KEY};{KEY}"])
def test_keys_that_are_not_hexadecimal_or_too_short_are_refused_without_showing_them(key: str) -> None:
    message = refusal({"DARKROOM_KEYS": key})
    assert message.startswith("DARKROOM_KEYS is invalid: expected ")
    assert "hexadecimal" in message
    assert "openssl rand -hex 32" in message
    assert key not in message


@given(st.lists(st.binary(min_size=16, max_size=48), min_size=1, max_size=4))
def test_keys_in_hexadecimal_are_read_newest_first(keys: list[bytes]) -> None:
    assert load({"DARKROOM_KEYS": ",".join(key.hex() for key in keys)}).auth.signing_keys == tuple(keys)
    assert load({"DARKROOM_KEYS": " , ".join(key.hex().upper() for key in keys)}).auth.signing_keys == tuple(keys)


@pytest.mark.parametrize(
    ("entry", "scopes"),
    [
        (TOKEN, {"ingest", "delete", "read"}),
        (f"{TOKEN}:ingest", {"ingest"}),
        (f"{TOKEN}:read+delete", {"read", "delete"}),
        (f"{TOKEN}:ingest+delete+read", {"ingest", "delete", "read"}),
        ("dG9rZW4tb2YtYmFzZTY0/._~==:read", {"read"}),
    ],
)
def test_tokens_have_the_scopes_after_the_colon_or_all(entry: str, scopes: set[str]) -> None:
    assert load({"DARKROOM_TOKENS": entry}).auth.tokens == {entry.partition(":")[0]: scopes}


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ("short", "a token of 5 characters"),
        ("a" * 15, "a token of 15 characters"),
        ("token with spaces in it", "a token of 23 characters"),
        ("t\N{LATIN SMALL LETTER O WITH DIAERESIS}ken-with-an-umlaut", "a token of 20 characters"),
        (f"{TOKEN}:write", "the unknown scope 'write'"),
        (f"{TOKEN}:", "the unknown scope ''"),
        (f"{TOKEN}:ingest+", "the unknown scope ''"),
        (f"{TOKEN}:Ingest", "the unknown scope 'Ingest'"),
        (f"{TOKEN}:ingest:read", "the unknown scope 'ingest:read'"),
        (f"{TOKEN},short", "a token of 5 characters"),
    ],
)
def test_tokens_that_are_short_or_have_unknown_scopes_are_refused_without_showing_them(entry: str, what: str) -> None:
    message = refusal({"DARKROOM_TOKENS": entry})
    assert message.startswith("DARKROOM_TOKENS is invalid: expected token:scope+scope, ")
    assert message.endswith(f", got {what}.")
    assert "scopes ingest, delete, read" in message
    assert entry.partition(":")[0].split(",")[-1] not in message


@pytest.mark.parametrize("url", ["https://img.example.com", "http://127.0.0.1:8080", "https://example.com/img", "http://[::1]:80/a/b"])
def test_public_url_without_a_slash_at_the_end_is_accepted(url: str) -> None:
    assert load({"DARKROOM_PUBLIC_URL": url}).server.public_url == url


@pytest.mark.parametrize(
    "url",
    [
        "img.example.com",
        "https://img.example.com/",
        "https://example.com/img/",
        "ftp://example.com",
        "https://",
        "https://example.com?x=1",
        "https://user@example.com",
        'https://example.com"><script>',
        "https://example.com\n",
        "//example.com",
    ],
)
def test_public_url_in_another_form_is_refused(url: str) -> None:
    message = refusal({"DARKROOM_PUBLIC_URL": url})
    assert message.startswith("DARKROOM_PUBLIC_URL is invalid: expected http:// or https://")
    assert message.endswith(f", got {url!r}.")


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("*", ("*",)),
        ("https://www.example.com", ("https://www.example.com",)),
        ("https://a.test,http://b.test:3000  http://[::1]:8080,", ("https://a.test", "http://b.test:3000", "http://[::1]:8080")),
        ("http://127.0.0.1:65535 https://xn--mller-kva.example", ("http://127.0.0.1:65535", "https://xn--mller-kva.example")),
        (" , ", ()),
    ],
)
def test_cors_origins_are_read_as_browsers_write_them(text: str, origins: tuple[str, ...]) -> None:
    assert load({"DARKROOM_CORS_ORIGINS": text}).server.cors_origins == origins


@pytest.mark.parametrize(
    "origin",
    [
        "example.com",
        "https://",
        "https://www.example.com/",
        "https://www.example.com/path",
        "https://www.example.com?x",
        "https://user@www.example.com",
        "https://WWW.example.com",
        "https://müller.example",
        "https://*.example.com",
        "https://www.example.com:443",
        "http://www.example.com:80",
        "https://www.example.com:",
        "https://www.example.com:0",
        "https://www.example.com:65536",
        "ftp://www.example.com",
        "null",
        "*",
    ],
)
def test_cors_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    message = refusal({"DARKROOM_CORS_ORIGINS": f"https://first.example {origin}"})
    assert message.startswith("DARKROOM_CORS_ORIGINS is invalid: expected * without other entries, or origins as browsers write them")
    assert message.endswith(f", got {origin!r}.")


@pytest.mark.parametrize(
    ("spellings", "expected"),
    [
        ("width=0640", "expected width=640, got width=0640."),
        ("full height=1,width=1", "expected width=1,height=1, got height=1,width=1."),
        ("width=640;full", ", got width=640;full."),
        ("widht=640", ", got widht."),
    ],
)
def test_unsigned_transforms_that_are_not_canonical_are_refused_with_the_canonical_form(spellings: str, expected: str) -> None:
    message = refusal({"DARKROOM_UNSIGNED": spellings})
    assert message.startswith("DARKROOM_UNSIGNED is invalid: ")
    assert expected in message


def test_wait_longer_than_a_render_may_take_is_refused() -> None:
    message = refusal({"DARKROOM_WAIT_SECONDS": "11", "DARKROOM_RENDER_SECONDS": "10"})
    assert "DARKROOM_WAIT_SECONDS" in message
    assert "DARKROOM_RENDER_SECONDS" in message
    assert load({"DARKROOM_WAIT_SECONDS": "10", "DARKROOM_RENDER_SECONDS": "10"}).rendering.wait_seconds == 10


def test_cold_requests_on_fly_leave_room_for_hits() -> None:
    on_fly = {"FLY_MACHINE_ID": "148e21ea", "DARKROOM_STORE": "s3://bucket"}
    assert load(on_fly).server.max_cold_requests == 12
    assert load({**on_fly, "DARKROOM_MAX_COLD_REQUESTS": "0"}).server.max_cold_requests == 12
    assert load({**on_fly, "DARKROOM_MAX_COLD_REQUESTS": "3"}).server.max_cold_requests == 3


def test_file_store_on_fly_is_accepted_only_on_a_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) in {"/", "/data", "/my data"})
    on_fly = {"FLY_MACHINE_ID": "148e21ea"}
    for environ in ({}, {"DARKROOM_STORE": "file:///srv/store"}, {"DARKROOM_DATA": "/database"}, {"DARKROOM_STORE": "file:///"}):
        message = refusal({**on_fly, **environ})
        assert message.startswith("DARKROOM_STORE=file://")
        assert "volume" in message
        assert "s3://" in message
    for environ in (
        {"DARKROOM_DATA": "/data"},
        {"DARKROOM_DATA": "/data/darkroom"},
        {"DARKROOM_STORE": "file:///data/store"},
        {"DARKROOM_STORE": "file:///my%20data/store"},
        {"DARKROOM_DATA": "/my data"},
        {"DARKROOM_STORE": "s3://bucket"},
        {"DARKROOM_STORE": "memory://"},
    ):
        load({**on_fly, **environ})
    load({"DARKROOM_STORE": "file:///srv/store"})


def test_development_key_is_created_once_readable_only_by_its_owner(tmp_path: Path) -> None:
    data = tmp_path / "not" / "there"
    key = development_key(data)
    assert len(key) == 32
    assert development_key(data) == key
    assert [path.name for path in data.iterdir()] == ["signing.key"]
    file = data / "signing.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert re.fullmatch(r"[0-9a-f]{64}\n", file.read_text("ascii"))
    assert development_key(tmp_path / "elsewhere") != key


def test_development_key_created_by_many_threads_is_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        keys = set(threads.map(lambda _: development_key(tmp_path), range(64)))
    assert len(keys) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["signing.key"]


def test_development_key_is_synced_with_its_folder_before_it_is_used(tmp_path: Path, synced: list[Path]) -> None:
    development_key(tmp_path)
    assert [path.parent for path in synced[:-1]] == [tmp_path]
    assert synced[-1] == tmp_path


@pytest.mark.parametrize("content", [b"", b"\n", b"abc\n", b"not a key at all, but long enough\n", b"\xff\xfe" * 32, b"0" * 33])
def test_development_key_in_a_damaged_file_is_refused_and_the_file_is_unchanged(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "signing.key"
    file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        development_key(tmp_path)
    assert str(file) in str(caught.value)
    assert "32 hexadecimal digits" in str(caught.value)
    assert file.read_bytes() == content


@pytest.mark.parametrize("variants", ["", " ; \n;"])
def test_settings_with_empty_variants_have_none(variants: str) -> None:
    assert load({"DARKROOM_VARIANTS": variants}).rendering.variants == {}


@pytest.mark.parametrize(
    ("variants", "reason"),
    [
        ("card", "got 'card'."),
        ("card=width=640", "got 'card=width=640'."),
        ("Card: width=640", "got 'Card: width=640'."),
        ("9: width=640", "got '9: width=640'."),
        ("card: width=640 height=480", "got 'card: width=640 height=480'."),
        ("card: width=0", ": card is invalid: expected a whole number of pixels from 1 to 8192, got 0. `width` is out of range."),
        ("good: width=9; card: widht=640", ": card is invalid: expected "),
        ("card: width=640; card: width=320", "expected each name once, got card twice."),
    ],
)
def test_settings_with_an_invalid_variant_are_refused_with_its_name_and_the_reason(variants: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=r"^DARKROOM_VARIANTS( is invalid)?: ") as caught:
        load({"DARKROOM_VARIANTS": variants})
    assert reason in str(caught.value)


def test_settings_warm_jxl_webp_and_the_fallback_by_default() -> None:
    assert load({}).rendering.warm_formats == ("jxl", "avif", "webp", "fallback")
    assert load({"DARKROOM_WARM": "none"}).rendering.warm_formats == ()


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"DARKROOM_RENDITIONS_BYTES": "1000"}, "at least 16777216"),
        ({"DARKROOM_RENDITIONS_BYTES": "100000000", "DARKROOM_STORE": "s3://bucket"}, "lifecycle rules"),
        ({"DARKROOM_RENDITIONS_BYTES": "100000000", "DARKROOM_STORE": "memory://"}, "for a store on disk"),
        ({"DARKROOM_RENDITIONS_BYTES": "-1"}, "DARKROOM_RENDITIONS_BYTES is invalid: expected a whole number of at least 0, got '-1'."),
    ],
)
def test_settings_with_an_impossible_quota_are_refused(environ: dict[str, str], message: str) -> None:
    assert message in refusal(environ)


@pytest.mark.parametrize("warm", ["all", "webp,none", "webp jpeg", ",", "WEBP"])
def test_settings_with_an_unknown_word_in_warm_are_refused_with_the_known_ones(warm: str) -> None:
    message = "DARKROOM_WARM is invalid: expected some of jxl, avif, webp, fallback, separated by commas, or none"
    assert refusal({"DARKROOM_WARM": warm}) == f"{message}, got {warm!r}."


@pytest.mark.parametrize("variable", ["DARKROOM_CLOUDFLARE_ZONE", "DARKROOM_CLOUDFLARE_TOKEN"])
def test_settings_of_cloudflare_belong_together(variable: str) -> None:
    with pytest.raises(SettingsError, match="DARKROOM_CLOUDFLARE_ZONE and DARKROOM_CLOUDFLARE_TOKEN belong together"):
        load({variable: "0" * 32})


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"FLY_REGION": "a\r\nb: c"}, "FLY_REGION is invalid: expected the name of a Fly region, such as arn, got 'a\\r\\nb: c'."),
        ({"FLY_REGION": "ARN"}, ", got 'ARN'."),
        ({"FLY_REGION": "ar"}, ", got 'ar'."),
        (
            {"PRIMARY_REGION": "arn;state=x"},
            "PRIMARY_REGION is invalid: expected the name of a Fly region, such as arn, got 'arn;state=x'.",
        ),
        ({"FLY_MACHINE_ID": "148e, b"}, "FLY_MACHINE_ID is invalid: expected the ID of a Machine, such as 148e21ea246389, got '148e, b'."),
        (
            {"DARKROOM_REGIONS": "arn,lhr,arn"},
            "DARKROOM_REGIONS is invalid: expected Fly regions, separated by commas, each once, such as arn,lhr,iad, got 'arn,lhr,arn'.",
        ),
        ({"DARKROOM_REGIONS": "arn lhr"}, ", got 'arn lhr'."),
        ({"DARKROOM_REGIONS": "Stockholm"}, ", got 'Stockholm'."),
    ],
)
def test_settings_with_an_invalid_region_or_machine_are_refused(environ: dict[str, str], message: str) -> None:
    assert message in refusal(environ)


@pytest.mark.parametrize(
    ("environ", "originals_region", "is_replica"),
    [
        ({}, "", False),
        ({"DARKROOM_REGIONS": "arn,lhr"}, "", False),
        ({"FLY_REGION": "lhr"}, "", False),
        ({"FLY_REGION": "lhr", "PRIMARY_REGION": "arn"}, "arn", True),
        ({"FLY_REGION": "arn", "PRIMARY_REGION": "arn"}, "arn", False),
        # Fly's variable takes precedence over ours. Without it, the first declared region is the primary.
        ({"FLY_REGION": "lhr", "PRIMARY_REGION": "arn", "DARKROOM_REGIONS": "lhr,arn"}, "arn", True),
        ({"FLY_REGION": "lhr", "DARKROOM_REGIONS": "lhr,arn"}, "lhr", False),
        ({"FLY_REGION": "lhr", "DARKROOM_REGIONS": " arn , lhr"}, "arn", True),
        ({"FLY_REGION": "lhr", "PRIMARY_REGION": "arn", "DARKROOM_STORE": "s3://bucket"}, "", False),
        ({"FLY_REGION": "lhr", "PRIMARY_REGION": "arn", "DARKROOM_STORE": "memory://"}, "arn", True),
    ],
)
def test_settings_know_the_region_of_the_originals(environ: dict[str, str], originals_region: str, is_replica: bool) -> None:
    settings = load(environ)
    assert (settings.originals_region, settings.is_replica) == (originals_region, is_replica)
