"""imageio's ffmpeg writer: each still is read once and appended once per frame of its hold."""

from pathlib import Path

import imageio.v2 as imageio

from benchmarks.peers.script import Manifest, main


def make(manifest: Manifest, output: Path) -> None:
    writer = imageio.get_writer(
        output,
        format="FFMPEG",
        fps=manifest.fps,
        codec="libx264",
        quality=None,  # else its own scale, which would come before -crf
        macro_block_size=1,  # else 1080 rows become 1088
        ffmpeg_params=["-preset", manifest.preset, "-crf", str(manifest.crf)],
    )
    with writer:
        for url, frames in manifest.stills:
            still = imageio.imread(url)
            for _ in range(frames):
                writer.append_data(still)


if __name__ == "__main__":
    main(make, "imageio", "imageio-ffmpeg", "numpy", "pillow")
