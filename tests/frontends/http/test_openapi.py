"""Our OpenAPI document: the hosted schema's names, and a fuzzer that holds the daemon to it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from renderer.frontends.http.schema import ImagesToVideoInput
from tests.daemon_process import Start
from tests.load import IS_FULL, load
from tests.served import APP, ENDPOINT, Served

# With TEST_LOAD=full also what is at the edges of each field of each operation: some 1,600 requests.
PHASES = ("examples", "fuzzing", "stateful", *(["coverage"] if IS_FULL else []))
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


def test_the_document_has_the_hosted_schemas_names(served: Served) -> None:
    document = served.http.get("/openapi.json").json()
    assert {"ImageFrame", "ImagesToVideoInput", "ImagesToVideoOutput", "File"} <= document["components"][
        "schemas"
    ].keys()
    body = document["paths"][f"/run/{ENDPOINT}"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/ImagesToVideoInput"}
    for name, model in (
        ("merge-audio-video", "MergeAudioVideo"),
        ("extract-frame", "ExtractFrame"),
        ("metadata", "Metadata"),
    ):
        route = document["paths"][f"/queue/{APP}/{name}"]["post"]
        assert route["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith(f"/{model}Input")
        made = document["paths"][f"/run/{APP}/{name}"]["post"]["responses"]["200"]["content"]["application/json"]
        assert made["schema"]["$ref"].endswith(f"/{model}Output")
    wanted = document["components"]["schemas"]["ImagesToVideoInput"]
    assert wanted["required"] == ["images"]
    assert {"images", "fps"} <= wanted["properties"].keys()


def test_every_example_is_a_request(served: Served) -> None:
    examples = served.http.get("/openapi.json").json()["components"]["schemas"]["ImagesToVideoInput"]["examples"]
    assert [len(ImagesToVideoInput.model_validate(example).images) for example in examples] == [2]


@pytest.mark.load
def test_no_generated_request_breaks_the_server_or_the_document(start: Start, tmp_path: Path) -> None:
    daemon = start("--http", "127.0.0.1:0")
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        *("run", f"{daemon.http}/openapi.json", "--no-color", "--max-examples", f"{load(2, 8)}", "--seed", "1"),
        *("--phases", ",".join(PHASES), "--checks", ",".join(CHECKS)),
        *("--exclude-path-regex", "stream|events|doctor", "--request-timeout", "30"),
    ]
    assert shutil.which(command[0])
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    assert "Traceback" not in daemon.words()
