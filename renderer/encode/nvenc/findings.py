"""The GPUs of this machine and what they may do: found, and tried, in child processes.

Neither the daemon nor `doctor` imports NVIDIA's wheel or an array for it.
"""

import json
import logging
import os
import subprocess
import sys
from typing import Final

from renderer.config import NvencSettings, Settings
from renderer.encode.nvenc.probe import find
from renderer.processes import answer
from renderer.work import NvencFindings

log = logging.getLogger(__name__)

_SELFTEST: Final = "renderer.encode.nvenc.selftest"


def nvenc_refusal(settings: NvencSettings, uuid: str | None = None) -> str | None:
    """Return why pictures of the GPU's encoder cannot be held, or None if they can.

    The devices are probed if they are not known; that there is one is for the caller to know.

    Args:
        uuid: of the only device to be tested; None for the least busy of all.
    """
    seen = {"CUDA_VISIBLE_DEVICES": uuid} if uuid else {}
    command = [sys.executable, "-m", _SELFTEST]
    try:
        limit_s = 2 * settings.probe_timeout_s + settings.session_timeout_s
        done = answer(command, timeout_s=limit_s, told=settings.model_dump_json(), environment={**os.environ, **seen})
    except subprocess.TimeoutExpired:
        return "the self-test of held pictures did not end"
    if done.returncode:
        log.info("the self-test's last words: %s", done.stderr.strip(), extra={"action": "selftest_died"})
        return f"the self-test of held pictures ended with exit code {done.returncode}"
    told = json.loads(done.stdout.splitlines()[-1])
    return None if told is None else str(told)


def with_gpus_tested(settings: Settings) -> tuple[Settings, NvencFindings]:
    """Find the GPUs, and let them hold pictures only if they do it well."""
    findings = find(settings.nvenc)
    if findings.refusal or not settings.nvenc.hold_pictures:
        return settings, findings
    refused = nvenc_refusal(settings.nvenc)
    if refused is None:
        return settings, findings
    nvenc = settings.nvenc.model_copy(update={"hold_pictures": False, "hold_pictures_refusal": refused})
    return settings.model_copy(update={"nvenc": nvenc}), findings
