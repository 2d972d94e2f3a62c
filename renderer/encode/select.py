"""Which encoder a job gets: a GPU's if one can take it, else libx264, with the reason that the result then states."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from protocol.schema import EncoderName
from renderer.config import EncodeSettings, NvencSettings, RenderSettings
from renderer.encode.base import Encoder
from renderer.encode.nvenc.breaker import Breaker
from renderer.encode.nvenc.cache import keeper
from renderer.encode.nvenc.encoder import NvencEncoder
from renderer.encode.nvenc.findings import nvenc_refusal
from renderer.encode.nvenc.locks import state_dir
from renderer.encode.nvenc.options import refusal_of
from renderer.encode.nvenc.probe import findings_here, recalled, try_device
from renderer.encode.nvenc.session import Opening
from renderer.encode.stream import StreamSettings
from renderer.encode.x264 import open_x264
from renderer.errors import DeviceFailed, NotSupported, SessionsBusy
from renderer.geometry import Canvas
from renderer.work import NvencDevice, NvencFindings

log = logging.getLogger(__name__)

OpenEncoder = Callable[[StreamSettings, EncodeSettings], Encoder]


@dataclass(frozen=True, slots=True)
class Backend:
    """An encoder that was chosen for a job.

    Attributes:
        reason: why it is not the GPU's, if the request left the choice to us.
        nvenc: the settings that a GPU's encoder was chosen by; None for libx264.
        is_required: the request names nvenc, so no other encoder may take over.
    """

    name: Literal["nvenc", "libx264"]
    open_encoder: OpenEncoder
    reason: str | None = None
    nvenc: NvencSettings | None = None
    is_required: bool = False

    def instead(self, error: DeviceFailed | SessionsBusy) -> "Backend | None":
        """Return the encoder that takes over after a failure; None if no other may."""
        if self.nvenc is None:
            return None
        if isinstance(error, DeviceFailed) and error.was_kept:
            keeper().stop_keeping()
            return self
        if isinstance(error, DeviceFailed) and error.device:
            _breaker(self.nvenc).trip(error.device, error.message)
        if self.is_required:
            return None
        log.warning("libx264 takes over: %s", error.message, extra={"action": "fallback"})
        return libx264(error.message)


def libx264(reason: str | None = None) -> Backend:
    return Backend("libx264", open_x264, reason)


def choose(asked: EncoderName, canvas: Canvas, crf: int, settings: RenderSettings) -> Backend:
    """Choose the encoder of a job.

    Raises:
        NotSupported: the request names nvenc, and no GPU here can encode it; the message says why.
    """
    if asked == "libx264":
        return libx264()
    findings = settings.gpus or findings_here(settings.nvenc)
    try:
        devices = _fit_devices(canvas, crf, findings, settings.nvenc)
    except NotSupported as error:
        if asked == "nvenc":
            raise
        return libx264(error.message)
    # The wheel asks the first device in sight what all can do, so one that encodes must come first.
    in_sight = tuple(dict.fromkeys(each.uuid for each in (*devices, *findings.candidates, *findings.refused)))
    opening = Opening(
        settings.nvenc, devices, in_sight, lambda device, words: _breaker(settings.nvenc).trip(device.uuid, words)
    )
    return Backend(
        "nvenc",
        lambda stream, _: NvencEncoder(stream, opening),
        nvenc=settings.nvenc,
        is_required=asked == "nvenc",
    )


def _fit_devices(canvas: Canvas, crf: int, findings: NvencFindings, settings: NvencSettings) -> tuple[NvencDevice, ...]:
    """Return the devices that can take a job now.

    Raises:
        NotSupported: no device can; the message says why.
    """
    devices = findings.candidates + findings.refused
    if not devices:
        raise NotSupported(findings.refusal or "", loc=("encoder",))
    try:
        breaker = _breaker(settings)
    except DeviceFailed as error:
        raise NotSupported(error.message, loc=("encoder",)) from error
    reasons: dict[str, None] = {}
    fit = []
    for device in devices:
        reason = refusal_of(canvas, crf, device.limits) or breaker.refusal(device)
        if reason:
            reasons[reason] = None
        else:
            fit.append(recalled(settings, findings.driver, device))
    if not fit:
        raise NotSupported("; ".join(reasons), loc=("encoder",))
    return tuple(fit)


def _breaker(settings: NvencSettings) -> Breaker:
    return Breaker(
        state_dir(settings),
        settings.retry_after_s,
        lambda device: _still_failing(settings, device),
    )


def _still_failing(settings: NvencSettings, device: NvencDevice) -> str | None:
    found = try_device(settings, device.uuid, device.name)
    if found.is_busy:
        return None
    if device.reason and not found.reason and settings.hold_pictures:
        return nvenc_refusal(settings, device.uuid)  # it could not be tested when the other devices were
    return found.reason
