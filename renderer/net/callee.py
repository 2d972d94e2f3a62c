"""What can be told of a url that is to be called from the url alone, without asking a name server."""

from ipaddress import IPv6Address

from renderer.errors import FetchFailed
from renderer.net.addresses import Guard
from renderer.net.client import parse_http


def check_callee(url: str, guard: Guard) -> None:
    """Refuse a url that can never be called; a name is left to whoever resolves it.

    Raises:
        FetchFailed: its port or address cannot be, or is not allowed; the words say which.
    """
    host = parse_http(url).host
    if ":" in host:
        try:
            IPv6Address(host)
        except ValueError as error:
            raise FetchFailed("expected an IPv6 address between the brackets of the url") from error
    is_here = host == "localhost" or host.endswith(".localhost")  # RFC 6761, 6.3
    guard.check_written_out("127.0.0.1" if is_here else host)
