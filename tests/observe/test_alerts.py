"""The alert rules and the dashboard: judged by promtool, and asking only for what a real scrape tells."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from renderer.config import Settings
from tests.daemon_process import DaemonProcess, Gate, request, starting, wait_until
from tests.manifest_directory import put

DOCS = Path(__file__).parents[2] / "docs"
RULES = DOCS / "alerts.yml"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
Promtool = Callable[..., str]

_NAME = re.compile(r"\b(?:stillreel|process)_[a-z_]+")
_MATCHER = re.compile(r'(\w+)="(\w+)"')


@pytest.fixture(scope="session")
def promtool(require: Callable[[str, object, str], None]) -> Promtool:
    """Return what runs promtool, which must find nothing wrong, and returns what it says."""
    program = shutil.which("promtool")
    require("promtool", program, "it is in Debian's package prometheus; .ci/run takes it from there")

    def run(*arguments: str | Path, text: str = "") -> str:
        done = subprocess.run(
            [str(program), *map(str, arguments)], input=text, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_promtool_takes_the_configuration_of_the_documentation(promtool: Promtool, tmp_path: Path) -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", (DOCS / "observation.md").read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / "prometheus.yml"
    file.write_text(example.replace("/etc/prometheus/stillreel-alerts.yml", str(RULES)))
    assert "1 rule files found" in promtool("check", "config", file)


def samples(text: str) -> Samples:
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}


def value(found: Samples, name: str, **labels: str) -> float:
    return found[f"stillreel_{name}", frozenset(labels.items())]


class Busy:
    """A daemon with one worker and one manifest at a time: a manifest is rendered, three wait, and so does a job.

    Its webhook goes to a port where nobody listens, and would be tried again after ten minutes.
    """

    def __init__(self, daemon: DaemonProcess, spool: Path, gate: Gate) -> None:
        self.daemon = daemon
        for number in range(3):
            put(spool, f"m{number}", gate.request())
        put(spool, "nonsense", "[")
        wait_until(lambda: gate.fetched, "the first manifest is rendered")
        body = request(webhook_url="http://127.0.0.1:9/nobody")  # the port of discard(9)
        daemon.client.submit(body)
        wait_until(lambda: value(self.scrape(), "oldest_queued_seconds") > 0, "the job is seen to wait")
        wait_until(lambda: value(self.scrape(), "spool_backlog") == 3, "the manifests are seen to wait")
        self.text = httpx.get(f"{daemon.http}/metrics").text
        self.during = samples(self.text)
        gate.open()
        wait_until(self._is_over, "all have ended, and the webhook is due", 60)
        self.after = self.scrape()

    def scrape(self) -> Samples:
        return samples(httpx.get(f"{self.daemon.http}/metrics").text)

    def _is_over(self) -> bool:
        now = self.scrape()
        states = ("done", "failed")
        ended = [value(now, "manifests_ended_total", state=state) for state in states]
        return ended == [3, 1] and value(now, "webhooks_pending") == 1 and value(now, "spool_backlog") == 0


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Busy]:
    directory, gate = tmp_path_factory.mktemp("busy"), Gate()
    settings = {"ENGINE__WORKERS": 1, "SPOOL__MAX_CLAIMS": 1, "SPOOL__RESCAN_S": 0.2, "WEBHOOKS__FIRST_PAUSE_S": 600}
    near = {"WEBHOOKS__ALLOW_NETWORKS": "127.0.0.0/8"}
    with starting(directory) as start:
        try:
            daemon = start("--http", "127.0.0.1:0", "--spool", directory / "spool", **settings, **near)
            yield Busy(daemon, directory / "spool", gate)
        finally:
            gate.close()


def test_the_scrape_tells_what_waits_and_what_the_machine_has_left(busy: Busy) -> None:
    assert 0 < value(busy.during, "oldest_queued_seconds") < 600
    assert value(busy.during, "webhooks_pending") == 0  # its job has not ended
    assert value(busy.during, "spool_claims") == 1
    free = shutil.disk_usage(busy.daemon.data_dir).free
    assert value(busy.during, "disk_free_bytes") == pytest.approx(free, rel=0.5)
    assert value(busy.during, "disk_min_free_bytes") == Settings().engine.min_free_bytes
    worker = max(process.memory_info().rss for process in busy.daemon.workers())
    assert value(busy.during, "workers_resident_bytes") > worker
    daemon = {name: busy.during[f"process_{name}", frozenset()] for name in ("resident_memory_bytes", "open_fds")}
    assert daemon["resident_memory_bytes"] > 10e6
    assert 10 < daemon["open_fds"] < busy.during["process_max_fds", frozenset()]


def test_the_scrape_tells_how_manifests_and_webhooks_have_ended(busy: Busy) -> None:
    assert value(busy.after, "manifests_ended_total", state="done") == 3
    assert value(busy.after, "manifests_ended_total", state="failed") == 1
    assert value(busy.after, "webhooks_pending") == 1
    assert value(busy.after, "oldest_queued_seconds") == 0
    assert value(busy.after, "webhooks_ended_total", state="given_up") == 0


def expressions() -> list[str]:
    """What the dashboard asks Prometheus."""
    panels = json.loads((DOCS / "dashboard.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_rules_and_dashboard_ask_for_what_a_scrape_tells(busy: Busy) -> None:
    rules = "".join(line for line in RULES.read_text().splitlines(keepends=True) if "description" not in line)
    asked = rules + "\n".join(expressions())
    names, labels = {name for name, _ in busy.during}, {pair for _, pairs in busy.during for pair in pairs}
    assert len(set(_NAME.findall(asked))) > 25
    assert set(_NAME.findall(asked)) <= names
    assert set(_MATCHER.findall(asked)) <= labels


def test_promtool_finds_nothing_to_say_about_a_scrape(busy: Busy, promtool: Promtool) -> None:
    assert promtool("check", "metrics", text=busy.text) == ""


def test_promtool_reads_the_rules_and_what_the_dashboard_asks(promtool: Promtool, tmp_path: Path) -> None:
    count = RULES.read_text().count("- alert: ")
    assert f"SUCCESS: {count} rules found" in promtool("check", "rules", RULES)
    asked = [expr.replace("$__rate_interval", "5m") for expr in expressions()]
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(asked)]
    file = tmp_path / "dashboard.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", file)


def test_the_settings_that_the_rules_advise_about_exist() -> None:
    parts = Settings.model_fields
    named = set(re.findall(r"\b([a-z]+)\.([a-z_]+)\b", RULES.read_text())) - {("error", "json")}
    assert ("retention", "outputs_bytes") in named
    assert not [(part, name) for part, name in named if name not in parts[part].annotation.model_fields]


def test_no_panel_of_the_dashboard_lies_on_another() -> None:
    panels = json.loads((DOCS / "dashboard.json").read_text())["panels"]
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)


# When they fire.

WELL = {  # what a daemon tells that has nothing to complain of, over two hours, by the minute
    "stillreel_ready": "1+0x120",
    "stillreel_build_info": "1+0x120",
    "stillreel_disk_free_bytes": "50000000000+0x120",
    "stillreel_disk_min_free_bytes": "67108864+0x120",
    "stillreel_oldest_queued_seconds": "30+0x120",
    'stillreel_queue_wait_seconds_bucket{le="100"}': "0+10x120",
    'stillreel_queue_wait_seconds_bucket{le="1000"}': "0+10x120",
    'stillreel_queue_wait_seconds_bucket{le="+Inf"}': "0+10x120",
    'stillreel_worker_restarts_total{reason="died"}': "3+0x120",
    'stillreel_job_errors_total{type="internal_error"}': "2+0x120",
    "stillreel_encoder_fallbacks_total": "0+0x120",
    'stillreel_jobs_encoded_total{encoder="nvenc"}': "0+10x120",
    'stillreel_webhooks_ended_total{state="given_up"}': "4+0x120",
    "stillreel_webhooks_pending": "5+0x120",
    "stillreel_spool_backlog": "100+0x120",
    'stillreel_manifests_ended_total{state="done"}': "0+5x120",
    'stillreel_manifests_ended_total{state="failed"}': "7+0x120",
    "stillreel_jobs_running": "1+0x120",
    "stillreel_workers": "2+0x120",
    "process_open_fds": "100+0x120",
    "process_max_fds": "1024+0x120",
    "process_resident_memory_bytes": "150000000+0x120",
}
TROUBLES: dict[str, list[dict[str, str]]] = {
    "StillreelNotReady": [{"stillreel_ready": "0+0x120"}, dict.fromkeys(WELL, "")],
    "StillreelDiskFillsUp": [{"stillreel_disk_free_bytes": "500000000+0x120"}],
    "StillreelJobWaitsLong": [{"stillreel_oldest_queued_seconds": "0+60x120"}],
    "StillreelQueueIsSlow": [{'stillreel_queue_wait_seconds_bucket{le="100"}': "0+5x120"}],
    "StillreelWorkersDie": [{'stillreel_worker_restarts_total{reason="died"}': "0+1x120"}],
    "StillreelFails": [{'stillreel_job_errors_total{type="internal_error"}': "0+0x110 1+0x10"}],
    "StillreelLosesItsGpu": [{"stillreel_encoder_fallbacks_total": "0+1x120"}],
    "StillreelWebhooksGivenUp": [{'stillreel_webhooks_ended_total{state="given_up"}': "4+0x80 5+0x40"}],
    "StillreelWebhooksPileUp": [{"stillreel_webhooks_pending": "51+0x120"}],
    "StillreelManifestsWait": [{'stillreel_manifests_ended_total{state="done"}': "50+0x120"}],
    "StillreelManifestsFail": [{'stillreel_manifests_ended_total{state="failed"}': "0+1x120"}],
    "StillreelDescriptorsRunOut": [{"process_open_fds": "900+0x120"}],
    "StillreelMemoryGrows": [{"process_resident_memory_bytes": "0+20000000x120"}],
}
HARMLESS: list[dict[str, str]] = [
    {},
    {"stillreel_ready": "1+0x100 0+0x2 1+0x20"},  # a short drain
    # A machine without GPUs has nothing to lose, and manifests wait where every worker has a long job.
    {'stillreel_jobs_encoded_total{encoder="nvenc"}': "0+0x120", "stillreel_encoder_fallbacks_total": "0+9x120"},
    {'stillreel_manifests_ended_total{state="done"}': "50+0x120", "stillreel_jobs_running": "2+0x120"},
    # Another program's process is not ours.
    {"stillreel_build_info": "", "process_resident_memory_bytes": "9000000000+0x120", "process_open_fds": "1024+0x120"},
]


def scene(number: int, trouble: dict[str, str], fires: list[str]) -> dict[str, object]:
    """What promtool is to play and to see."""
    series = {**WELL, **trouble}
    known = [
        {"series": f'{name.rstrip("}")}{"," if "{" in name else "{"}job="s",instance="i"}}', "values": values}
        for name, values in series.items()
        if values
    ]
    firing = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in fires]
    query = 'count by (alertname) (ALERTS{alertstate="firing"})'
    asked = {"expr": query, "eval_time": "115m", "exp_samples": firing}
    return {"name": f"{number}: {trouble}", "interval": "1m", "input_series": known, "promql_expr_test": [asked]}


def test_each_alert_fires_for_its_trouble_alone_and_none_without(promtool: Promtool, tmp_path: Path) -> None:
    assert list(TROUBLES) == re.findall(r"- alert: (\w+)", RULES.read_text())
    played = [(trouble, [name]) for name, troubles in TROUBLES.items() for trouble in troubles]
    played += [(harmless, []) for harmless in HARMLESS]
    scenes = [scene(number, trouble, fires) for number, (trouble, fires) in enumerate(played)]
    file = tmp_path / "scenes.yml"
    document = {"rule_files": [str(RULES)], "evaluation_interval": "5m", "tests": scenes}
    file.write_text(json.dumps(document))
    assert "SUCCESS" in promtool("test", "rules", file)
