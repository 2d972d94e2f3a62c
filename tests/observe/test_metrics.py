"""What is counted, read back with Prometheus's own parsers; the documentation lists exactly that."""

import json
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from protocol.errors import ERRORS
from protocol.schema import File, Health, NodeSlots, RenderResult
from renderer import render
from renderer.observe.logs import JsonFormatter, TextFormatter
from renderer.observe.metrics import Snapshot
from renderer.observe.prometheus import STAGES, PrometheusMetrics
from renderer.version import VERSION
from tests.daemon_process import request

DOCS = (Path(__file__).parents[2] / "docs" / "observation.md").read_text(encoding="utf-8")
SNAPSHOT = Snapshot(
    is_ready=True,
    queued={"normal": 3, "low": 40},
    running=2,
    workers=4,
    outputs_bytes=1 << 40,
    uptime_s=12.5,
    oldest_queued_s=90.5,
    disk_free_bytes=1 << 36,
    disk_min_free_bytes=1 << 26,
    webhooks_pending=5,
    spool_claims=7,
    spool_backlog=300,
    slots=(
        NodeSlots(node=None, encoder="libx264", slots=1, busy=1),
        NodeSlots(node="alpha", encoder="nvenc", slots=3, busy=1),
    ),
)
RESULT = RenderResult(
    video=File(url="file:///x/video.mp4", file_name="video.mp4", file_size=5000),
    frames=72,
    fps="24/1",
    duration=3.0,
    width=64,
    height=48,
    encoder="libx264",
    fallback_reason="no GPU here",
    held_pictures="synthesised",
    timings={"total": 2.0, "stills": 0.5, "encode": 1.2, "mux": 0.1},
)

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(metrics: PrometheusMetrics) -> Samples:
    """Every sample by its name and labels, as a scraper reads them."""
    text = generate_latest(metrics.registry).decode()
    found = [sample for family in parse_text(text) for sample in family.samples]
    by_name = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in found}
    assert len(by_name) == len(found)
    return by_name


def changed(metrics: PrometheusMetrics, before: Samples) -> Samples:
    """The samples that are not what they were; buckets left out."""
    now = samples(metrics)
    return {key: value for key, value in now.items() if before.get(key) != value and not key[0].endswith("_bucket")}


@pytest.fixture
def metrics() -> PrometheusMetrics:
    return PrometheusMetrics()


def test_a_job_that_is_done_is_counted_in_all_its_parts(metrics: PrometheusMetrics) -> None:
    before = samples(metrics)
    metrics.accepted("zmq:9f86d081")
    metrics.ended("done", waited_s=4.0, took_s=2.5, result=RESULT)
    assert changed(metrics, before) == {
        ("stillreel_jobs_accepted_total", (("client", "zmq"),)): 1,
        ("stillreel_jobs_ended_total", (("state", "done"),)): 1,
        ("stillreel_jobs_encoded_total", (("encoder", "libx264"),)): 1,
        ("stillreel_encoder_fallbacks_total", ()): 1,
        ("stillreel_jobs_held_total", ()): 1,
        ("stillreel_video_frames_total", ()): 72,
        ("stillreel_video_bytes_total", ()): 5000,
        ("stillreel_queue_wait_seconds_count", ()): 1,
        ("stillreel_queue_wait_seconds_sum", ()): 4.0,
        ("stillreel_job_seconds_count", (("state", "done"),)): 1,
        ("stillreel_job_seconds_sum", (("state", "done"),)): 2.5,
        ("stillreel_stage_seconds_count", (("stage", "stills"),)): 1,
        ("stillreel_stage_seconds_sum", (("stage", "stills"),)): 0.5,
        ("stillreel_stage_seconds_count", (("stage", "encode"),)): 1,
        ("stillreel_stage_seconds_sum", (("stage", "encode"),)): 1.2,
        ("stillreel_stage_seconds_count", (("stage", "mux"),)): 1,
        ("stillreel_stage_seconds_sum", (("stage", "mux"),)): 0.1,
    }


def test_a_job_that_never_began_has_no_times(metrics: PrometheusMetrics) -> None:
    before = samples(metrics)
    metrics.ended("expired", error_type="startup_timeout")
    assert changed(metrics, before) == {
        ("stillreel_jobs_ended_total", (("state", "expired"),)): 1,
        ("stillreel_job_errors_total", (("type", "startup_timeout"),)): 1,
    }


def test_refusals_and_restarts_are_counted(metrics: PrometheusMetrics) -> None:
    before = samples(metrics)
    metrics.refused("queue_full")
    metrics.worker_restarted("died")
    metrics.worker_restarted("died")
    assert changed(metrics, before) == {
        ("stillreel_jobs_refused_total", (("reason", "queue_full"),)): 1,
        ("stillreel_worker_restarts_total", (("reason", "died"),)): 2,
    }


def test_what_clients_may_choose_makes_no_series(metrics: PrometheusMetrics) -> None:
    for number in range(50):
        metrics.accepted(f"someone-{number}")
        metrics.accepted(f"zmq:{number}")
        metrics.refused(f"reason {number}")
        metrics.worker_restarted(f"reason {number}")
        metrics.webhook_ended(f"state {number}")
        metrics.manifest_ended(f"state {number}")
        result = RESULT.model_copy(update={"encoder": f"encoder {number}", "timings": {f"stage {number}": 1.0}})
        metrics.ended(f"state {number}", error_type=f"type {number}", took_s=1.0, result=result)
    values = {value for _, labels in samples(metrics) for name, value in labels if name not in {"le", "version"}}
    known = {"zmq", "spool", "http", "done", "failed", "cancelled", "expired", "nvenc", "libx264", *STAGES, *ERRORS}
    assert values == known | {"died", "timeout", "stalled", "grown", "acknowledged", "given_up", "yes", "no", "other"}
    assert samples(metrics)["stillreel_jobs_accepted_total", (("client", "other"),)] == 50
    assert samples(metrics)["stillreel_jobs_accepted_total", (("client", "zmq"),)] == 50


def test_every_series_is_there_before_anything_happens(metrics: PrometheusMetrics) -> None:
    found = samples(metrics)
    assert found["stillreel_job_errors_total", (("type", "internal_error"),)] == 0
    assert found["stillreel_stage_seconds_bucket", (("le", "+Inf"), ("stage", "mux"))] == 0
    assert found["stillreel_build_info", (("version", VERSION),)] == 1


def test_a_clock_that_was_set_back_makes_no_negative_time(metrics: PrometheusMetrics) -> None:
    metrics.ended("done", waited_s=-5.0, took_s=-1.0)
    assert samples(metrics)["stillreel_queue_wait_seconds_sum", ()] == 0
    assert samples(metrics)["stillreel_job_seconds_sum", (("state", "done"),)] == 0


def test_the_stages_of_a_real_job_have_series_of_their_own(tmp_path: Path, metrics: PrometheusMetrics) -> None:
    result = render(request(), tmp_path / "out.mp4")
    metrics.ended("done", result=result)
    found = samples(metrics)
    for stage in result.timings.keys() - {"total"}:
        assert found["stillreel_stage_seconds_count", (("stage", stage),)] == 1, (
            "add it to renderer.observe.metrics.STAGES"
        )
    assert found["stillreel_video_bytes_total", ()] == (tmp_path / "out.mp4").stat().st_size


def test_many_threads_lose_no_count(metrics: PrometheusMetrics) -> None:
    def count() -> None:
        for _ in range(500):
            metrics.ended("done", took_s=0.1, result=RESULT)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert samples(metrics)["stillreel_video_frames_total", ()] == 2000 * 72


# Gauges


def test_the_gauges_are_read_when_they_are_asked_for(metrics: PrometheusMetrics) -> None:
    standing = [SNAPSHOT]
    before = samples(metrics)
    metrics.watch(lambda: standing[0])
    assert changed(metrics, before) == {
        ("stillreel_ready", ()): 1,
        ("stillreel_jobs_queued", (("priority", "normal"),)): 3,
        ("stillreel_jobs_queued", (("priority", "low"),)): 40,
        ("stillreel_slots", (("encoder", "libx264"), ("node", "local"))): 1,
        ("stillreel_slots", (("encoder", "nvenc"), ("node", "alpha"))): 3,
        ("stillreel_slots_busy", (("encoder", "libx264"), ("node", "local"))): 1,
        ("stillreel_slots_busy", (("encoder", "nvenc"), ("node", "alpha"))): 1,
        ("stillreel_jobs_running", ()): 2,
        ("stillreel_workers", ()): 4,
        ("stillreel_oldest_queued_seconds", ()): 90.5,
        ("stillreel_webhooks_pending", ()): 5,
        ("stillreel_spool_claims", ()): 7,
        ("stillreel_spool_backlog", ()): 300,
        ("stillreel_disk_free_bytes", ()): 1 << 36,
        ("stillreel_disk_min_free_bytes", ()): 1 << 26,
        ("stillreel_outputs_bytes", ()): 1 << 40,
        ("stillreel_uptime_seconds", ()): 12.5,
    }
    standing[0] = Snapshot(
        is_ready=False, queued={"odd": 1, "odder": 2}, running=0, workers=4, outputs_bytes=0, uptime_s=13.0
    )
    now = samples(metrics)
    assert now["stillreel_ready", ()] == 0
    assert now["stillreel_jobs_queued", (("priority", "other"),)] == 3
    assert now["stillreel_jobs_queued", (("priority", "normal"),)] == 0
    gone = {"stillreel_spool_claims", "stillreel_spool_backlog", "stillreel_disk_free_bytes"}
    assert not gone & {name for name, _ in now}  # there is no such door, and nobody knows the disk


def test_a_snapshot_that_fails_costs_the_gauges_and_a_log_line(
    metrics: PrometheusMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Snapshot:
        raise RuntimeError("dictionary changed size during iteration")

    metrics.watch(fail)
    metrics.accepted("spool")
    found = samples(metrics)
    assert found["stillreel_jobs_accepted_total", (("client", "spool"),)] == 1
    assert ("stillreel_ready", ()) not in found
    [line] = caplog.records
    assert (line.getMessage(), line.levelno) == ("the gauges could not be read", logging.WARNING)


def test_where_nobody_knows_how_the_daemon_stands_it_is_not_ready(metrics: PrometheusMetrics) -> None:
    metrics.watch(lambda: None)
    found = samples(metrics)
    assert found["stillreel_ready", ()] == 0
    assert ("stillreel_jobs_running", ()) not in found


# Both formats, and the documentation


def families(metrics: PrometheusMetrics) -> Iterator[tuple[str, str, str, str]]:
    """Name as it is queried, type, labels and words of every metric."""
    for family in metrics.registry.collect():
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        yield family.name + suffix, family.type, ", ".join(sorted(labels)), family.documentation


def test_names_follow_the_conventions(metrics: PrometheusMetrics) -> None:
    metrics.watch(lambda: SNAPSHOT)
    metrics.watch_processes()
    for name, kind, _, words in families(metrics):
        if name.startswith("process_"):  # every Prometheus client's
            continue
        assert re.fullmatch(r"stillreel_[a-z]+(_[a-z]+)*", name)
        assert name.endswith("_total") == (kind == "counter")
        assert kind != "histogram" or name.endswith("_seconds")
        assert words


def test_openmetrics_reads_it_too(metrics: PrometheusMetrics) -> None:
    metrics.watch(lambda: SNAPSHOT)
    metrics.ended("done", waited_s=4.0, took_s=2.5, result=RESULT)
    found = list(parse_openmetrics(generate_openmetrics(metrics.registry).decode()))
    assert {family.name for family in found} == {family.name for family in metrics.registry.collect()}
    assert not [sample for family in found for sample in family.samples if sample.name.endswith("_created")]


def test_the_documentation_lists_every_metric(metrics: PrometheusMetrics) -> None:
    metrics.watch(lambda: SNAPSHOT)
    metrics.watch_processes()
    expected = [
        f"| `{name}` | {kind} | {labels} | {words} |".replace("  ", " ")
        for name, kind, labels, words in families(metrics)
    ]
    listed = [line for line in DOCS.splitlines() if line.startswith(("| `stillreel_", "| `process_"))]
    assert listed == expected, "docs/observation.md should say:\n" + "\n".join(expected)


def test_the_documentation_lists_the_fields_of_health() -> None:
    listed = re.findall(r"^\| `(\w+)` \| [^|]+ \|$", DOCS, re.MULTILINE)
    assert listed == list(Health.model_fields)


def test_the_lines_that_the_documentation_shows_are_real() -> None:
    fields = {
        "name": "renderer.jobs.outcome",
        "levelno": logging.INFO,
        "levelname": "INFO",
        "msg": "done in %.3f s",
        "args": (0.412,),
        "created": 1795395723.456,
        "job": "ab12",
        "action": "done",
    }
    line = logging.makeLogRecord(fields)
    assert f"\n{TextFormatter().format(line)}\n" in DOCS
    assert f"\n{JsonFormatter().format(line)}\n" in DOCS
    assert json.loads(JsonFormatter().format(line))["job"] == "ab12"
