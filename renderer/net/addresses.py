"""Which addresses outside may be connected to: public ones, and networks that the settings name.

A name is resolved once and the very address that was judged is connected to, so a name server that answers differently
the second time gains nothing. Numeric spellings such as 2130706433 or 0x7f.1 are resolved first, and the addresses that
they mean are judged. An IPv6 address that stands for an IPv4 one (mapped, or behind NAT64) is judged as that one.

This module has its own table of what is public, because the tables of Python's ipaddress differ between its releases:
3.11.7 calls 192.0.0.192, 2002:808:808:: and 4000:: global. Source: the IANA special-purpose address registries
(RFC 6890 and its updates) and, for IPv6, that only 2000::/3 is allocated. Other addresses that carry IPv4 ones
(compatible, 6to4, Teredo, a network's own NAT64 under 64:ff9b:1::) are not public, whatever they carry.
"""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from renderer.errors import FetchFailed

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[..., Sequence[tuple[Any, ...]]]

_IPV6_ALLOCATED = ip_network("2000::/3")
_NOT_PUBLIC = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT, and a cloud's metadata at 100.100.100.200
        "127.0.0.0/8",
        "168.63.129.16/32",  # registered as public; in Azure it is the host's own service
        "169.254.0.0/16",  # link-local, and most clouds' metadata at 169.254.169.254
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments, and a cloud's metadata at 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)
_STANDS_FOR_IPV4 = (ip_network("::ffff:0:0/96"), ip_network("64:ff9b::/96"))  # RFC 4291, 2.5.5.2; RFC 6052, 2.1


@dataclass(frozen=True, slots=True)
class Guard:
    """Judges addresses.

    Attributes:
        allow_networks: whose addresses are allowed though they are not public.
        resolve: socket.getaddrinfo, or a replacement in tests.
        setting: the name of the setting for further networks, for messages.
    """

    allow_networks: tuple[Network, ...] = ()
    resolve: Resolve = socket.getaddrinfo
    setting: str = "fetch.allow_networks"

    def addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host that may be connected to, in the resolver's order.

        Raises:
            FetchFailed: it has none. The message is the same whether the name exists or not, because a client must
                learn nothing about the names of the network inside.
        """
        try:
            found = [str(answer[4][0]) for answer in self.resolve(host, port, type=socket.SOCK_STREAM)]
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that is empty or too long
            raise self._no_address() from error
        allowed = [address for address in dict.fromkeys(found) if self.is_allowed(address)]
        if not allowed:
            raise self._no_address()
        return allowed

    def check_written_out(self, host: str) -> None:
        """Judge a host that is an address in any spelling; a name is judged when it is resolved.

        Raises:
            FetchFailed: the address is not allowed.
        """
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except (OSError, UnicodeError):
            return
        if not all(self.is_allowed(str(answer[4][0])) for answer in found):
            raise self._no_address()

    def _no_address(self) -> FetchFailed:
        return FetchFailed(f"expected a host with a public address ({self.setting} allows others)")

    def is_allowed(self, text: str) -> bool:
        try:
            address = ip_address(text)
        except ValueError:
            return False
        if isinstance(address, IPv6Address):
            if address.scope_id is not None:  # a client must not choose the interface that this machine sends by
                return False
            if any(address in network for network in _STANDS_FOR_IPV4):
                address = IPv4Address(int(address) & 0xFFFFFFFF)
        return _is_public(address) or any(address in network for network in self.allow_networks)


def _is_public(address: Address) -> bool:
    is_allocated = isinstance(address, IPv4Address) or address in _IPV6_ALLOCATED
    return is_allocated and not any(address in network for network in _NOT_PUBLIC)
