"""How an object in a bucket is written: s3://BUCKET/NAME, and gs:// and az:// (a container of Azure's) alike.

Names are taken literally, as the stores' own command lines take them: a percent sign is a percent sign. A name that
could mean another object to a proxy or a store that tidies names is refused, so that a comparison of words is enough to
say whether an object lies below a prefix.
"""

import posixpath
import re
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import unquote

SCHEMES: Final = ("s3", "gs", "az")

_URL: Final = re.compile(r"(s3|gs|az)://([^/]*)(?:/(.*))?", re.IGNORECASE | re.DOTALL)
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,221}")
_FOREIGN: Final = re.compile(r"[\x00-\x1f\x7f?#\\]")
_NAME_MAX_BYTES: Final = 1024
_EXAMPLE: Final = "s3://bucket/name.mp4"


@dataclass(frozen=True, slots=True)
class ObjectUrl:
    """An object, or a prefix of objects: then the name has no slash at its end, and is empty for a whole bucket."""

    scheme: str
    bucket: str
    name: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.name}"

    @property
    def file_name(self) -> str:
        return posixpath.basename(self.name)

    def is_below(self, prefix: Self) -> bool:
        """Whether it is an object below the prefix; whole parts of the name are compared."""
        is_same_bucket = (self.scheme, self.bucket) == (prefix.scheme, prefix.bucket)
        return is_same_bucket and (not prefix.name or self.name.startswith(f"{prefix.name}/"))

    def below(self, path: str) -> Self:
        """Return what has this path below the prefix.

        Raises:
            ValueError: no object can have such a name.
        """
        return type(self)(self.scheme, self.bucket, _checked_name(f"{self.name}/{path}".lstrip("/")))

    def beside(self, path: str) -> Self:
        """Return the object that a path leads to which begins where this object is; `..` may lead up in the bucket.

        Raises:
            ValueError: no object can have such a name.
        """
        joined = posixpath.normpath(posixpath.join(posixpath.dirname(self.name), path))
        return type(self)(self.scheme, self.bucket, _checked_name(joined))


def is_object(url: str) -> bool:
    """Whether a url has the scheme of one; it may be malformed all the same."""
    scheme, colon, _ = url[:3].partition(":")
    return bool(colon) and scheme.lower() in SCHEMES


def parse_object(url: str) -> ObjectUrl:
    """Return the parts of an object's url.

    Raises:
        ValueError: it is not one; the message says what was expected.
    """
    found = parse_prefix(url)
    if not found.name or url.endswith("/"):
        raise ValueError(f"expected the name of an object after the bucket, as in {_EXAMPLE}")
    return found


def parse_prefix(url: str) -> ObjectUrl:
    """Return the parts of a url of a bucket, or of all objects in it that begin with the same parts of a name.

    Raises:
        ValueError: it is not one; the message says what was expected.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError(f"expected a url that begins with s3://, gs:// or az://, as {_EXAMPLE}")
    scheme, bucket, name = match[1].lower(), match[2], (match[3] or "").removesuffix("/")
    if "@" in bucket:
        raise ValueError("expected a url without a user; credentials come from the environment")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError(f"expected a bucket of small letters, digits, dots, hyphens and underscores, as in {_EXAMPLE}")
    return ObjectUrl(scheme, bucket, _checked_name(name) if name else "")


def _checked_name(name: str) -> str:
    if _FOREIGN.search(name):
        raise ValueError("expected a name without a query, a fragment, backslashes and control characters")
    parts = [part for once in name.split("/") for part in (once, *unquote(once).replace("\\", "/").split("/"))]
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError("expected a name without empty parts, '.' and '..'")
    try:
        size_bytes = len(name.encode())
    except UnicodeEncodeError as error:
        raise ValueError("expected a name that is text") from error
    if size_bytes > _NAME_MAX_BYTES:
        raise ValueError(f"expected a name of up to {_NAME_MAX_BYTES} bytes, found {size_bytes}")
    return name


def checked_object(url: str) -> str:
    """Return the url unchanged if it is an object's.

    Raises:
        ValueError: it is not one; the message says what was expected.
    """
    parse_object(url)
    return url


def checked_prefix(url: str) -> str:
    """Return the url unchanged if it is a bucket's or a prefix's.

    Raises:
        ValueError: it is not one; the message says what was expected.
    """
    parse_prefix(url)
    return url


def is_among(url: ObjectUrl, prefixes: tuple[str, ...]) -> bool:
    """Whether an object lies below one of these prefixes."""
    return any(url.is_below(parse_prefix(prefix)) for prefix in prefixes)
