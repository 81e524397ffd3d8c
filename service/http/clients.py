"""Client addresses: which client a request comes from, as far as that can be known.

A server has clients of three kinds:

- On Fly, every request comes through its proxy, which sets `Fly-Client-IP` and appends the same address to `X-Forwarded-For`.
- Behind proxies in `DARKROOM_TRUSTED_PROXIES`, the client is the last address in `X-Forwarded-For` that is not one of them: each proxy
  appends the address that it was called from, so that a client can only write what is further to the left.
- Otherwise, the peer is the client, and the fields are what clients choose to write. A peer with an address that is not global, such as
  loopback or 10.0.0.0/8, may be a proxy that nobody has named, or the gateway of a container: its clients cannot be distinguished.

IPv6 clients are counted by their network of 64 bits, because one client has all addresses of it (RFC 6177).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from service.http.connections import network_of

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# Proxies in a row. Whatever is further to the left is not looked at, so that a long field costs nothing.
MAX_HOPS = 16

# Addresses with a port, as some proxies write them: `192.0.2.1:1234` and `[2001:db8::1]:1234`.
_WITH_PORT = re.compile(rb"([0-9.]+):[0-9]{1,5}|\[([^\]]*)\](?::[0-9]{1,5})?")


class ClientAddresses:
    """Finds the client of a request, given its ASGI scope."""

    def __init__(self, trusted_proxies: Sequence[Network], *, on_fly: bool) -> None:
        """Find clients behind these proxies.

        trusted_proxies: the networks of proxies that append to `X-Forwarded-For`. on_fly: whether Fly's proxy is in front.
        """
        self._trusted = tuple(trusted_proxies)
        self._on_fly = on_fly

    def __repr__(self) -> str:
        return f"<ClientAddresses behind {', '.join(map(str, self._trusted)) or 'no proxy'}{', on Fly' if self._on_fly else ''}>"

    def find(self, scope: Mapping[str, Any]) -> str | None:
        """Return the client of a request: an IPv4 address, or an IPv6 network of 64 bits; `None` if it cannot be known."""
        peer = _parse_peer(scope.get("client"))
        if peer is None:
            return None
        headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
        if self._on_fly:
            return self._behind_fly(headers)
        if not self._trusts(peer):
            return network_of(str(peer)) if peer.is_global else None
        return self._last_untrusted(reversed(_forwarded_for(headers)))

    def _behind_fly(self, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """Return the client that Fly's proxy names, or one in front of a trusted proxy, such as a CDN, that the proxy names."""
        named = [value for name, value in headers if name == b"fly-client-ip"]
        client = _parse(named[0]) if len(named) == 1 else None
        if client is None or not self._trusts(client):
            return None if client is None else network_of(str(client))
        hops = [_parse(entry) for entry in reversed(_forwarded_for(headers))]
        # Fly's proxy may append an address of its own after the client's.
        return self._last_untrusted(hops[hops.index(client) + 1 :]) if client in hops else None

    def _last_untrusted(self, hops: Iterable[bytes | Address | None]) -> str | None:
        """Return the first address, from the right, that is not that of a trusted proxy; `None` if there is none, or something else."""
        for hop in hops:
            address = _parse(hop) if isinstance(hop, bytes) else hop
            if address is None:
                return None
            if not self._trusts(address):
                return network_of(str(address))
        return None

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted if network.version == address.version)


def _forwarded_for(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """Return the last entries of all `X-Forwarded-For` fields in their order, as if they were one (RFC 9110 §5.3)."""
    value = b",".join(value for name, value in headers if name == b"x-forwarded-for")
    return value.rsplit(b",", MAX_HOPS)[-MAX_HOPS:] if value else []


def _parse_peer(client: Sequence[object] | None) -> Address | None:
    return _parse(str(client[0]).encode("ascii", "replace")) if client else None


def _parse(entry: bytes) -> Address | None:
    """Return the address in an entry, without its port and zone; an IPv4 address that is mapped to IPv6 is the IPv4 address."""
    text = entry.strip(b" \t")
    return None if len(text) > 64 else _parse_address(text)


@lru_cache(maxsize=4_096)
def _parse_address(text: bytes) -> Address | None:
    """Return the address in a short text. A client's is needed several times for each request, and for many requests."""
    if match := _WITH_PORT.fullmatch(text):
        text = match[1] or match[2]
    try:
        address = ipaddress.ip_address(text.partition(b"%")[0].decode("ascii"))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
