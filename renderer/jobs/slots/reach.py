"""The files that the workers of a daemon may use: programs, files of the system, sources of jobs, and no secrets.

An attacker who runs code in a worker can do more than use files (docs/security.md); this stops a decoder or an encoder
that was made to open a file which it does not need.

The data directory holds the secrets of clients beside the places that workers need, and may lie anywhere. Landlock only
knows what is allowed, so a directory that holds something hidden is not allowed as a whole: what is in it is, all but
that. Files that are added later count from the next job on, since the directory is read before each.
"""

import contextlib
import functools
import os
import shutil
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from renderer.config import NvencSettings, RenderSettings
from renderer.encode.ffmpeg import find_ffmpeg
from renderer.encode.nvenc.locks import state_dir
from renderer.errors import StillreelError
from renderer.jobs.slots.base import RenderTask
from renderer.jobs.slots.confinement import Roots, find

# Programs and libraries, and the files of the system that they read; the last three are of NixOS, Guix and Homebrew.
_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt", "/nix/store", "/gnu/store", "/home/linuxbrew")
_SYSTEM_READ: Final = ("/etc", "/proc", "/sys", "/dev/urandom", "/dev/random", "/dev/zero")
_SYSTEM_CHANGED: Final = ("/dev/null", "/dev/shm", "/dev/dri", "/proc/self")  # noqa: S108 - named, not used
_TOO_WIDE: Final = {Path("/"), Path("/run"), Path("/etc"), Path("/tmp"), Path("/var/tmp")}  # noqa: S108 - as above
_CREDENTIALS: Final = (
    *("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AZURE_FEDERATED_TOKEN_FILE"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH"),
)
_BESIDE_BIN: Final = ("lib", "lib64", "share")


@dataclass(frozen=True, slots=True)
class Reach:
    """What jobs with these settings may use.

    Attributes:
        read: what else is read.
        change: where files are made, too.
        hidden: files and directories that stay out of reach; places of the others that lie below one of them do not.
    """

    settings: RenderSettings
    read: tuple[Path, ...] = ()
    change: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()

    def __call__(self, task: RenderTask | None) -> Roots:
        """Return those of these places that exist now, and those that this task needs beside them."""
        settings = self.settings
        read = (*settings.fetch.allow_roots, *_credentials(settings), *self.read)
        changed = list(self.change)
        if task is not None:  # of a manifest directory that the settings do not name any more
            changed += _beyond(task.output.parent, self.change)
            read += _beyond(task.work.base, (*read, *changed))
        hidden = {_real(path) for path in self.hidden}
        around = {parent for path in hidden for parent in path.parents}

        def found(*places: Path) -> frozenset[tuple[Path, int, int]]:
            return find(*(shown for place in dict.fromkeys(places) for shown in _shown(place, hidden, around)))

        return Roots(
            run=found(*map(Path, _SYSTEM), *_python(), *_libraries(), *_ffmpeg(settings)),
            read=found(*map(Path, _SYSTEM_READ), *_certificates(settings), *_name_servers(), *read),
            change=found(*map(Path, _SYSTEM_CHANGED), *_of_gpus(settings), *changed),
        )


def _shown(place: Path, hidden: set[Path], around: set[Path]) -> Iterator[Path]:
    """Return a place without its hidden parts: the place itself, or the entries that are not hidden.

    Args:
        around: the directories that hold something hidden.
    """
    real = _real(place)
    if real in hidden:
        return
    if real in around:
        yield from _inside(real, hidden, around)
    else:
        yield place


def _inside(directory: Path, hidden: set[Path], around: set[Path]) -> Iterator[Path]:
    """Return what is in a directory that holds something hidden. Its path is real, so those of its entries are, too."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            path = directory / entry.name
            if path in hidden or entry.is_symlink():  # the target of a link is in another place
                continue
            if path in around:
                yield from _inside(path, hidden, around)
            else:
                yield path


def _beyond(place: Path | None, others: Iterable[Path]) -> tuple[Path, ...]:
    """Return the place unless it lies in one of the others."""
    if place is None or any(_real(place).is_relative_to(_real(other)) for other in others):
        return ()
    return (place,)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


@functools.cache
def _python() -> tuple[Path, ...]:
    """Return where this interpreter, the packages and we ourselves lie; some modules are imported at first use."""
    return tuple(_of_python())


def _of_python() -> Iterator[Path]:
    ours = Path(__file__).parents[2]
    yield from (Path(sys.prefix), Path(sys.base_prefix), ours, ours.parent / "protocol")
    yield from (Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    yield from (Path(path) for path in sys.path if Path(path).name in {"site-packages", "dist-packages"})
    yield from _listed_in("PYTHONPATH")
    if site.ENABLE_USER_SITE:
        yield Path(site.getusersitepackages())


def _libraries() -> Iterator[Path]:
    yield from _listed_in("LD_LIBRARY_PATH")


def _listed_in(variable: str) -> Iterator[Path]:
    return (Path(path) for path in os.environ.get(variable, "").split(os.pathsep) if path)


def _ffmpeg(settings: RenderSettings) -> Iterator[Path]:
    """Return the program and the directories of its own libraries, or of the program that it is a script for."""
    with contextlib.suppress(StillreelError):  # said when it is to be run
        found = shutil.which(find_ffmpeg(settings.encode))
        for program in {Path(found), _real(Path(found))} if found else ():
            yield program
            beside = program.parent
            if beside not in (_home(), *_TOO_WIDE):
                yield beside
            if beside.name == "bin":
                yield from (beside.parent / name for name in _BESIDE_BIN)


def _home() -> Path | None:
    with contextlib.suppress(RuntimeError):  # a user without one
        return Path.home()
    return None


def _certificates(settings: RenderSettings) -> Iterator[Path]:
    if settings.fetch.ca_file:
        yield settings.fetch.ca_file
    yield from (Path(os.environ[name]) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name))


def _credentials(settings: RenderSettings) -> Iterator[Path]:
    """Return the files that say who we are to object stores; a pod's are replaced by others in their directory."""
    if not (settings.fetch.allow_objects or settings.outputs.allow_objects):
        return
    for path in (Path(os.environ[name]) for name in _CREDENTIALS if os.environ.get(name)):
        yield path.parent if "secrets" in path.parts[:-1] else path
    if home := _home():
        yield home / ".config/gcloud/application_default_credentials.json"


def _name_servers() -> Iterator[Path]:
    """Return the file, often a link to somewhere below /run, and its directory: it may be replaced while a job runs."""
    real = _real(Path("/etc/resolv.conf"))
    yield real
    if real.parent not in _TOO_WIDE:
        yield real.parent


def _of_gpus(settings: RenderSettings) -> Iterator[Path]:
    """Return the devices, what the driver shares between processes, and where sessions are counted."""
    yield from (*Path("/dev").glob("nvidia*"), Path("/dev/dxg"))
    yield Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"))  # noqa: S108 - NVIDIA's default
    if settings.gpus is not None and settings.gpus.devices:
        yield from _sessions(settings.nvenc)


def _sessions(settings: NvencSettings) -> Iterator[Path]:
    with contextlib.suppress(StillreelError):  # said when a GPU is to be used
        yield state_dir(settings)
