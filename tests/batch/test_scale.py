"""The recipes of docs/scale.md: their commands as schedulers run them, their YAML as Kubernetes and KEDA read it."""

import copy
import os
import re
import shlex
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import kubernetes_validate
import pytest
import yaml

from renderer.batch.shard import Shard
from renderer.cli import usage
from tests import warm
from tests.batch.conftest import Tree
from tests.daemon_process import request, starting, wait_until
from tests.manifest_directory import put

DOCS = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"<!-- run by tests/batch/test_scale\.py -->\n```(\w+)\n(.*?)```", DOCS, re.DOTALL)
SCRIPT, SERVE = (code for language, code in RECIPES if language == "sh")
JOB, DEPLOYMENT, SCALED = (
    part for language, code in RECIPES if language == "yaml" for part in yaml.safe_load_all(code)
)

# Written from https://keda.sh/docs/latest/reference/scaledobject-spec and .../scalers/prometheus: packages that hold
# KEDA's own definition pass over fields that it does not have. Others than these exist; a recipe that uses one adds it.
TEXTS = ("serverAddress", "query", "threshold", "activationThreshold", "ignoreNullValues")
COUNTS = ("minReplicaCount", "maxReplicaCount", "pollingInterval", "cooldownPeriod")
ASKED = {
    "required": ["serverAddress", "query", "threshold"],
    "additionalProperties": False,
    "properties": {name: {"type": "string"} for name in TEXTS},
}
TRIGGER = {
    "required": ["type", "metadata"],
    "additionalProperties": False,
    "properties": {"type": {"const": "prometheus"}, "metadata": ASKED},
}
SPEC = {
    "scaleTargetRef": {"required": ["name"], "additionalProperties": False, "properties": {"name": {}, "kind": {}}},
    "triggers": {"minItems": 1, "items": TRIGGER},
    **{name: {"type": "integer", "minimum": 0} for name in COUNTS},
}
KEDA = {
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "keda.sh/v1alpha1"},
        "kind": {"const": "ScaledObject"},
        "metadata": {"required": ["name"]},
        "spec": {"required": ["scaleTargetRef", "triggers"], "additionalProperties": False, "properties": SPEC},
    },
}


def pod(document: dict[str, Any]) -> dict[str, Any]:
    [container] = document["spec"]["template"]["spec"]["containers"]
    return container


def here(tree: Tree, words: list[str]) -> list[str]:
    """Put the test's directories where the recipe has the reader's."""
    places = {"/shared/in": str(tree.root), "/shared/out": str(tree.out)}
    return [places.get(word, word) for word in words]


def first_and_last_shard_render_their_own(
    tree: Tree, words: list[str], count: int, tasks: list[dict[str, str]]
) -> None:
    names = {}
    for index in (0, count - 1):
        names[index] = next(name for name in map(str, range(10_000)) if Shard(index, count).has(f"{name}.json"))
        tree.manifest(names[index])
    for made, (index, variables) in enumerate(zip(names, tasks, strict=True), 1):
        ended = warm.run(here(tree, words), environment={**os.environ, **variables})
        assert (ended.returncode, f"shard {index}/{count}: 1 done" in ended.stderr) == (0, True), ended.stderr
        assert set(tree.videos()) == set(list(names.values())[:made])
    tree.check()


def test_each_task_of_the_job_array_renders_its_shard(tree: Tree) -> None:
    [(first, last)] = [(int(low), int(high)) for low, high in re.findall(r"#SBATCH --array=(\d+)-(\d+)", SCRIPT)]
    same = {"COUNT": last - first + 1, "MIN": first, "MAX": last, "STEP": 1}
    tasks = [
        {f"SLURM_ARRAY_TASK_{name}": str(number) for name, number in {**same, "ID": index}.items()}
        for index in (first, last)
    ]
    *_, line = SCRIPT.splitlines()
    start, program, *words = shlex.split(line)
    assert (start, program) == ("exec", "stillreel")
    first_and_last_shard_render_their_own(tree, words, last - first + 1, tasks)


def test_each_pod_of_the_indexed_job_renders_its_shard(tree: Tree) -> None:
    count = JOB["spec"]["completions"]
    tasks = [{"JOB_COMPLETION_INDEX": str(index)} for index in (0, count - 1)]
    first_and_last_shard_render_their_own(tree, pod(JOB)["args"], count, tasks)


def test_the_job_tries_again_what_is_not_final() -> None:
    rules = [rule for rule in JOB["spec"]["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    told = {code: rule["action"] for rule in rules for code in rule["onExitCodes"]["values"]}
    assert told == {usage.STOPPED: "Ignore", usage.FAILED: "FailIndex", usage.USAGE: "FailJob"}
    assert JOB["spec"]["backoffLimitPerIndex"] > 0, "what ends with 4 is tried again"
    assert {f"{code} " for code in (*told, usage.TRY_AGAIN)} <= set(re.findall(r"\d+ ", usage.BATCH))


@pytest.mark.parametrize("document", [JOB, DEPLOYMENT], ids=lambda document: document["kind"])
@pytest.mark.parametrize("version", ["1.33", "1.37"])
def test_kubernetes_knows_every_field(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)
    wrong = copy.deepcopy(document)
    pod(wrong)["arguments"] = pod(wrong).pop("args")
    with pytest.raises(kubernetes_validate.ValidationError, match="arguments"):
        kubernetes_validate.validate(wrong, version, strict=True)


def test_keda_knows_every_field() -> None:
    jsonschema.validate(SCALED, KEDA)
    with pytest.raises(jsonschema.ValidationError, match="maxReplicas"):
        jsonschema.validate({**SCALED, "spec": {**SCALED["spec"], "maxReplicas": 1}}, KEDA)
    assert SCALED["spec"]["scaleTargetRef"]["name"] == DEPLOYMENT["metadata"]["name"]


def test_what_keda_asks_for_is_told_by_the_deployments_daemon(tmp_path: Path) -> None:
    program, *words = shlex.split(SERVE)
    assert (program, words) == ("stillreel", pod(DEPLOYMENT)["args"])
    key, spool = tmp_path / "key", tmp_path / "spool"
    key.write_text("a-key-that-only-the-test-knows-0123456789")
    variables = {each["name"].removeprefix("STILLREEL_"): each["value"] for each in pod(DEPLOYMENT)["env"]}
    variables |= {"HTTP__KEY_FILE": str(key)}
    (tmp_path / "data").mkdir()
    with starting(tmp_path / "data") as start:
        put(spool, "film", request())
        told = [str(spool) if word == "/shared/reels" else word for word in words[1:]]
        daemon = start(*told, "--http", "127.0.0.1:0", **variables)
        wait_until((spool / "done" / "film" / "video.mp4").exists, "the manifest is rendered")
        scrape = httpx.get(f"{daemon.http}/metrics", headers={"authorization": f"Bearer {key.read_text()}"}).text
    [trigger] = SCALED["spec"]["triggers"]
    asked = re.findall(r"stillreel_\w+", trigger["metadata"]["query"])
    assert len(asked) == 2
    assert [name for name in asked if not re.search(rf"^{name} \d", scrape, re.MULTILINE)] == []
