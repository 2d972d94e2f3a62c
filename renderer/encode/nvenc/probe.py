"""Which GPU of this machine encodes H.264, and why the others do not.

Not every GPU has an encoder: H100, H200 and A100 have decoders only. So each device has to encode a picture, in a child
process with a time limit (`nvenc.probe_child` explains why), and the answer is kept by driver and device: a new driver
or another card is asked again. Answers that may change, such as that all sessions are taken, are not kept. The driver
refuses with the same code if a card has no engine and if a container has no access to it, so only cards with certain
names are considered to have no engine; any other is asked again later.
"""

import contextlib
import fcntl
import functools
import importlib.util
import json
import logging
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from renderer.config import NvencSettings
from renderer.disk import put
from renderer.encode.h264.bits import NalType, nal_type, split_nals
from renderer.encode.nvenc import probe_child
from renderer.encode.nvenc.errors import ALL_SESSIONS_TAKEN, NO_ENGINE, code_name, has_engine
from renderer.encode.nvenc.options import LEAST_HEIGHT, LEAST_WIDTH
from renderer.processes import answer
from renderer.work import NvencDevice, NvencFindings, NvencLimits

log = logging.getLogger(__name__)

_WHEEL: Final = "PyNvVideoCodec"
_BUILDS: Final = {("Linux", "x86_64")}
_PICTURE_NALS: Final = {NalType.SPS, NalType.PPS, NalType.IDR_SLICE}


class _Refused(Exception):
    """The child gave no answer; the message says why."""


@functools.cache
def findings_here(settings: NvencSettings) -> NvencFindings:
    """Find the devices, once in this process; the circuit breaker handles a device that fails later."""
    return find(settings)


def find(settings: NvencSettings) -> NvencFindings:
    """Ask the driver for its devices, and each device that is not known yet for a picture."""
    is_installed = importlib.util.find_spec(_WHEEL) is not None
    if refused := wheel_refusal(platform.system(), platform.machine(), is_installed=is_installed):
        return NvencFindings(reason=refused)
    try:
        listed = _ask("list", settings)
    except _Refused as error:
        return NvencFindings(reason=f"the NVIDIA driver could not be asked: {error}")
    driver = str(listed.get("driver", ""))
    if reason := listed.get("reason"):
        return NvencFindings(driver, reason=str(reason))
    cache = _Cache(settings, driver)
    with cache.mine_alone():
        devices = tuple(_found(cache, settings, device) for device in listed["devices"])
    return NvencFindings(driver, devices)


def try_device(settings: NvencSettings, uuid: str, name: str) -> NvencDevice:
    """Let one device encode a picture now, regardless of earlier findings."""
    try:
        answer = _ask("encode", settings, CUDA_VISIBLE_DEVICES=uuid)
    except _Refused as error:
        return NvencDevice(uuid, name, f"{name}: the probe {error}")
    if "stream" not in answer:
        return _refusal_of(uuid, name, answer.get("code"))
    nals = {nal_type(nal) for nal in split_nals(bytes.fromhex(answer["stream"]))}
    if not nals >= _PICTURE_NALS:
        return NvencDevice(uuid, name, f"{name}: it did not encode an H.264 picture with its parameter sets")
    limits = NvencLimits(**answer["limits"])
    # Recent cards report smaller sides than they really take.
    width, height = max(limits.width_min, LEAST_WIDTH), max(limits.height_min, LEAST_HEIGHT)
    return NvencDevice(uuid, name, limits=replace(limits, width_min=width, height_min=height))


def _refusal_of(uuid: str, name: str, code: int | None) -> NvencDevice:
    called = code_name(code)
    if code in NO_ENGINE and not has_engine(name):
        return NvencDevice(uuid, name, f"{name} has decoders but no NVENC engine: {called}", has_engine=False)
    if code in NO_ENGINE:
        why = "the driver refuses to encode here; in a container, NVIDIA_DRIVER_CAPABILITIES must name video"
        return NvencDevice(uuid, name, f"{name}: {why}: {called}")
    if code in ALL_SESSIONS_TAKEN:
        return NvencDevice(uuid, name, f"{name}: other programs use all its encode sessions: {called}", is_busy=True)
    return NvencDevice(uuid, name, f"{name}: encoding a picture failed: {called}")


def wheel_refusal(system: str, machine: str, *, is_installed: bool) -> str | None:
    """Return why NVIDIA's wheel cannot be imported here, as far as this is known without an attempt."""
    if (system, machine) not in _BUILDS:
        return f"{_WHEEL} has no build for {system} on {machine}"
    return None if is_installed else f"{_WHEEL} is not installed"


def recalled(settings: NvencSettings, driver: str, device: NvencDevice) -> NvencDevice:
    """Return the device, with its limits if it gave none when it was probed but has encoded since then."""
    known = None if device.limits else _Cache(settings, driver).get(device.uuid)
    return known if known and known.limits else device


def _found(cache: "_Cache", settings: NvencSettings, listed: dict[str, str]) -> NvencDevice:
    uuid, name = listed["uuid"], listed["name"]
    known = cache.get(uuid)
    if known:
        return known
    device = try_device(settings, uuid, name)
    log.info("%s: %s", uuid, device.reason or "encodes", extra={"action": "probed"})
    if device.limits or not device.has_engine:
        cache.put(device)
    return device


def _ask(what: str, settings: NvencSettings, **environment: str) -> dict[str, Any]:
    """Run the child and return its answer.

    Raises:
        _Refused: it died, hung or did not write JSON.
    """
    # The list needs no installed package, so that it need not wait for `site` to look for them.
    command = [sys.executable, "-P", *(["-S"] if what == "list" else []), str(Path(probe_child.__file__)), what]
    try:
        done = answer(command, timeout_s=settings.probe_timeout_s, environment={**os.environ, **environment})
    except subprocess.TimeoutExpired:
        raise _Refused(f"did not end within {settings.probe_timeout_s:g} s") from None
    except OSError as error:
        raise _Refused(f"could not be started: {error.strerror}") from error
    if done.returncode:
        log.info("the probe's last words: %s", done.stderr.strip(), extra={"action": "probe_died"})
        raise _Refused(_ending(done.returncode, done.stderr))
    answers = [line for line in done.stdout.splitlines() if line.startswith(probe_child.MARK)]
    if not answers:
        raise _Refused("gave no answer")
    return dict(json.loads(answers[0].removeprefix(probe_child.MARK)))


def _ending(code: int, stderr: str) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    last = next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "it said nothing")
    return f"ended with exit code {code}: {last}"


def _cache_home() -> Path:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a home, as in many containers
        return Path(tempfile.gettempdir()) / f"stillreel-{os.getuid()}"


class _Cache:
    """The findings about devices with this driver and wheel, in one small file; a damaged file counts as empty."""

    def __init__(self, settings: NvencSettings, driver: str) -> None:
        from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - only for machines with a GPU

        self._path = (settings.cache_dir or _cache_home() / "stillreel") / "nvenc.json"
        try:
            wheel = version(_WHEEL)
        except PackageNotFoundError:
            wheel = "unknown"
        self._made_by = f"{driver}, {_WHEEL} {wheel}"

    @contextlib.contextmanager
    def mine_alone(self) -> Iterator[None]:
        """Let only one process probe at a time, because workers that probe at once take sessions from each other."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = self._path.with_suffix(".lock").open("a")
        except OSError:
            yield  # the directory cannot be written, so no answer can be kept there either
            return
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def get(self, uuid: str) -> NvencDevice | None:
        try:
            told = self._read()[uuid]
            if told["limits"] is None:
                return NvencDevice(uuid, str(told["name"]), str(told["reason"]), has_engine=False)
            limits: dict[str, Any] = {name: int(value) for name, value in told["limits"].items()}
            return NvencDevice(uuid, str(told["name"]), limits=NvencLimits(**limits))
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def put(self, device: NvencDevice) -> None:
        """Replace the file by a new one; if that fails, the next process probes again."""
        devices = {**self._read(), device.uuid: asdict(device)}
        with contextlib.suppress(OSError):
            put(self._path, json.dumps({"made_by": self._made_by, "devices": devices}).encode())

    def _read(self) -> dict[str, Any]:
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            return dict(kept["devices"]) if kept["made_by"] == self._made_by else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
