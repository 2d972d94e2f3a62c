"""OpenCV's VideoWriter: each still is read once and written once per frame of its hold.

Its wheels carry an ffmpeg without libx264 and libopenh264, so H.264 works only where another build is installed. It
has no say over preset or quality.
"""

from pathlib import Path

import cv2

from benchmarks.peers.script import Manifest, Unavailable, main


def make(manifest: Manifest, output: Path) -> None:
    writer = cv2.VideoWriter(
        str(output), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"avc1"), float(manifest.fps), manifest.size
    )
    if not writer.isOpened():
        raise Unavailable("this build of OpenCV cannot write H.264")
    for url, frames in manifest.stills:
        still = cv2.imread(url)
        if still is None:
            raise OSError(f"{url} could not be read")
        for _ in range(frames):
            writer.write(still)
    writer.release()


if __name__ == "__main__":
    main(make, "opencv-python-headless")
