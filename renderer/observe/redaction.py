"""What is taken out of text from outside before it is logged: secrets in urls, characters that forge lines, and length.

Urls may hold a whole image, a password, or a signature that opens a bucket. A token in the path of a url looks like
a name, and stays. Every repeat in the patterns is bounded, or ends at a character that it excludes, so that a
hostile text costs no more than its length.
"""

import re

MAX_CHARACTERS = 16 * 1024  # of a message or a traceback: a message may quote a whole request

# The controls and separators that end a line somewhere, those that turn the direction of text, and lone surrogates.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# Base64 may be wrapped; a run of twenty letters and digits after a space belongs to it.
_DATA_URL = re.compile(
    r"\bdata:([^,]{0,100}?;\s?base64|[^\s,]*)(?:,([^\s\"]*(?:\s{1,4}[A-Za-z0-9+/]{20,}={0,2})*))?", re.IGNORECASE
)
_USERINFO = re.compile(r"://[^\s/?#\"<>]*@")
_URL = re.compile(r"(://[^\s?#\"<>]*)(\?[^\s#\"<>]*)?(#[^\s\"<>]*)?")
_QUERY = re.compile(r"\?[^\s?#\"<>=]*=[^\s\"<>]*")
_DIRECTORY = re.compile(r"(?<![\w/.:~…-])/(?:[^\s/:,()'\"<>|]+/)+")


def redact(text: str) -> str:
    """Shorten data: urls to their type and length, and take userinfo, query values and fragments out of others."""
    if ":" not in text:
        return text
    text = _DATA_URL.sub(_without_payload, text)
    text = _URL.sub(_without_secrets, _USERINFO.sub("://…@", text))
    return _QUERY.sub(lambda found: _without_values(found[0]), text)  # a request line has a path and no scheme


def without_directories(text: str) -> str:
    """Shorten absolute paths to their last name, since clients read the messages of programs too."""
    return _DIRECTORY.sub("…/", text)


def printable(text: str) -> str:
    """Escape what would end the line or hide a part of it."""
    return text if text.isprintable() else _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def bounded(text: str) -> str:
    """Keep both ends of a text that is too long: a message says most at its beginning, a traceback at its end."""
    half = MAX_CHARACTERS // 2
    return text if len(text) <= MAX_CHARACTERS else f"{text[:half]} … ({len(text)} characters) … {text[-half:]}"


def _without_payload(url: re.Match[str]) -> str:
    head, payload = url.groups()
    return url[0] if payload is None else f"data:{head.split(';')[0]};… ({len(payload)} bytes)"


def _without_secrets(url: re.Match[str]) -> str:
    place, query, fragment = url.groups()
    return "".join((place, _without_values(query) if query else "", "#…" if fragment else ""))


def _without_values(query: str) -> str:
    """Take the values out of `?name=value&...`; a part without a name is a value."""
    return "?" + "".join(_without_value(part) for part in re.split("([&;])", query.removeprefix("?")))


def _without_value(part: str) -> str:
    if part in {"", "&", ";"}:
        return part
    return f"{part.partition('=')[0]}=…" if "=" in part else "…"
