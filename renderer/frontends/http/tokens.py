"""Names that cannot be guessed: whoever has one may read the file, or write the upload, that it stands for.

A token is what it names and an HMAC of that under a secret of the data directory. It needs no table, and survives a
restart.
"""

import hashlib
import hmac
import re
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from renderer.errors import JobNotFound
from renderer.frontends.http.keys import secret_bytes
from renderer.jobs.job import Job

_UPLOAD = re.compile(r"[A-Za-z0-9_-]{32}")
_LIFE_S = 3600


class Tokens:
    """Makes and checks tokens."""

    def __init__(self, data_dir: Path) -> None:
        """Read the secret, or make it.

        Raises:
            ConfigError: that is not possible.
        """
        self._secret = secret_bytes(data_dir / "links.secret")

    def result(self, job: Job) -> str:
        """Return the token of a job's video. A later job with the same id, once this one is forgotten, has another."""
        words = f"{job.id}\0{job.number}\0{job.accepted_at!r}"
        return f"{job.id}.{self._mac('result', words)}"

    def job_of(self, token: str, find: Callable[[str], Job]) -> Job | None:
        """Return the job whose video a token stands for.

        Args:
            find: returns the job that has an id, or raises JobNotFound.
        """
        try:
            job = find(token.rpartition(".")[0])
        except JobNotFound:
            return None
        return job if hmac.compare_digest(token.encode("utf-8", "replace"), self.result(job).encode()) else None

    def new_upload(self) -> str:
        """Return the token of a file that is going to be uploaded."""
        return secrets.token_urlsafe(24)

    def writable(self, upload: str) -> str:
        """Return the token that lets its holder write an upload."""
        return f"{upload}.{self._mac('write', upload)}"

    def upload_of(self, token: str) -> str | None:
        """Return the upload that a token lets its holder write."""
        upload, _, mac = token.rpartition(".")
        return upload if is_upload(upload) and self._is_mac(mac, "write", upload) else None

    def for_uploads(self, key: str | None) -> tuple[str, datetime]:
        """Return a token that stands for a key where files are uploaded, and when it ends."""
        ends = int(time.time()) + _LIFE_S
        words = f"{ends}.{key or ''}"
        return f"up.{self._mac('uploads', words)}.{words}", datetime.fromtimestamp(ends, UTC)

    def uploader(self, token: str) -> str | None:
        """Return the key that such a token stands for; None if it is none, or its time is over."""
        kind, _, rest = token.partition(".")
        mac, _, words = rest.partition(".")
        ends, _, key = words.partition(".")
        if kind != "up" or not self._is_mac(mac, "uploads", words) or int(ends) < time.time():
            return None
        return key

    def _mac(self, purpose: str, words: str) -> str:
        digest = hmac.new(self._secret, f"{purpose}\0{words}".encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
        return urlsafe_b64encode(digest[:24]).decode()

    def _is_mac(self, mac: str, purpose: str, words: str) -> bool:
        return hmac.compare_digest(mac.encode("utf-8", "replace"), self._mac(purpose, words).encode())


def is_upload(token: str) -> bool:
    """Whether this has the form of an upload's token, and so of a file's name."""
    return _UPLOAD.fullmatch(token) is not None
