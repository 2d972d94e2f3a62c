"""Which addresses may be connected to: every kind that is not public is refused, on every release of Python."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderer.errors import FetchFailed
from renderer.net.addresses import Guard
from tests.net.serving import Names

NOT_PUBLIC = {
    "this network": "0.0.0.0 0.0.0.1 0.255.255.255 ::",
    "private": "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.0 192.168.255.255",
    "loopback": "127.0.0.0 127.0.0.1 127.1.2.3 127.255.255.255 ::1",
    "link-local": "169.254.0.0 169.254.169.254 169.254.170.2 169.254.255.255 fe80:: fe80::1 febf:ffff::1",
    "carrier-grade NAT": "100.64.0.0 100.100.100.200 100.127.255.255",
    "a cloud's own": "168.63.129.16 192.0.0.192 fd00:ec2::254 fd20:ce::254",
    "multicast": "224.0.0.0 224.0.0.1 239.255.255.250 239.255.255.255 ff02::1 ff0e::1",
    "protocol assignments": "192.0.0.0 192.0.0.8 192.0.0.170 192.0.0.255 2001:: 2001:1::1 2001:1ff:ffff::1",
    "documentation": "192.0.2.1 198.51.100.1 203.0.113.255 2001:db8:: 2001:db8:ffff::1 3fff:: 3fff:fff:ffff::1",
    "benchmarks": "198.18.0.0 198.19.255.255 2001:2::1",
    "reserved": "240.0.0.0 250.1.2.3 255.255.255.254 100::1 200::1 4000::1 5f00::1 8000::1 e000::1 fe00::1",
    "broadcast": "255.255.255.255",
    "unique local": "fc00::1 fd12:3456::1 fdff:ffff::1",
    "site-local": "fec0::1 feff::1",
    "mapped": "::ffff:0.0.0.0 ::ffff:127.0.0.1 ::ffff:a9fe:a9fe ::ffff:10.0.0.1 ::ffff:192.0.0.192",
    "compatible": "::127.0.0.1 ::a9fe:a9fe ::8.8.8.8",
    "6to4": "2002:7f00:1:: 2002:a9fe:a9fe::1 2002:808:808::1 192.88.99.1",
    "Teredo": "2001:0:7f00:1:: 2001:0:4136:e378:8000:63bf:80ff:fffe 2001:0:808:808::",
    "NAT64": "64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b::c0a8:1 64:ff9b:1::8.8.8.8 64:ff9b:0:0:0:1:808:808",
    "translated": "::ffff:0:8.8.8.8",
    "with a zone": "fe80::1%1 fe80::1%eth0 2606:4700::1%eth0 ::1%lo ::ffff:8.8.8.8%2",
}
PUBLIC = (
    "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0",
    "168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255",
    "192.0.1.0 192.0.3.0 192.88.98.255 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0",
    "198.51.99.255 203.0.114.0 223.255.255.255 2001:200::1 2001:4860:4860::8888 2001:db9::1 2003::1",
    "2606:4700:4700::1111 2a00:1450:4001::1 3ffe:ffff::1 3fff:1000::1 ::ffff:8.8.8.8 64:ff9b::808:808",
)


@pytest.mark.parametrize(
    ("kind", "address"), [(kind, address) for kind, found in NOT_PUBLIC.items() for address in found.split()]
)
def test_what_is_not_public_is_refused(kind: str, address: str) -> None:
    assert not Guard().is_allowed(address)


@pytest.mark.parametrize("address", [address for line in PUBLIC for address in line.split()])
def test_public_addresses_are_allowed_up_to_their_neighbours(address: str) -> None:
    assert Guard().is_allowed(address)


@given(st.ip_addresses() | st.builds(IPv4Address, st.integers(0, 2**32 - 1)))
def test_whatever_any_python_calls_not_global_is_refused(address: IPv4Address | IPv6Address) -> None:
    """Its tables grow from release to release; ours must hold all that they hold."""
    means_ipv4 = any(address in ip_network(network) for network in ("::ffff:0:0/96", "64:ff9b::/96"))
    if not means_ipv4 and (not address.is_global or address.is_multicast):
        assert not Guard().is_allowed(str(address))


@given(st.builds(IPv4Address, st.integers(0, 2**32 - 1)) | st.ip_addresses(v=4))
def test_an_address_that_stands_for_another_is_judged_as_that_one(address: IPv4Address) -> None:
    for before in ("::ffff:", "64:ff9b::"):
        assert Guard().is_allowed(f"{before}{address}") == Guard().is_allowed(str(address))


@pytest.mark.parametrize(
    "text", ["", "localhost", "127.1", "2130706433", "0x7f.0.0.1", "0177.0.0.1", "8.8.8.8/32", "8.8.8.8 ", "1.2.3.4\n"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    assert not Guard().is_allowed(text)


def test_a_network_that_the_settings_name_is_allowed_and_no_other() -> None:
    guard = Guard((ip_network("10.1.0.0/16"), ip_network("fd00::/16")))
    allowed = "10.1.0.0 10.1.255.255 fd00::1 ::ffff:10.1.2.3 64:ff9b::10.1.2.3 8.8.8.8"
    assert all(map(guard.is_allowed, allowed.split()))
    refused = "10.0.255.255 10.2.0.0 fd01::1 127.0.0.1 ::ffff:10.2.0.0 ::10.1.2.3 fd00::1%eth0"
    assert not any(map(guard.is_allowed, refused.split()))


def test_a_network_of_one_kind_does_not_open_the_other() -> None:
    """A socket of IPv6 that connects to a mapped address speaks IPv4."""
    ipv6 = Guard((ip_network("::/0"),))
    assert ipv6.is_allowed("::1")
    assert not any(map(ipv6.is_allowed, ("127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1")))
    ipv4 = Guard((ip_network("0.0.0.0/0"),))
    assert ipv4.is_allowed("127.0.0.1")
    assert not any(map(ipv4.is_allowed, ("::1", "fd00::1")))


def test_of_a_names_addresses_the_allowed_ones_remain_in_their_order_and_once() -> None:
    names = Names(a_example=[["10.0.0.1", "8.8.8.8", "fd00::1", "1.1.1.1", "::1", "2606:4700::1", "8.8.8.8"]])
    assert Guard(resolve=names).addresses("a.example", 8080) == ["8.8.8.8", "1.1.1.1", "2606:4700::1"]
    assert names.asked == [("a.example", 8080)]


def failure(guard: Guard, host: str) -> str:
    with pytest.raises(FetchFailed) as caught:
        guard.addresses(host, 80)
    return str(caught.value)


def test_a_name_inside_and_one_that_does_not_exist_look_the_same() -> None:
    guard = Guard(resolve=Names(inside_example=[["10.0.0.1", "fd00::1"]], empty_example=[[]]))
    assert len({failure(guard, host) for host in ("inside.example", "missing.example", "empty.example")}) == 1


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0X7F.0.0.0x1", "017700000001",
        "0177.0.0.1", "0177.1", "0", "0.0.0.0", "0x0", "00000000", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376",
        "169.254.43518", "0xA9FE.0", "4294967295", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "::ffff:7f00:1",
        "::7f00:1", "fe80::1%lo", "１２７.0.0.1", "localhost", "LOCALHOST",
    ],
)  # fmt: skip
def test_however_it_is_spelt_the_real_resolver_does_not_help(host: str) -> None:
    assert failure(Guard(), host) == failure(Guard(resolve=Names()), "missing.example")


@pytest.mark.parametrize("host", ["", ".", "..", "a..b", ".a", "a" * 64 + ".example", ".".join(["a" * 60] * 5), "a b"])
def test_what_is_no_name_is_refused_by_the_real_resolver(host: str) -> None:
    assert failure(Guard(), host)


def test_the_real_resolver_is_the_one_that_is_asked() -> None:
    found = Guard((ip_network("127.0.0.0/8"),)).addresses("2130706433", 80)
    assert found == ["127.0.0.1"] == [socket.inet_ntoa((2130706433).to_bytes(4))]
    assert ip_address(found[0]).is_loopback
