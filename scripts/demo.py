"""The demo: real photographs, a daemon, one request over ZeroMQ, and what came of it.

Writes out/demo.mp4, the manifest and pictures it was made from under out/demo/, and out/demo.png, a contact sheet of
the video's frames. The photographs are those that scikit-image carries (scikit-image.org).
"""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import skimage
from PIL import Image, ImageDraw, ImageFilter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from protocol.client import Client
from protocol.schema import ImageFrame, JobStatus, Rendered, RenderRequest

OUT = Path("out")
PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
SHEET_COLUMNS, THUMBNAIL = 4, (320, 180)
console = Console()


def main() -> None:
    """Run the demo."""
    shutil.rmtree(OUT / "demo", ignore_errors=True)
    request = make_request(OUT / "demo")
    with daemon(OUT / "demo") as endpoint, Client(endpoint) as client:
        result = render(client, request)
    contact_sheet(OUT / "demo.mp4", OUT / "demo.png", [image.frames for image in request.images])
    show(result)


def make_request(directory: Path) -> RenderRequest:
    """Lay the pictures out with their manifest: landscape, a portrait by EXIF orientation, one with alpha."""
    directory.mkdir(parents=True)
    for name in ("coffee.png", "rocket.jpg", "chelsea.png", "hubble_deep_field.jpg"):
        shutil.copyfile(PHOTOGRAPHS / name, directory / name)
    turned_by_camera(PHOTOGRAPHS / "motorcycle_left.png", directory / "portrait.jpg")
    cut_out(PHOTOGRAPHS / "astronaut.png", directory / "with-alpha.png")
    holds = {
        "coffee.png": 48,
        "rocket.jpg": 24,
        "portrait.jpg": 36,
        "chelsea.png": 24,
        "hubble_deep_field.jpg": 36,
        "with-alpha.png": 48,
    }
    images = [ImageFrame(url=str((directory / name).absolute()), frames=hold) for name, hold in holds.items()]
    request = RenderRequest(images=tuple(images), fps=24, width=1280, height=720, background="#101418")
    (directory / "manifest.json").write_text(json.dumps(request.model_dump(exclude_unset=True), indent=2))
    return request


def turned_by_camera(source: Path, target: Path) -> None:
    """Save a photograph the way a camera held upright does: stored lying, with the orientation in EXIF."""
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.open(source).convert("RGB")
    upright = upright.crop((150, 0, 550, upright.height))
    upright.transpose(Image.Transpose.ROTATE_90).save(target, quality=92, exif=exif)


def cut_out(source: Path, target: Path) -> None:
    """Save a photograph with soft round corners of transparency."""
    picture = Image.open(source).convert("RGB")
    mask = Image.new("L", picture.size, 0)
    ImageDraw.Draw(mask).rounded_rectangle((16, 16, picture.width - 16, picture.height - 16), radius=120, fill=255)
    picture.putalpha(mask.filter(ImageFilter.GaussianBlur(6)))
    picture.save(target)


@contextmanager
def daemon(allow_root: Path) -> Iterator[str]:
    """Start a daemon on a free port, give its endpoint, and stop it the way a service manager does."""
    with tempfile.TemporaryDirectory(prefix="stillreel-demo-") as data_dir:
        command = ["serve", "--bind", "tcp://127.0.0.1:*", "--data-dir", data_dir, "--allow-root", str(allow_root)]
        log = (OUT / "demo" / "daemon.log").open("w")
        child = subprocess.Popen(
            [sys.executable, "-m", "renderer", *command], stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            ready = child.stdout.readline().strip() if child.stdout else ""
            if not ready:
                raise SystemExit(f"the daemon did not start; see {log.name}")
            console.print(f"[dim]{ready}[/]")
            yield ready.rsplit(" ", 1)[-1]
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(timeout=30)
            log.close()


def render(client: Client, request: RenderRequest) -> Rendered:
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console) as bar:
        task = bar.add_task("frames")

        def follow(status: JobStatus) -> None:
            bar.update(task, total=status.progress.frames, completed=status.progress.frames_done)

        result = client.render(request, progress=follow)
        bar.update(task, total=result.frames, completed=result.frames)
    kept = OUT / "demo.mp4"
    shutil.copyfile(Path(result.video.url.removeprefix("file://")), kept)  # the daemon's directory goes with it
    return result.model_copy(update={"video": result.video.model_copy(update={"url": kept.absolute().as_uri()})})


def contact_sheet(video: Path, target: Path, holds: list[int]) -> None:
    """Show the first and the last frame of every hold, numbered."""
    starts = [sum(holds[:index]) for index in range(len(holds))]
    wanted = sorted({k for start, hold in zip(starts, holds, strict=True) for k in (start, start + hold - 1)})
    with av.open(str(video)) as container:
        frames = {
            k: frame.to_ndarray(format="rgb24") for k, frame in enumerate(container.decode(video=0)) if k in wanted
        }
    width, height = THUMBNAIL
    rows = -(-len(wanted) // SHEET_COLUMNS)
    sheet = Image.new("RGB", (SHEET_COLUMNS * (width + 8) + 8, rows * (height + 30) + 8), "#ffffff")
    draw = ImageDraw.Draw(sheet)
    for place, k in enumerate(wanted):
        x, y = 8 + place % SHEET_COLUMNS * (width + 8), 8 + place // SHEET_COLUMNS * (height + 30)
        sheet.paste(Image.fromarray(np.ascontiguousarray(frames[k])).resize(THUMBNAIL), (x, y))
        draw.text((x, y + height + 4), f"frame {k}, {k / 24:.2f} s", fill="#333333", font_size=14)
    sheet.save(target)


def show(result: Rendered) -> None:
    table = Table(show_header=False, box=None)
    table.add_row("video", str(OUT / "demo.mp4"))
    table.add_row("contact sheet", str(OUT / "demo.png"))
    table.add_row("frames", f"{result.frames}, {result.duration:.3f} s at {result.fps} fps")
    table.add_row("picture", f"{result.width}x{result.height}, H.264, BT.709")
    table.add_row("size", f"{result.video.file_size / 1000:.0f} kB")
    table.add_row(
        "encoder", f"{result.encoder} ({result.fallback_reason})" if result.fallback_reason else result.encoder
    )
    table.add_row("time", ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in result.timings.items()))
    console.print(table)


if __name__ == "__main__":
    main()
