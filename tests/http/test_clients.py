"""The client that a request comes from: what proxies append is believed, and what a client writes is not."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http.clients import MAX_HOPS, ClientAddresses

PROXIES = [ipaddress.ip_network(text) for text in ("10.0.0.0/8", "2001:db8:1::/48", "198.51.100.0/24")]
BEHIND = ClientAddresses(PROXIES, on_fly=False)
ON_FLY = ClientAddresses(PROXIES, on_fly=True)
DIRECT = ClientAddresses([], on_fly=False)

# Global addresses that are not of a proxy.
CLIENTS = (
    st.ip_addresses()
    .filter(lambda address: address.is_global and not any(address in network for network in PROXIES))
    .filter(lambda address: not isinstance(address, ipaddress.IPv6Address) or address.ipv4_mapped is None)
)
PROXY = st.sampled_from(["10.1.2.3", "10.255.255.255", "2001:db8:1::5", "198.51.100.9", "::ffff:10.1.2.3"])
GARBAGE = st.sampled_from(["", "unknown", "_hidden", "1.2.3", "1.2.3.4.5", "::g", "[::1", "'", "\xff", "1.2.3.4:x", "a" * 200]) | st.text(
    st.characters(max_codepoint=255, exclude_characters=","), max_size=60
)


def found(where: ClientAddresses, peer: str | None, *fields: tuple[str, str]) -> str | None:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in fields]
    return where.find({"client": None if peer is None else (peer, 1234), "headers": headers})


def forwarded(value: str) -> tuple[str, str]:
    return "x-forwarded-for", value


def name_of(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Return the name under which a client is counted."""
    return str(address) if address.version == 4 else str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "172.17.0.1", "100.64.0.1", "fd00::1", "fe80::1%eth0", ""])
def test_peer_that_may_be_a_proxy_without_a_name_is_not_known(peer: str) -> None:
    assert found(DIRECT, peer, forwarded("203.0.112.9")) is None


@given(CLIENTS, st.lists(GARBAGE | PROXY, max_size=3), st.booleans())
def test_peer_that_is_no_proxy_is_the_client_whatever_it_writes(
    peer: ipaddress.IPv4Address | ipaddress.IPv6Address, written: list[str], fly: bool
) -> None:
    fields = [forwarded(value) for value in written] + ([("fly-client-ip", "8.8.8.8")] if fly else [])
    assert found(BEHIND, str(peer), *fields) == found(DIRECT, str(peer), *fields) == name_of(peer)


@given(
    forged=st.lists(GARBAGE | PROXY | CLIENTS.map(str), max_size=4),
    client=CLIENTS,
    hops=st.lists(PROXY, max_size=3),
    peer=PROXY,
    separator=st.sampled_from([",", ", ", " ,\t"]),
    split=st.booleans(),
)
def test_client_behind_proxies_is_the_last_address_that_is_none_of_them(
    *,
    forged: list[str],
    client: ipaddress.IPv4Address | ipaddress.IPv6Address,
    hops: list[str],
    peer: str,
    separator: str,
    split: bool,
) -> None:
    appended = [str(client), *hops]
    fields = [forwarded(separator.join([*forged, *appended]))]
    if split:
        fields = [forwarded(separator.join(forged)), *(forwarded(hop) for hop in appended)]
    assert found(BEHIND, peer, *fields) == name_of(client)


@pytest.mark.parametrize(
    ("entry", "client"),
    [
        ("203.0.112.9", "203.0.112.9"),
        ("203.0.112.9:5678", "203.0.112.9"),
        ("::ffff:203.0.112.9", "203.0.112.9"),
        ("[2a00:1:2:3:4::5]", "2a00:1:2:3::/64"),
        ("[2a00:1:2:3:4::5]:443", "2a00:1:2:3::/64"),
        ("2a00:1:2:3:ffff::5", "2a00:1:2:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        # A proxy named by the operator is believed about its own network.
        ("192.168.7.7", "192.168.7.7"),
        ("unknown", None),
        ("", None),
        ("203.0.112.9:", None),
        ("203.0.112.9:123456", None),
        ("0203.0.112.9", None),
        ("203.0.112.9 8.8.8.8", None),
        ("[]", None),
        ("\u0663.1.1.1".encode().decode("latin-1"), None),
    ],
)
def test_entry_in_any_form_is_an_address_or_unknown(entry: str, client: str | None) -> None:
    assert found(BEHIND, "10.0.0.1", forwarded(f"8.8.8.8, {entry}")) == client


def test_proxies_only_or_no_field_leave_the_client_unknown() -> None:
    assert found(BEHIND, "10.0.0.1") is None
    assert found(BEHIND, "10.0.0.1", forwarded("10.0.0.2, 10.0.0.3")) is None
    assert found(BEHIND, None, forwarded("8.8.8.8")) is None


def test_more_hops_than_a_chain_of_proxies_has_are_not_looked_at() -> None:
    assert found(BEHIND, "10.0.0.1", forwarded("8.8.8.8" + ", 10.0.0.2" * (MAX_HOPS - 1))) == "8.8.8.8"
    assert found(BEHIND, "10.0.0.1", forwarded("8.8.8.8" + ", 10.0.0.2" * MAX_HOPS)) is None


@given(CLIENTS, st.lists(GARBAGE, max_size=2))
def test_client_on_fly_is_the_one_that_its_proxy_names(client: ipaddress.IPv4Address | ipaddress.IPv6Address, written: list[str]) -> None:
    fields = [forwarded(value) for value in written]
    assert found(ON_FLY, "172.16.1.2", ("fly-client-ip", str(client)), *fields) == name_of(client)
    assert found(DIRECT, "172.16.1.2", ("fly-client-ip", str(client)), *fields) is None


def test_client_on_fly_behind_a_cdn_is_the_one_that_the_cdn_appended() -> None:
    cdn = ("fly-client-ip", "198.51.100.9")
    assert found(ON_FLY, "172.16.1.2", cdn, forwarded("1.1.1.1, 8.8.8.8, 198.51.100.9")) == "8.8.8.8"
    # Fly's own address behind it.
    assert found(ON_FLY, "172.16.1.2", cdn, forwarded("198.51.100.9, 8.8.8.8, 198.51.100.9, 66.241.124.1")) == "8.8.8.8"
    assert found(ON_FLY, "172.16.1.2", cdn, forwarded("8.8.8.8, 66.241.124.1")) is None
    assert found(ON_FLY, "172.16.1.2", cdn) is None


@pytest.mark.parametrize("fields", [(), ("8.8.8.8", "9.9.9.9"), ("unknown",), ("8.8.8.8, 9.9.9.9",)])
def test_client_on_fly_that_is_not_named_once_is_unknown(fields: tuple[str, ...]) -> None:
    assert found(ON_FLY, "172.16.1.2", *(("fly-client-ip", field) for field in fields), forwarded("9.9.9.9")) is None


@given(st.binary(max_size=300), st.sampled_from([BEHIND, ON_FLY, DIRECT]))
def test_any_bytes_of_a_field_are_a_client_or_unknown(value: bytes, where: ClientAddresses) -> None:
    for name in (b"x-forwarded-for", b"fly-client-ip"):
        client = where.find({"client": ("10.0.0.1", 1), "headers": [(name, value)]})
        assert client is None or ipaddress.ip_network(client)
