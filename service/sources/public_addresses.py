"""Public IP addresses: the only ones that a remote source may have."""

from __future__ import annotations

import ipaddress

# IANA's registry of special-purpose addresses, and the ranges of IPv6 addresses that embed an IPv4 address. Python's `is_global` does not
# cover all of the first, depending on its version, and does not look at the embedded address of the second.
_REFUSED = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # this network, RFC 791
        "10.0.0.0/8",  # private, RFC 1918
        "100.64.0.0/10",  # shared address space of carriers, RFC 6598
        "127.0.0.0/8",  # loopback, RFC 1122
        "169.254.0.0/16",  # link-local, with the metadata services of clouds, RFC 3927
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments, RFC 6890
        "192.0.2.0/24",  # documentation, RFC 5737
        "192.31.196.0/24",  # AS112, RFC 7535
        "192.52.193.0/24",  # AMT, RFC 7450
        "192.88.99.0/24",  # 6to4 relays, RFC 7526
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks, RFC 2544
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast, RFC 5771
        "240.0.0.0/4",  # reserved, and broadcast, RFC 1112
        "::/8",  # unspecified, loopback, ::a.b.c.d and ::ffff:a.b.c.d, RFC 4291
        "64:ff9b::/96",  # IPv4 translated, RFC 6052
        "64:ff9b:1::/48",  # IPv4 translated locally, RFC 8215
        "100::/64",  # discard, RFC 6666
        "2001::/23",  # Teredo and other protocol assignments, RFC 2928
        "2001:db8::/32",  # documentation, RFC 3849
        "2002::/16",  # 6to4, RFC 3056
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation, RFC 9637
        "5f00::/16",  # segment routing, RFC 9602
        "fc00::/7",  # private, Fly's own fdaa::/16 among them, RFC 4193
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local, RFC 3879
        "ff00::/8",  # multicast
    )
)


def is_public(text: str) -> bool:
    """Return whether an IP address, as a resolver returns it, belongs to the public internet; text that is no address does not."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        return False
    return address.is_global and not any(address.version == network.version and address in network for network in _REFUSED)
