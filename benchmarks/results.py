"""What a run found, as it is kept in JSON under benchmarks/results/."""

import datetime as dt
import os
import platform
import statistics
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import imageio_ffmpeg
from pydantic import BaseModel, ConfigDict

from benchmarks.peers.gpu import encoding_gpus

RESULTS = Path(__file__).parent / "results"

CHOSEN = "as chosen"  # renderer's own options for x264

Colour = Literal["bt709 limited", "bt601 limited", "bt709 full", "bt601 full"]

_PACKAGES = (
    *("stillreel", "av", "imageio", "imageio-ffmpeg", "moviepy", "numpy", "opencv-python-headless", "pillow"),
    "scikit-image",
)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Machine(_Model):
    """Where and when it was measured, and with what.

    Attributes:
        gpus: those that encode, with their driver.
    """

    cpu: str
    cores: int
    memory_bytes: int
    system: str
    python: str
    ffmpeg: str
    packages: dict[str, str]
    date: str
    load_1min: float
    gpus: tuple[str, ...] = ()


class Spread(_Model):
    """Several measurements of one thing."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        return cls(median=round(statistics.median(values), 4), least=round(min(values), 4), most=round(max(values), 4))


class Video(_Model):
    """What a peer wrote, counted in the file and not asked of the peer.

    Attributes:
        is_constant_rate: all time stamps are one frame apart.
    """

    size_bytes: int
    frames: int
    frames_expected: int
    duration_s: float
    duration_expected_s: float
    is_constant_rate: bool


class Quality(_Model):
    """How near the video's pictures are to the stills; SSIM and VMAF look at luma only.

    Attributes:
        stills: of the workload were compared.
        rgb_psnr: of what a player shows, from the mean squared error over all stills, in dB.
        colour_error: by how many levels of 255 the mean of a channel is off, on average.
        edges_wrong: of the first and last frames of their holds, how many show another still, or nothing.
        colour: the matrix and range that the pictures were made with, by comparison.
        tagged: those that the file names.
    """

    stills: int
    ssim: float
    vmaf: float
    vmaf_least: float
    rgb_psnr: float | None = None
    colour_error: float | None = None
    edges: int
    edges_wrong: int
    colour: Colour
    tagged: str


class PeerResult(_Model):
    """One peer on one workload.

    Attributes:
        command: as it was run, with the folder, the interpreter and ffmpeg named in short.
        why_not: why it has no numbers; None where it has.
        wall_s: whole process, one number per round, in the order of the rounds.
        inside_s: without the start of the interpreter and its imports, where the peer can tell.
        cpu_s: processor time, user and system, of all its processes.
        faults: page faults of all its processes.
        times_ours: its wall seconds divided by ours in the same round.
        peak_process_bytes, peak_tree_bytes: memory of the largest process and of all together.
    """

    name: str
    title: str
    command: str
    why_not: str | None = None
    wall_s: tuple[float, ...] = ()
    inside_s: tuple[float, ...] = ()
    cpu_s: tuple[float, ...] = ()
    faults: tuple[int, ...] = ()
    wall: Spread | None = None
    times_ours: Spread | None = None
    peak_process_bytes: int | None = None
    peak_tree_bytes: int | None = None
    video: Video | None = None
    quality: Quality | None = None


class WorkResult(_Model):
    """All peers on one workload, run in turn."""

    name: str
    title: str
    images: int
    frames: int
    hold: int | None
    width: int
    height: int
    fps: int
    preset: str
    crf: int
    cores: int
    peers: tuple[PeerResult, ...]


class Overhead(_Model):
    """What the process, the daemon and the message add to `pipeline.render`; seconds and paired ratios.

    Attributes:
        warm_render_s: `renderer.render` in a process that has rendered before.
        ffmpeg_s: the ffmpeg command line on the same images, whole process.
        daemon_s: a client's round trip.
        daemon_inside_s: what the daemon's worker says that the same job took it.
        daemon_adds_s: the difference of the two, per job.
        render_times_ffmpeg: warm_render_s / ffmpeg_s per round.
    """

    work: str
    ffmpeg_command: str
    warm_render_s: tuple[float, ...]
    ffmpeg_s: tuple[float, ...]
    daemon_s: tuple[float, ...]
    daemon_inside_s: tuple[float, ...]
    daemon_adds_s: Spread
    render_times_ffmpeg: Spread


class Load(_Model):
    """How a daemon answers and renders while a thousand jobs wait.

    Attributes:
        loop_jobs_per_s: as many processes as the daemon has workers, each calling `render` in a loop.
        daemon_jobs_per_s: the same jobs, all submitted at once.
        daemon_times_loop: the ratio of the two, round by round.
        status_ms: a client's round trip for `status`, over all clients.
        memory_bytes: the daemon's own resident memory: when it was started, with the jobs waiting, at the end.
    """

    work: str
    workers: int
    jobs: int
    waiting: int
    clients: int
    poll_s: float
    loop_jobs_per_s: tuple[float, ...]
    daemon_jobs_per_s: tuple[float, ...]
    daemon_times_loop: Spread
    status_ms: Spread
    status_p99_ms: float
    asked: int
    memory_bytes: tuple[int, int, int]


class Coding(_Model):
    """How one set of x264's options codes one kind of held stills, beside x264 coding every frame.

    Attributes:
        cpu_s: the encoder's processor time for all stills, each coded once.
        held_cpu_s, held_bytes: the same, and the size, with every frame coded at crf 20.
        sizes: by metric, the size at which each still coded once is as good, over held_bytes.
        crfs: by metric, the crf that takes; 20 is level.
    """

    kind: str
    preset: str
    hold: int
    options: str
    stills: int
    cpu_s: float
    held_cpu_s: float
    held_bytes: int
    sizes: dict[str, float]
    crfs: dict[str, float]


class Throughput(_Model):
    """Jobs per second of a daemon's workers, and of as many ffmpegs at a time."""

    work: str
    workers: int
    jobs: int
    daemon_jobs_per_s: tuple[float, ...]
    concat_jobs_per_s: tuple[float, ...]
    accurate_jobs_per_s: tuple[float, ...]
    daemon_times_concat: Spread
    daemon_times_accurate: Spread


class Workers(_Model):
    """Jobs per second of so many workers, and of as many ffmpegs at a time, that have so many cores.

    Attributes:
        two_times_this: the rate of two workers on two cores over this one, round by round; as of ffmpeg.
    """

    work: str
    workers: int
    cores: int
    jobs_per_s: tuple[float, ...]
    cpu_s_per_job: tuple[float, ...]
    ffmpeg_jobs_per_s: tuple[float, ...]
    two_times_this: Spread
    two_times_this_ffmpeg: Spread


class Sound(_Model):
    """What a track adds to a job that has as many seconds of stills, and what coding that track costs alone.

    Attributes:
        seconds: of the track and of the video.
        floor_cpu_s: of ffmpeg's process that codes the track with libavcodec's AAC coder, and does nothing else.
        extra_times_floor_cpu: what the track adds in processor time over that of the coder, round by round.
    """

    work: str
    seconds: float
    without_cpu_s: tuple[float, ...]
    with_cpu_s: tuple[float, ...]
    floor_cpu_s: tuple[float, ...]
    with_times_without_cpu: Spread
    with_times_without_wall: Spread
    extra_times_floor_cpu: Spread


class OnRay(_Model):
    """What jobs take through a Ray cluster on this machine, beside a daemon's own workers on the same cores.

    Attributes:
        ray_times_local_s: how many times as long the jobs took through Ray, round by round.
    """

    work: str
    slots: int
    jobs: int
    local_jobs_per_s: tuple[float, ...]
    ray_jobs_per_s: tuple[float, ...]
    ray_times_local_s: Spread


class Fed(_Model):
    """How busy one daemon's loop keeps slots that sleep.

    Attributes:
        busy_share: the part of the time in which a slot had a job.
        loop_cpu_share: processor time of the whole process, over the time; 1 is a core.
    """

    slots: int
    job_s: float
    busy_share: float
    jobs_per_s: float
    loop_cpu_share: float
    cpu_ms_per_job: float


class Simulated(_Model):
    """What so many nodes would do, by a simulation with measured times.

    Attributes:
        busy_share: the jobs' own time over that of all slots, until the last has ended.
        lost: attempts that ended with their node.
        wait_p95_s: until a job begins, where jobs come one by one; None where the loop is full, and for shards.
    """

    way: str
    nodes: int
    job_s: float = 0.0
    jobs_per_s: float
    busy_share: float
    lost: int
    wait_p95_s: float | None = None


class Polling(_Model):
    """What a daemon's jobs take while clients ask over HTTP for a status, beside the same jobs alone.

    Attributes:
        cores: what the daemon and its workers may use.
        clients_share_cores: the clients run on the same ones, and take their part of them.
        asked_times_alone: jobs per second with the clients over jobs per second without, round by round.
        status_ms: a client's round trip.
        daemon_us_per_status: processor time of the daemon's own process; its work for the jobs is in it.
    """

    work: str
    workers: int
    cores: int
    clients_share_cores: bool
    jobs: int
    clients: int
    poll_s: float
    alone_jobs_per_s: tuple[float, ...]
    asked_jobs_per_s: tuple[float, ...]
    asked_times_alone: Spread
    status_ms: Spread
    status_p99_ms: float
    asked: int
    daemon_us_per_status: float


class Curve(_Model):
    """The daemon's processor time for each status: on loopback without keys, and behind CURVE; paired rounds."""

    clients: int
    poll_s: float
    round_s: float
    plain_us_per_status: tuple[float, ...]
    curve_us_per_status: tuple[float, ...]
    curve_times_plain: Spread


class Begun(_Model):
    """What something took from its start to a moment: processor time of its own process, and time on the clock."""

    cpu_s: Spread
    wall_s: Spread


class Startup(_Model):
    """What beginning costs.

    Attributes:
        first_still: `render`, until it opens its first image.
        one_still: a whole `render` of one small image.
        client_floor: an interpreter that imports the libraries of a client, zmq and pydantic, and ends.
        render_floor: the same with those of a render, numpy, cv2 and pydantic.
        daemon: until it is ready.
        daemon_idle_bytes: its own proportional memory once its worker is there.
        worker_back_ms: what a job takes longer that comes when its idle worker has just been killed.
        idle_worker_back_ms: from that kill until another worker is there, though no job comes.
    """

    version: Begun
    status: Begun
    submit: Begun
    first_still: Begun
    one_still: Begun
    client_floor: Begun
    render_floor: Begun
    daemon: Begun
    daemon_idle_bytes: Spread
    daemon_with_http: Begun
    daemon_with_http_idle_bytes: Spread
    worker_back_ms: Spread
    idle_worker_back_ms: Spread


class Report(_Model):
    """One run of the harness."""

    schema_version: Literal[1] = 1
    machine: Machine
    works: tuple[WorkResult, ...] = ()
    overhead: tuple[Overhead, ...] = ()
    under_load: Load | None = None
    throughput: Throughput | None = None
    workers: tuple[Workers, ...] = ()
    codings: tuple[Coding, ...] = ()
    sound: Sound | None = None
    on_ray: OnRay | None = None
    fed: tuple[Fed, ...] = ()
    floor_ms: float | None = None
    simulated: tuple[Simulated, ...] = ()
    polled: tuple[Polling, ...] = ()
    behind_curve: Curve | None = None
    startup: Startup | None = None

    def save(self, name: str, folder: Path = RESULTS) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{name}.json"
        file.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return file

    @classmethod
    def load(cls, file: Path) -> "Report":
        return cls.model_validate_json(file.read_text(encoding="utf-8"))


def this_machine() -> Machine:
    return Machine(
        cpu=_cpu(),
        cores=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        ffmpeg=str(imageio_ffmpeg.get_ffmpeg_version()),
        packages={name: found for name in _PACKAGES if (found := _version(name))},
        date=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        load_1min=round(os.getloadavg()[0], 2),
        gpus=encoding_gpus(),
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
