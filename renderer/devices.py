"""What was found out about the GPUs of a machine, as plain values that can be sent to a worker and kept in a file.

They lie below the settings because a worker is told of them together with those; `encode.probe` finds them.
"""

from dataclasses import dataclass
from typing import Final

NO_GPU_ENCODER: Final = "no GPU encoder was looked for"


@dataclass(frozen=True, slots=True)
class NvencLimits:
    """What a device's H.264 encoder says that it can take; sides in luma samples."""

    width_min: int
    width_max: int
    height_min: int
    height_max: int
    engines: int
    most_b_pictures: int


@dataclass(frozen=True, slots=True)
class NvencDevice:
    """One GPU.

    Attributes:
        uuid: as CUDA_VISIBLE_DEVICES takes it, such as "GPU-1f2e...": it names the device to every process alike.
        reason: why it cannot encode; None if it has just encoded a picture.
        is_busy: it has an encoder, but others held all its sessions.
        has_engine: False where the driver says that the card has no H.264 encoder at all.
        limits: None unless it works.
    """

    uuid: str
    name: str
    reason: str | None = None
    is_busy: bool = False
    has_engine: bool = True
    limits: NvencLimits | None = None


@dataclass(frozen=True, slots=True)
class NvencFindings:
    """What a machine has.

    Attributes:
        driver: its version, "" where there is none.
        reason: why no device could even be asked; None if they could.
    """

    driver: str = ""
    devices: tuple[NvencDevice, ...] = ()
    reason: str | None = None

    @property
    def candidates(self) -> tuple[NvencDevice, ...]:
        """The devices that encode, or would if one of their sessions were free."""
        return tuple(device for device in self.devices if device.reason is None or device.is_busy)

    @property
    def refusal(self) -> str | None:
        """Why nothing here encodes by GPU, in words; None if something does."""
        if self.candidates:
            return None
        reasons = dict.fromkeys(device.reason for device in self.devices if device.reason)
        return self.reason or "; ".join(reasons) or "the driver lists no GPU"
