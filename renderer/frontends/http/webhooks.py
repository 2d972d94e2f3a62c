"""Webhooks: calls to the url that a request names, whichever door it came through, once its job has ended.

A call that is not acknowledged is repeated, after pauses that double, for about a day. The url is in the store before
the job is accepted, so neither a restart nor a kill loses a call. A kill right after a call repeats it, which receivers
recognise by the request's id.

Calls are signed with Ed25519, so receivers can verify them without a shared secret.
"""

import asyncio
import functools
import hashlib
import json
import logging
import time
from base64 import urlsafe_b64encode
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from protocol.schema import Fault, RenderResult
from renderer.config import Settings
from renderer.errors import FetchFailed, JobNotFound, StillreelError
from renderer.frontends.http.keys import secret_bytes
from renderer.frontends.http.links import Links, Tokens
from renderer.frontends.http.responses import Faults, linked
from renderer.jobs.engine import Engine
from renderer.jobs.hooks import Call, HookStore
from renderer.jobs.job import Job
from renderer.net.addresses import Guard
from renderer.net.client import CallFailed, Client, post
from renderer.net.objects import opened
from renderer.net.url import check_callee

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

log = logging.getLogger(__name__)


class Signer:
    """Signs with the key in a data directory."""

    def __init__(self, data_dir: Path) -> None:
        """Read the key, or make it.

        Raises:
            ConfigError: it can be neither read nor made.
        """
        self._secret = secret_bytes(data_dir / "webhook.secret")

    @functools.cached_property
    def _key(self) -> "Ed25519PrivateKey":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - OpenSSL's tables take memory

        return Ed25519PrivateKey.from_private_bytes(self._secret)

    def signature(self, request_id: str, user_id: str, timestamp: str, body: bytes) -> str:
        """Return the signature of a call, in hex, as the hosted service writes it."""
        words = "\n".join((request_id, user_id, timestamp, hashlib.sha256(body).hexdigest()))
        return self._key.sign(words.encode()).hex()

    def key_set(self) -> dict[str, Any]:
        """Return the public key as a JWKS (RFC 7517; RFC 8037, 2 for the type of the key)."""
        public = self._key.public_key().public_bytes_raw()
        name = hashlib.sha256(public).hexdigest()[:16]
        point = urlsafe_b64encode(public).rstrip(b"=").decode()
        return {"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": name, "x": point}]}


_LOOK_S: Final = 0.25
_AT_ONCE: Final = 16
_FAULT_PAUSE_S: Final = 60.0


class Webhooks:
    """Makes the calls that are due, on the engine's loop."""

    def __init__(self, settings: Settings, data_dir: Path, engine: Engine, hooks: HookStore) -> None:
        """Read the secrets of the data directory, or make them.

        Raises:
            ConfigError: it can be neither read nor made.
        """
        guard = Guard(settings.webhooks.allow_networks, setting="webhooks.allow_networks")
        self._settings = settings.webhooks
        self._public_url = settings.http.public_url
        self._hooks = hooks
        self._client = Client(guard, ca_file=settings.fetch.ca_file)
        self._engine = engine
        self._tokens = Tokens(data_dir)
        self._faults = Faults(settings.fetch, settings.pictures)
        self._signer = Signer(data_dir)
        self._calling: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Make calls until cancelled; the next daemon repeats those that are interrupted."""
        try:
            while True:
                self._begin_due()
                await asyncio.sleep(_LOOK_S)
        finally:
            for task in self._calling.values():
                task.cancel()
            await asyncio.gather(*self._calling.values(), return_exceptions=True)

    def _begin_due(self) -> None:
        room = _AT_ONCE - len(self._calling)
        if room <= 0:
            return
        try:
            due = self._hooks.due(time.time(), room + len(self._calling))
        except StillreelError as error:
            log.warning("webhooks: %s", error, extra={"action": "webhook_failed"})
            return
        for call in [call for call in due if call.job_id not in self._calling][:room]:
            task = asyncio.create_task(self._make(call))
            self._calling[call.job_id] = task
            task.add_done_callback(partial(self._forget, call.job_id))

    def _forget(self, job_id: str, _: asyncio.Task[None]) -> None:
        self._calling.pop(job_id, None)

    async def _make(self, call: Call) -> None:
        try:
            try:
                job, document = await self._outcome(call)
            except JobNotFound:
                self._give_up(call, call.tries, "the job has been forgotten in the meantime")
                return
            await self._post(call, job, document)
        except StillreelError as error:  # of the store; the call stays due
            log.warning("webhooks: %s", error, extra={"job": call.job_id, "action": "webhook_failed"})
            await asyncio.sleep(1)
        except Exception:
            log.exception("a webhook could not be made", extra={"job": call.job_id, "action": "webhook_failed"})
            await asyncio.sleep(_FAULT_PAUSE_S)

    async def _post(self, call: Call, job: Job, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        user, timestamp = job.client, str(int(time.time()))
        headers = {
            "user-agent": "stillreel",
            "content-type": "application/json",
            "x-fal-webhook-request-id": job.request_id,
            "x-fal-webhook-user-id": user,
            "x-fal-webhook-timestamp": timestamp,
            "x-fal-webhook-signature": self._signer.signature(job.request_id, user, timestamp, body),
        }
        try:
            # It is checked again because the settings may have changed since the request was accepted.
            check_callee(call.hook.url, self._client.guard)
            await post(self._client, call.hook.url, headers, body, self._settings.timeout_s)
        except FetchFailed as refused:
            self._give_up(call, call.tries + 1, refused.message)
        except CallFailed as failed:
            self._retry(call, str(failed))
        else:
            self._hooks.remove(job.id)
            self._engine.metrics.webhook_ended("acknowledged")
            log.info("webhook acknowledged", extra={"job": job.id, "action": "webhook"})

    def _retry(self, call: Call, why: str) -> None:
        settings = self._settings
        pause_s = min(settings.longest_pause_s, settings.first_pause_s * 2.0 ** min(call.tries, 60))
        next_at = time.time() + pause_s
        if next_at > call.ended_at + settings.give_up_s:
            self._give_up(call, call.tries + 1, why)
            return
        self._hooks.postpone(call.job_id, next_at)
        log.info(
            "webhook not acknowledged, again in %g s: %s", pause_s, why, extra={"job": call.job_id, "action": "webhook"}
        )

    def _give_up(self, call: Call, calls: int, why: str) -> None:
        self._hooks.remove(call.job_id)
        self._engine.metrics.webhook_ended("given_up")
        words = "webhook given up after %d calls: %s"
        log.warning(words, calls, why, extra={"job": call.job_id, "action": "webhook_given_up"})

    async def _outcome(self, call: Call) -> tuple[Job, dict[str, Any]]:
        """Return the job that a call is about, and the document to send.

        Raises:
            JobNotFound: the job was forgotten.
            ShuttingDown: the daemon stops.
        """
        job = await self._engine.finished(call.job_id)  # a call is due as soon as the end is written, before it is seen
        document: dict[str, Any] = {"request_id": job.request_id, "gateway_request_id": job.request_id}
        outcome = job.outcome
        if isinstance(outcome, Fault):
            payload = self._faults.body(outcome)[1]
            return job, {**document, "status": "ERROR", "error": outcome.message, "payload": payload}
        if isinstance(outcome, RenderResult):
            outcome = await opened(outcome, self._engine.render_settings)
        base = self._public_url or call.hook.base
        if base is None:
            payload = outcome.model_dump(mode="json")
        else:
            payload = linked(job, outcome, self._tokens, Links(base.rstrip("/"), base))
        return job, {**document, "status": "OK", "payload": payload}
