"""What a batch is to do, and what that means for each manifest: render it, leave it, or say what is wrong with it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from renderer.batch.digest import Digests
from renderer.batch.discover import Found, discover
from renderer.batch.outputs import Output, output_for
from renderer.batch.shard import Shard
from renderer.config import Settings
from renderer.errors import ConfigError, InvalidRequest, JobError, NoManifest
from renderer.intake import Origin, parse_request, render_job
from renderer.manifests.directory import directory_manifest
from renderer.manifests.read import load_manifest
from renderer.manifests.still import Fields, naming_its_files
from renderer.pictures.fetch import Fetcher
from renderer.work import RenderJob


@dataclass(frozen=True, slots=True)
class Plan:
    """A batch, as the command line asks for it.

    Attributes:
        directory: absolute; all manifests below it are rendered.
        out: absolute; exists.
        workers: videos that are made at a time.
        hold: how long each image of a plain directory is shown; None: directories are no manifests.
        overrides: fields that are set in every request.
    """

    directory: Path
    out: Path
    workers: int
    shard: Shard = field(default_factory=Shard)
    hold: Fields | None = None
    overrides: Fields = field(default_factory=dict)

    def walk(self) -> Iterator[Found]:
        """Yield what is this shard's, in a fixed order."""
        found = discover(self.directory, self.out, with_directories=self.hold is not None)
        return (each for each in found if self.shard.has(each.name))


class Settled(Enum):
    """What needs no rendering."""

    SKIPPED = auto()
    IGNORED = auto()


@dataclass(frozen=True, slots=True)
class Ready:
    """A manifest that has been checked and is to be rendered."""

    found: Found
    work: RenderJob
    digest: str
    output: Output


class Preparation:
    """Reads, checks and hashes manifests; for any thread but those of `pool`."""

    def __init__(self, plan: Plan, settings: Settings, pool: ThreadPoolExecutor) -> None:
        """Remember the plan and the settings.

        Args:
            pool: reads the images.
        """
        self._plan = plan
        self._settings = settings
        self._pool = pool
        self._digests = Digests(pool)

    def abandon(self) -> None:
        """Read no more images: whatever is being prepared fails soon, in words of no interest."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def prepare(self, found: Found) -> Ready | Settled:
        """Say what is to be done.

        Raises:
            JobError: the manifest or an image of it is at fault.
        """
        try:
            fields = self._fields(found)
        except NoManifest:
            return Settled.IGNORED
        if "images" not in fields and found.path.suffix.lower() == ".json":
            return Settled.IGNORED
        base = found.path if found.is_directory else found.path.parent
        origin = Origin(base=base, any_path=True)
        try:
            work = render_job(parse_request(fields), self._settings.limits, self._settings.fetch, origin)
            digest = self.digest(work)
        except JobError as error:
            raise naming_its_files(error, fields) from error.__cause__
        output = output_for(self._plan.out, found.stem, digest)
        return Settled.SKIPPED if output.is_finished() else Ready(found, work, digest, output)

    def digest(self, work: RenderJob) -> str:
        """Return the hash of a job as its images are now.

        Raises:
            JobError: an image cannot be read.
        """
        fetcher = Fetcher(self._settings.fetch, base=work.base, any_path=work.any_path)
        return self._digests.of_job(work, fetcher, self._settings.encode)

    def _fields(self, found: Found) -> Fields:
        if found.refusal:
            raise InvalidRequest(found.refusal)
        try:
            if found.is_directory:
                return directory_manifest(found.path, self._plan.hold or {}, self._plan.overrides)
            return load_manifest(found.path, self._plan.overrides)
        except ConfigError as error:
            raise InvalidRequest(error.message) from error  # one of many: the batch itself goes on
