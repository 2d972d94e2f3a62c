import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from renderer.cli.doctor import Finding, _extra, _nodes, examine
from renderer.config import EncodeSettings, Settings
from renderer.jobs.slots import confinement
from renderer.jobs.slots.remote import Node
from renderer.version import VERSION


def by_name(settings: Settings) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(settings)}


def test_what_is_needed_works_here() -> None:
    findings = by_name(Settings())
    assert [name for name, finding in findings.items() if finding.is_needed and not finding.works] == []
    assert findings["ffmpeg"].found.startswith("ffmpeg version ")
    assert findings["libx264"].found.startswith("rendered 3 frames in ")


def test_each_extra_is_among_the_findings_with_its_use() -> None:
    found = by_name(Settings())
    assert {found[f"extra {name}"].works for name in ("objects", "ray", "jxl")} == {True}
    assert found["extra jxl"].found == "JPEG XL images: installed"
    missing = _extra("jxl", "no_such_package", "JPEG XL images")
    assert (missing.works, missing.is_needed) == (False, False)
    assert missing.found == "JPEG XL images: not installed; pip install 'stillreel[jxl]'"


def test_curve_is_among_the_findings() -> None:
    curve = by_name(Settings())["curve"]
    assert curve.works
    assert not curve.is_needed
    assert curve.found.startswith("ZeroMQ 4.")


def test_what_confines_workers_is_among_the_findings() -> None:
    findings = by_name(Settings())
    assert findings["no_new_privs"].found == "workers gain no rights from programs"
    assert not findings["no_new_privs"].is_needed
    assert findings["Landlock"].found == (confinement.refusal() or "confines the files of a daemon's workers")
    assert not findings["Landlock"].is_needed


def test_what_is_not_there_says_why_and_is_not_needed() -> None:
    nvenc = by_name(Settings())["nvenc"]
    assert (nvenc.works, nvenc.is_needed) == (False, False)
    assert nvenc.found


def test_a_missing_ffmpeg_is_a_finding_and_not_an_error() -> None:
    findings = by_name(Settings(encode=EncodeSettings(ffmpeg="/nowhere/ffmpeg")))
    assert not findings["ffmpeg"].works
    assert "/nowhere/ffmpeg" in findings["ffmpeg"].found
    assert not findings["libx264"].works
    assert findings["muxer"].works


@pytest.mark.logs_errors
def test_a_program_that_is_no_ffmpeg_is_found_out() -> None:
    findings = by_name(Settings(encode=EncodeSettings(ffmpeg=shutil.which("true"))))
    assert findings["ffmpeg"].found == f"{shutil.which('true')} has no libx264"
    assert not findings["libx264"].works


@pytest.mark.logs_errors
def test_an_ffmpeg_that_fails_is_found_out(tmp_path: Path) -> None:
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    findings = by_name(Settings(encode=EncodeSettings(ffmpeg=str(broken))))
    assert not findings["ffmpeg"].works
    assert not findings["libx264"].works


def test_nodes_of_a_cluster_are_listed_and_those_that_get_no_jobs_say_why() -> None:
    ours = Node("1", "alpha", "nvenc", 3, VERSION)
    other, unlabelled = replace(ours, name="beta", version="0.0.1"), replace(ours, name="gamma", version="")
    cluster, alpha, beta, gamma = _nodes([ours, other, unlabelled], is_needed=True)
    assert (cluster.works, cluster.found) == (True, "1 node with 3 slots in all")
    assert (alpha.works, alpha.found) == (True, "3 slots, nvenc")
    assert (beta.works, beta.found.rpartition(", ")[2]) == (False, "found stillreel 0.0.1")
    assert (gamma.works, gamma.found.rpartition(", ")[2]) == (False, "found no stillreel-version among its labels")
    [cluster] = _nodes([], is_needed=True)
    assert (cluster.works, cluster.found) == (False, "the cluster has no node with slots yet")
