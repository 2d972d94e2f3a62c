"""Exact frame rates and holds: which frame shows which still, in integers and fractions only.

The NTSC rates are n·1000/1001 for n = 24, 30, 48, 60, 120 (SMPTE ST 12-1). People write them rounded, so a number that
is such a rate rounded to the two or more decimals it was written with means that rate: 23.98, 23.976 and 23.976024 do.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import accumulate, repeat
from typing import Protocol

from protocol.errors import Loc
from protocol.fields import AUTO_FPS
from protocol.schema import ImageFrame, LengthRule, Poster, RenderRequest, ResultWarning
from renderer.errors import InvalidRequest, LimitExceeded, as_one
from renderer.manifests.numbering import likely_gaps, times_shown, unsaid_words

_NTSC_RATES = tuple(Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120))

_AUTO_RATES = tuple(map(Fraction, (24, 25, 30, 50, 60, 120)))

# A rate written with up to three decimals stays exact; 33.333333 means 100/3. The bound keeps every time stamp of a
# day-long video within 64 bits and the timescale (the rate's numerator) within MP4's 32.
_MAX_DENOMINATOR = 1001


def frame_rate(value: float | str) -> Fraction:
    """Return the exact rate that a number or a fraction such as "30000/1001" means.

    Args:
        value: frames per second, finite and positive; the schema has checked its range.
    """
    text = str(value)
    if "/" in text:
        return Fraction(text)
    written = Decimal(text)
    decimals = -int(written.as_tuple().exponent)
    if decimals >= 2:
        for rate in _NTSC_RATES:
            if round(rate, decimals) == Fraction(written):
                return rate
    return Fraction(written).limit_denominator(_MAX_DENOMINATOR)


@dataclass(frozen=True, slots=True)
class Timeline:
    """How long each still is held: `holds[i]` frames for still i, at `fps` frames per second."""

    fps: Fraction
    holds: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.fps <= 0:
            raise ValueError(f"fps must be positive: {self.fps}")
        if not self.holds or min(self.holds) < 1:
            raise ValueError(f"a timeline needs holds of at least one frame each: {self.holds[:8]}")

    @property
    def frames(self) -> int:
        return sum(self.holds)

    @property
    def duration_s(self) -> Fraction:
        return self.frames / self.fps


def timeline_of(request: RenderRequest) -> Timeline:
    """Lay out a request's stills at the rate it asks for.

    Raises:
        InvalidRequest: a duration is so short that its still would get no frame, or a number is missing from the
            images' names and may not be.
    """
    times = times_shown([image.url for image in request.images], request.gaps)
    if request.fps != AUTO_FPS:
        return timeline(request.images, frame_rate(request.fps), request.min_frames, times)
    for fps in _AUTO_RATES:
        try:
            return timeline(request.images, fps, times=times)
        except InvalidRequest:
            continue
    return timeline(request.images, _AUTO_RATES[-1], request.min_frames, times)


def has_no_time(image: ImageFrame) -> bool:
    """Whether a still has neither frames nor a duration, so that it may get a share of the sound's."""
    return image.duration is None and "frames" not in image.model_fields_set


def following(line: Timeline, sharing: Collection[int], rule: LengthRule, sound_s: Fraction) -> Timeline:
    """Let a timeline follow its sound.

    Args:
        sharing: the stills that share what the others leave, each as often as it is shown; boundaries are at the frames
            nearest to the running total.
        rule: for `longest`, and where nothing is to be shared, the last still is held until the sound ends.
    """
    end, holds = _rounded(sound_s * line.fps), list(line.holds)
    if rule == "audio" and sharing:
        shares = sum(holds[index] for index in sharing)
        room, done = max(shares, end - line.frames + shares), 0
        for index in sorted(sharing):
            begun, done = done, done + holds[index]
            holds[index] = _rounded(Fraction(room * done, shares)) - _rounded(Fraction(room * begun, shares))
    else:
        holds[-1] += max(0, end - line.frames)
    return Timeline(line.fps, tuple(holds))


def remarks(request: RenderRequest, line: Timeline) -> list[ResultWarning]:
    """Return the warnings about a request and the timeline that `timeline_of` has made of it."""
    urls = [image.url for image in request.images]
    warnings = []
    if request.gaps is None and (found := likely_gaps(urls)):
        warnings.append(ResultWarning(type="numbers_missing", message=unsaid_words(found), loc=("images",)))
    wanted = sum(map(_wanted, request.images, times_shown(urls, request.gaps), repeat(line.fps)))
    if line.frames > _rounded(wanted):
        words = (
            f"the video has {line.frames} frames and not {_rounded(wanted)}, because so many durations are shorter "
            f"than min_frames ({request.min_frames}) at {float(line.fps):g} fps that no hold can make up for them"
        )
        warnings.append(ResultWarning(type="video_longer", message=words, loc=("min_frames",)))
    if request.loudness is not None and not request.audio:
        words = "the request has no sound, so there is nothing to make this loud"
        warnings.append(ResultWarning(type="loudness_missed", message=words, loc=("loudness",)))
    return warnings


class LengthLimits(Protocol):
    """What a video may have at most."""

    @property
    def max_frames(self) -> int: ...
    @property
    def max_duration_s(self) -> float: ...


def check_length(line: Timeline, limits: LengthLimits, loc: Loc) -> None:
    """Refuse a video that is too long.

    Args:
        loc: the field that makes it so.

    Raises:
        LimitExceeded: the message says what is allowed.
    """
    if line.frames > limits.max_frames:
        raise LimitExceeded(
            f"expected up to {limits.max_frames} frames in all, found {line.frames} (limits.max_frames)",
            loc=loc,
            context={"le": limits.max_frames},
        )
    if line.duration_s > Fraction(limits.max_duration_s):
        raise LimitExceeded(
            f"expected up to {limits.max_duration_s:g} s in all, "
            f"found {float(line.duration_s):.3f} s (limits.max_duration_s)",
            loc=loc,
            context={"le": limits.max_duration_s},
        )


def poster_frame(poster: Poster, fps: Fraction) -> int:
    """Return the number of the frame that a poster shows: in seconds, the one that is on the screen then."""
    if poster.seconds is not None:
        return math.floor(Fraction(str(poster.seconds)) * fps)
    return poster.frame or 0


def check_poster(poster: Poster | None, line: Timeline) -> None:
    """Refuse a poster from behind the end of the video.

    Raises:
        InvalidRequest: the message says where the last frame is.
    """
    if poster is None or poster_frame(poster, line.fps) < line.frames:
        return
    if poster.seconds is not None:
        words = f"expected less than the video's {float(line.duration_s):.6g} s, found {poster.seconds:g} s"
        raise InvalidRequest(words, loc=("poster", "seconds"))
    words = f"expected up to {line.frames - 1}, the video's last frame, found {poster.frame}"
    raise InvalidRequest(words, loc=("poster", "frame"))


def check_timecode(timecode: str, fps: Fraction) -> None:
    """Refuse a timecode that no frame at this rate has (SMPTE ST 12-1).

    Args:
        timecode: "HH:MM:SS:FF", with ";" before the frames to drop numbers, as 29.97 and 59.94 fps may.

    Raises:
        InvalidRequest: the message says why.
    """
    nominal = round(fps)
    hours, minutes, seconds, frames = (int(timecode[at : at + 2]) for at in (0, 3, 6, 9))
    drops = timecode[8] == ";"
    dropped = nominal // 15 if drops and minutes % 10 and not seconds else 0
    is_whole = fps in (nominal, Fraction(nominal * 1000, 1001))
    may_drop = nominal % 30 == 0 and fps != nominal
    refusals = {
        f"expected whole frames per second, or 1000/1001 of that, found {float(fps):g}": not is_whole,
        f"expected ':' before the frames, since {float(fps):g} fps drops no numbers, found {timecode}": drops
        and not may_drop,
        f"expected up to 23:59:59 and {nominal - 1} frames, found {timecode}": hours > 23
        or max(minutes, seconds) > 59
        or frames >= nominal,
        f"expected a number that is not dropped, found {timecode}": frames < dropped,
    }
    for reason, is_so in refusals.items():
        if is_so:
            raise InvalidRequest(reason, loc=("timecode",))


def timeline(
    images: Sequence[ImageFrame], fps: Fraction, min_frames: int | None = None, times: Sequence[int] | None = None
) -> Timeline:
    """Lay the stills out one after the other.

    A hold in seconds ends at the frame nearest to the running total (half a frame rounds up), so that rounding never
    adds up: ten stills of 0.1 s at 24 fps last 24 frames together, not 20.

    Args:
        min_frames: what a still whose duration is too short for that gets. The holds in seconds behind it make up for
            it; where they are too short, those before it do, the nearest first, down to as many frames themselves. So
            the end is within half a frame of the total, unless all stills together need more frames than it has: then
            nothing is taken from those before. None refuses a duration that leaves no frame.
        times: how many times its hold each still is shown; None: once.

    Raises:
        InvalidRequest: a duration is so short that its still would get no frame.
    """
    wanted = [_wanted(image, count, fps) for image, count in zip(images, times or repeat(1), strict=False)]
    if min_frames is None:
        _refuse_too_short(images, wanted, fps)
    nearest = [_rounded(total) for total in accumulate(wanted)]
    least = [
        (min_frames or 0) if image.duration is not None else int(frames)
        for image, frames in zip(images, wanted, strict=True)
    ]
    # Where a still has to end for those behind it to have their least and the last to end in time.
    latest = [nearest[-1] - behind for behind in [*accumulate(least[:0:-1], initial=0)][::-1]]
    is_enough = sum(least) <= nearest[-1]
    holds, end = [], 0
    for index, image in enumerate(images):
        start, end = end, max(nearest[index], end + least[index])
        if image.duration is None:
            end = start + least[index]
        elif is_enough:
            end = min(end, latest[index])
        holds.append(end - start)
    return Timeline(fps, tuple(holds))


def _refuse_too_short(images: Sequence[ImageFrame], wanted: Sequence[Fraction | int], fps: Fraction) -> None:
    """Refuse durations that leave no frame, all of them.

    Those behind one are judged as if it had been mended, to one frame: else the next answer would name others.
    """
    total: Fraction | int = 0
    faults = []
    for index, (image, frames) in enumerate(zip(images, wanted, strict=True)):
        is_shown = _rounded(total + frames) > _rounded(total)
        total += frames if is_shown else 1
        if not is_shown:
            words = (
                f"{image.duration} s leaves no frame for this still at {float(fps):g} fps; "
                f"expected about {float(1 / fps):.4g} s or more, or min_frames: 1"
            )
            faults.append(InvalidRequest(words, loc=("images", index, "duration")))
    if faults:
        raise as_one(faults)


def _wanted(image: ImageFrame, times: int, fps: Fraction) -> Fraction | int:
    """Return how long a still is to be held, in frames that need not be whole."""
    return times * (image.frames if image.duration is None else Fraction(str(image.duration)) * fps)


def _rounded(frames: Fraction | int) -> int:
    return frames if isinstance(frames, int) else math.floor(frames + Fraction(1, 2))  # usual and fast
