"""`data:` urls, RFC 2397: [media type][;base64],data. The media type is not believed; the bytes say what they are."""

import base64
import binascii
from typing import Final
from urllib.parse import unquote_to_bytes

from renderer.errors import FetchFailed

_FORGIVEN: Final = b" \t\n\f\r"  # https://infra.spec.whatwg.org/#forgiving-base64-decode


def least_bytes(rest: str) -> int:
    """Return the fewest bytes that so long a url stands for: base64 makes four of three, percent-encoding triples.

    Args:
        rest: what follows the colon.

    Raises:
        FetchFailed: it has no comma.
    """
    return len(_parts(rest)[1]) // 4


def read_data(rest: str) -> bytes:
    """Return the bytes.

    Raises:
        FetchFailed: it has no comma, or is no base64 though it says so.
    """
    is_base64, payload = _parts(rest)
    found = unquote_to_bytes(payload)
    if not is_base64:
        return found
    digits = found.translate(None, _FORGIVEN).rstrip(b"=")
    try:
        return base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except binascii.Error as error:
        raise FetchFailed("expected base64 in the data: url") from error


def _parts(rest: str) -> tuple[bool, str]:
    head, comma, payload = rest.partition(",")
    if not comma:
        raise FetchFailed("expected a comma in the data: url")
    return head[-7:].lower() == ";base64", payload
