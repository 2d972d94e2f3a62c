"""PyAV: each still is decoded and converted once and given to libx264 once per frame of its hold."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from benchmarks.peers.script import Manifest, main


def make(manifest: Manifest, output: Path) -> None:
    with av.open(str(output), "w", options={"movflags": "+faststart"}) as container:
        options = {"crf": str(manifest.crf), "preset": manifest.preset}
        stream = container.add_stream("libx264", rate=manifest.fps, options=options)
        stream.width, stream.height = manifest.size
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, manifest.fps)
        index = 0
        for url, frames in manifest.stills:
            still = np.asarray(Image.open(url).convert("RGB"))
            frame = av.VideoFrame.from_ndarray(still, format="rgb24").reformat(format="yuv420p")
            for _ in range(frames):
                frame.pts, frame.time_base = index, Fraction(1, manifest.fps)
                container.mux(stream.encode(frame))
                index += 1
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main(make, "av", "pillow")
