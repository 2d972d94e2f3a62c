"""The metrics that Prometheus reads: counts and times of jobs, and the present state of the daemon.

Names follow https://prometheus.io/docs/practices/naming/: a prefix, base units, `_total` for what only grows. Every
label has a fixed set of values, and the rest is "other": a label that clients can fill would grow without end. All
values are there from the start, at zero, because a rate does not see the first event of a series that comes with it.
Figures about the daemon's own process have the names that every Prometheus client gives them, `process_...`.
"""

import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from protocol.errors import ERRORS
from protocol.schema import NodeSlots, RenderResult
from renderer.observe.metrics import Metrics, Snapshot
from renderer.processes import resident_below
from renderer.version import VERSION

log = logging.getLogger(__name__)

CLIENTS: Final = ("zmq", "spool", "http")
STATES: Final = ("done", "failed", "cancelled", "expired")
ENCODERS: Final = ("nvenc", "libx264")
STAGES: Final = ("stills", "stills_busy", "encode", "mux")
PRIORITIES: Final = ("normal", "low")
RESTARTS: Final = ("died", "timeout", "stalled", "cancelled", "grown")
MANIFESTS: Final = ("done", "failed")
STILLS: Final = ("yes", "no")
WEBHOOKS: Final = ("acknowledged", "given_up")

# From the work on one still to the longest job that the default limits allow; the wait for a worker may be longer.
_WORK_S: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600)
_READY: Final = "Whether a request would be accepted now: 1 or 0"
_WAIT_S: Final = (0.01, 0.1, 1, 10, 30, 100, 300, 1000, 3600, 14400, 86400)


class PrometheusMetrics(Metrics):
    """All that is counted, and the registry that it is read from."""

    def __init__(self) -> None:
        # The `_created` series would make the text half as long again, and nobody needs them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._accepted = self._counter(
            "jobs_accepted", "Jobs accepted, by the interface that they came through", client=CLIENTS
        )
        self._refused = self._counter("jobs_refused", "Requests refused, by error type", reason=ERRORS)
        self._ended = self._counter("jobs_ended", "Jobs that have ended, by their last state", state=STATES)
        self._errors = self._counter("job_errors", "Jobs that ended with an error, by its type", type=ERRORS)
        self._encoded = self._counter("jobs_encoded", "Jobs done, by encoder", encoder=ENCODERS)
        self._fallbacks = self._counter(
            "encoder_fallbacks", "Jobs encoded by the CPU because no GPU encoder was available"
        )
        self._held = self._counter("jobs_held", "Jobs whose holds were written as repeat pictures and not encoded")
        self._frames = self._counter("video_frames", "Frames in finished videos")
        self._bytes = self._counter("video_bytes", "Bytes of finished videos")
        self._stills = self._counter(
            "stills",
            "Stills looked up among those that earlier jobs have coded, by whether they were found",
            found=STILLS,
        )
        self._restarts = self._counter("worker_restarts", "Workers that had to be replaced, by reason", reason=RESTARTS)
        self._webhooks = self._counter(
            "webhooks_ended", "Webhooks that need no further call, by reason", state=WEBHOOKS
        )
        self._manifests = self._counter(
            "manifests_ended", "Manifests that have ended, by the directory that they were moved to", state=MANIFESTS
        )
        self._wait = self._histogram("queue_wait_seconds", "From acceptance to the start of the last attempt", _WAIT_S)
        self._job = self._histogram(
            "job_seconds", "From the start of the last attempt to the end, by last state", _WORK_S, state=STATES
        )
        self._stage = self._histogram("stage_seconds", "Spent in each stage of finished jobs", _WORK_S, stage=STAGES)
        Info("stillreel_build", "The version of the daemon", registry=self.registry).info({"version": VERSION})

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def watch(self, snapshot: Callable[[], Snapshot | None]) -> None:
        """Have every scrape from now on show the gauges as well; to be called once.

        Args:
            snapshot: returns None if the state is not known, and the daemon counts as not ready then. It is called on
                the thread of the scrape, so it must not read what the event loop may be changing meanwhile. Returning a
                value that the loop replaces as a whole is safe.
        """
        self.registry.register(_Gauges(snapshot))

    def watch_processes(self) -> None:
        """Show the system's figures about this process and its children as well; to be called once."""
        ProcessCollector(registry=self.registry)
        words = "Memory of the workers and their encoders; a page that several share is counted for each"
        workers = Gauge("stillreel_workers_resident_bytes", words, registry=self.registry)
        workers.set_function(lambda: resident_below(os.getpid()))

    def accepted(self, client: str) -> None:
        self._accepted.labels(_one_of(CLIENTS, client.partition(":")[0])).inc()

    def refused(self, reason: str) -> None:
        self._refused.labels(_one_of(ERRORS, reason)).inc()

    def ended(
        self,
        state: str,
        *,
        error_type: str | None = None,
        waited_s: float | None = None,
        took_s: float | None = None,
        result: RenderResult | None = None,
    ) -> None:
        state = _one_of(STATES, state)
        self._ended.labels(state).inc()
        if error_type is not None:
            self._errors.labels(_one_of(ERRORS, error_type)).inc()
        if waited_s is not None:
            self._wait.observe(max(0.0, waited_s))  # the wall clock may be set back meanwhile
        if took_s is not None:
            self._job.labels(state).observe(max(0.0, took_s))
        if result is not None:
            self._made(result)

    def worker_restarted(self, reason: str) -> None:
        self._restarts.labels(_one_of(RESTARTS, reason)).inc()

    def stills(self, found: int, coded: int) -> None:
        self._stills.labels("yes").inc(found)
        self._stills.labels("no").inc(coded)

    def webhook_ended(self, state: str) -> None:
        self._webhooks.labels(_one_of(WEBHOOKS, state)).inc()

    def manifest_ended(self, state: str) -> None:
        self._manifests.labels(_one_of(MANIFESTS, state)).inc()

    def _made(self, result: RenderResult) -> None:
        self._encoded.labels(_one_of(ENCODERS, result.encoder)).inc()
        self._fallbacks.inc(result.fallback_reason is not None)
        self._held.inc(result.held_pictures == "synthesised")
        self._frames.inc(result.frames)
        self._bytes.inc(result.video.file_size)
        for stage, seconds in result.timings.items():
            if stage != "total":
                self._stage.labels(_one_of(STAGES, stage)).observe(seconds)

    def _counter(self, name: str, words: str, **labels: Iterable[str]) -> Counter:
        counter = Counter(f"stillreel_{name}", words, tuple(labels), registry=self.registry)
        for value in _first(labels):
            counter.labels(value)
        return counter

    def _histogram(self, name: str, words: str, buckets: tuple[float, ...], **labels: Iterable[str]) -> Histogram:
        histogram = Histogram(f"stillreel_{name}", words, tuple(labels), registry=self.registry, buckets=buckets)
        for value in _first(labels):
            histogram.labels(value)
        return histogram


class _Gauges(Collector):
    """Gauges from a snapshot, which is read in each scrape; if it cannot be read, the scrape has the counts alone."""

    def __init__(self, snapshot: Callable[[], Snapshot | None]) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterable[Metric]:
        return _gauges(Snapshot(False, {}, 0, 0, 0, 0, disk_free_bytes=0, spool_claims=0, spool_backlog=0))

    def collect(self) -> Iterable[Metric]:
        try:
            now = self._snapshot()
            return _gauges(now) if now else [GaugeMetricFamily("stillreel_ready", _READY, 0.0)]
        except Exception:
            log.warning("the gauges could not be read", exc_info=True, extra={"action": "scrape_failed"})
            return ()


def _gauges(now: Snapshot) -> list[Metric]:
    queued = GaugeMetricFamily("stillreel_jobs_queued", "Jobs that are waiting, by priority", labels=["priority"])
    jobs = dict.fromkeys(PRIORITIES, 0)
    for priority, count in now.queued.items():
        jobs[_one_of(PRIORITIES, priority)] = jobs.get(_one_of(PRIORITIES, priority), 0) + count
    for priority, count in jobs.items():
        queued.add_metric([priority], count)
    single = {
        "ready": (_READY, now.is_ready),
        "jobs_running": ("Jobs that are running", now.running),
        "workers": ("Most jobs that run at once", now.workers),
        "oldest_queued_seconds": (
            "Since the longest-waiting job was accepted; 0 if no job is waiting",
            now.oldest_queued_s,
        ),
        "webhooks_pending": ("Webhooks of ended jobs that have not been acknowledged yet", now.webhooks_pending),
        "spool_claims": ("Manifests that this daemon has claimed", now.spool_claims),
        "spool_backlog": ("Manifests that no daemon has claimed yet", now.spool_backlog),
        "disk_free_bytes": ("Free space on the disk that keeps the videos", now.disk_free_bytes),
        "disk_min_free_bytes": ("With less free space than this, no job is accepted", now.disk_min_free_bytes),
        "outputs_bytes": ("Size of the videos that the daemon keeps", now.outputs_bytes),
        "uptime_seconds": ("Since the daemon was started", now.uptime_s),
    }
    known = [(name, words, float(value)) for name, (words, value) in single.items() if value is not None]
    known_families = (GaugeMetricFamily(f"stillreel_{name}", words, value) for name, words, value in known)
    return [queued, *_slots(now.slots), *known_families]


def _slots(nodes: Sequence[NodeSlots]) -> list[Metric]:
    """Return how many slots there are and how many are busy; the nodes are the operator's, and so they are few."""
    labels = ["node", "encoder"]
    slots = GaugeMetricFamily("stillreel_slots", "Most jobs that run at once, by machine and encoder", labels=labels)
    busy = GaugeMetricFamily("stillreel_slots_busy", "Jobs that run, by machine and encoder", labels=labels)
    for each in nodes:
        slots.add_metric([each.node or "local", each.encoder], each.slots)
        busy.add_metric([each.node or "local", each.encoder], each.busy)
    return [slots, busy]


def _one_of(values: Collection[str], value: str) -> str:
    return value if value in values else "other"


def _first(labels: Mapping[str, Iterable[str]]) -> Iterable[str]:
    """Return the values of the one label that a metric has, nothing if it has none."""
    return next(iter(labels.values()), ())
