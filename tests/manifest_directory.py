"""What the tests of the manifest directory do to one: put manifests there, let time pass, be somebody else."""

import contextlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_NOBODY = 65534


def drop_in(spool: Path, *names: str, text: str = "{}") -> None:
    """Put a manifest there for each name: a bundle for those that end in a slash, else a file."""
    for name in names:
        incoming = spool / "incoming"
        incoming.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            (incoming / name).mkdir()
            (incoming / name / "manifest.json").write_text(text)
            (incoming / name / "a.png").write_text("an image")
        else:
            (incoming / f"{name}.json").write_text(text)


def put(spool: Path, name: str, manifest: dict[str, Any] | str | bytes) -> None:
    """Put a manifest there by Maildir's rule: write it elsewhere, rename it in."""
    text = json.dumps(manifest) if isinstance(manifest, dict) else manifest
    staged = spool.parent / f"staged-{uuid.uuid4().hex}"
    staged.write_bytes(text.encode() if isinstance(text, str) else text)
    (spool / "incoming").mkdir(parents=True, exist_ok=True)
    staged.rename(spool / "incoming" / f"{name}.json")


def stage_bundle(directory: Path, manifest: dict[str, Any], files: Mapping[str, bytes]) -> Path:
    """Make a bundle somewhere else."""
    staged = directory / f"staged-{uuid.uuid4().hex}"
    for name, content in {"manifest.json": json.dumps(manifest).encode(), **files}.items():
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        (staged / name).write_bytes(content)
    return staged


def put_bundle(spool: Path, name: str, manifest: dict[str, Any], files: Mapping[str, bytes]) -> None:
    (spool / "incoming").mkdir(parents=True, exist_ok=True)
    stage_bundle(spool.parent, manifest, files).rename(spool / "incoming" / name)


def owner_of(claim: Path) -> dict[str, Any]:
    owner: dict[str, Any] = json.loads((claim / "owner.json").read_text())
    return owner


def tree(directory: Path) -> set[str]:
    """Name all that lies below; what goes while it is read does no harm, as it would to `rglob`."""
    walked = ((Path(place), [*directories, *files]) for place, directories, files in os.walk(directory))
    return {str((place / name).relative_to(directory)) for place, names in walked for name in names}


def age(path: Path, seconds: float) -> None:
    past = time.time() - seconds
    os.utime(path, (past, past), follow_symlinks=False)


@contextlib.contextmanager
def everybodys_directory() -> Iterator[Path]:
    """Lend a directory that everybody can use; pytest's own are for their owner only."""
    directory = Path(tempfile.mkdtemp(prefix="sr-"))
    directory.chmod(0o777)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Be somebody whom permissions hold back, which root is not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
