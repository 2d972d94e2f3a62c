"""moviepy: an ImageSequenceClip with a duration per still, as its documentation shows."""

from pathlib import Path

from benchmarks.peers.script import Manifest, Unavailable, main

try:
    from moviepy import ImageSequenceClip
except ImportError:
    ImageSequenceClip = None


def make(manifest: Manifest, output: Path) -> None:
    if ImageSequenceClip is None:
        raise Unavailable("moviepy is not installed: pip install 'stillreel[bench]'")
    durations = [frames / manifest.fps for _, frames in manifest.stills]
    clip = ImageSequenceClip([url for url, _ in manifest.stills], durations=durations)
    clip.write_videofile(
        str(output),
        fps=manifest.fps,
        codec="libx264",
        preset=manifest.preset,
        ffmpeg_params=["-crf", str(manifest.crf)],
        audio=False,
        logger=None,
    )


if __name__ == "__main__":
    main(make, "moviepy", "imageio-ffmpeg", "numpy", "pillow")
