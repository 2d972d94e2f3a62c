"""The GPUs of this machine and their abilities, which are found and tested in child processes.

So neither the daemon nor `doctor` has to import NVIDIA's wheel or NumPy.
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

    Devices that are not known yet are probed. The caller makes sure that there is one.

    Args:
        uuid: the only device to test; None tests the least busy one.
    """
    seen = {"CUDA_VISIBLE_DEVICES": uuid} if uuid else {}
    command = [sys.executable, "-m", _SELFTEST]
    try:
        limit_s = 2 * settings.probe_timeout_s + settings.session_timeout_s
        done = answer(command, timeout_s=limit_s, stdin=settings.model_dump_json(), environment={**os.environ, **seen})
    except subprocess.TimeoutExpired:
        return "the self-test of held pictures did not end"
    if done.returncode:
        log.info("the self-test's last words: %s", done.stderr.strip(), extra={"action": "selftest_died"})
        return f"the self-test of held pictures ended with exit code {done.returncode}"
    told = json.loads(done.stdout.splitlines()[-1])
    return None if told is None else str(told)


def with_gpus_tested(settings: Settings) -> tuple[Settings, NvencFindings]:
    """Find the GPUs, and switch held pictures off for them if the self-test fails."""
    findings = find(settings.nvenc)
    if findings.refusal or not settings.nvenc.hold_pictures:
        return settings, findings
    refused = nvenc_refusal(settings.nvenc)
    if refused is None:
        return settings, findings
    nvenc = settings.nvenc.model_copy(update={"hold_pictures": False, "hold_pictures_refusal": refused})
    return settings.model_copy(update={"nvenc": nvenc}), findings
