"""Which client an address belongs to."""

from __future__ import annotations

import contextlib
import functools
import ipaddress


@functools.lru_cache(4096)
def client_of(address: str) -> str:
    """The client that has an address: the address itself, and for IPv6 its network of 64 bits.

    A host has as many IPv6 addresses as it wants.

    Example:
        >>> client_of("192.0.2.7"), client_of("::ffff:192.0.2.7"), client_of("2001:db8::1:2:3:4")
        ('192.0.2.7', '192.0.2.7', '2001:db8::/64')
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        if not found.is_loopback:
            return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
    return str(found)


def is_loopback(client: str) -> bool:
    """Whether a client is this machine itself."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(client).is_loopback
    return False
