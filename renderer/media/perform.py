"""A job of one of the hosted service's other kinds, from its urls to the files of its answer."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from protocol.media import (
    ExtractedFrame,
    ExtractFrame,
    FrameType,
    MediaMetadata,
    MediaResult,
    MergeAudioVideo,
    MergedVideo,
    Metadata,
    Video,
)
from protocol.schema import File, ImageFile, Progress
from renderer.config import RenderSettings
from renderer.disk import put, write_failure
from renderer.errors import JobError, VideoDamaged, as_one
from renderer.media.describe import describe
from renderer.media.frame import picture_of
from renderer.media.merge import merge
from renderer.media.sound.decode import read_header
from renderer.media.video import VideoFile
from renderer.pictures.fetch import Fetcher
from renderer.pictures.marks import Marks
from renderer.pictures.poster import coded
from renderer.work import MADE, MediaJob, MediaReport

log = logging.getLogger(__name__)


def perform(
    job: MediaJob, output: Path, settings: RenderSettings, *, on_progress: Callable[[Progress], None], marks: Marks
) -> MediaReport:
    """Do what a job asks for; its files appear at and beside `output`, as `MediaReport.files` tells, once whole.

    Raises:
        JobError: the request is at fault; `loc` says where.
        BackendError: writing failed.
    """
    began = time.perf_counter()
    on_progress(Progress(images=0, frames=0, stage="rendering"))
    answer = _Performance(job, output, settings, marks).answer()
    for warning in answer.warnings:
        log.info("%s", warning, extra={"action": "warned", "warning": warning.type})
    warnings, timings = (*job.warnings, *answer.warnings), {"total": round(time.perf_counter() - began, 4)}
    return MediaReport(answer.model_copy(update={"warnings": warnings, "timings": timings}))


@dataclass(frozen=True, slots=True)
class _Performance:
    job: MediaJob
    output: Path
    settings: RenderSettings
    marks: Marks

    def answer(self) -> MediaResult:
        contents = self._contents()
        request = self.job.request
        if isinstance(request, MergeAudioVideo):
            return self._merged(request, contents)
        if isinstance(request, ExtractFrame):
            return self._extracted(request, contents)
        if isinstance(request, Metadata):
            return self._described(request, contents)
        raise TypeError(f"nothing here does {type(request).__name__}")

    def _contents(self) -> dict[str, bytes]:
        """Return the files of the request by its fields.

        Raises:
            JobError: some cannot be had; all of them are named.
        """
        job, found, faults = self.job, dict[str, bytes](), list[JobError]()
        fetcher = Fetcher(self.settings.fetch, base=job.base, attachments=job.attachments, any_path=job.any_path)
        for (field, *_), url in job.request.urls():
            try:
                content = fetcher.of(str(field)).fetch(url)
                if not isinstance(content, bytes):
                    raise VideoDamaged("expected a file, found raw pixels")
                found[str(field)] = content
            except JobError as error:
                faults.append(error.at(field))
        if faults:
            raise as_one(faults)
        return found

    def _merged(self, request: MergeAudioVideo, contents: dict[str, bytes]) -> MergedVideo:
        video = VideoFile(contents["video_url"], ("video_url",), self.settings, self.marks)
        loc = ("audio_url",)
        try:
            sound = read_header(contents["audio_url"], loc, self.marks)
            warnings = merge(video, sound, request, self.output, self.marks)
        except JobError as error:
            raise error.at(*loc) from error.__cause__
        file = File(url="", file_name=f"{MADE}.mp4", file_size=self.output.stat().st_size)
        return MergedVideo(video=file, warnings=warnings)

    def _extracted(self, request: ExtractFrame, contents: dict[str, bytes]) -> ExtractedFrame:
        video = VideoFile(contents["video_url"], ("video_url",), self.settings, self.marks)
        return ExtractedFrame(images=(self._image(video, request.frame_type, f"{MADE}.png"),))

    def _described(self, request: Metadata, contents: dict[str, bytes]) -> MediaMetadata:
        loc, data = ("media_url",), contents["media_url"]
        media = describe(data, request.url or request.media_url, loc, self.settings, self.marks)
        if request.extract_frames and isinstance(media, Video):
            video = VideoFile(data, loc, self.settings, self.marks)
            first, last = (self._image(video, frame, f"{MADE}.{frame}.png") for frame in ("first", "last"))
            media = media.model_copy(update={"start_frame": first, "end_frame": last})
        return MediaMetadata(media=media)

    def _image(self, video: VideoFile, frame: FrameType, name: str) -> ImageFile:
        try:
            picture = picture_of(video.frame(frame))
        except JobError as error:
            raise error.at(*video.loc) from error.__cause__
        content = coded(picture, "png")
        place = self.output.with_name(f"{self.output.stem}{name.removeprefix(MADE)}")
        try:
            put(place, content, part=place.with_name(f"{place.name}.part"), mode=0o666)
        except OSError as error:
            raise write_failure(error.errno, error.strerror) from error
        height, width = picture.shape[:2]
        return ImageFile(
            url="", content_type="image/png", file_name=name, file_size=len(content), width=width, height=height
        )
