"""What is counted of jobs, and the state of the daemon at one moment; prometheus.py keeps the counts.

A daemon whose counts nobody can read keeps none: Prometheus' client takes 2 MB and a thirtieth of a second to import.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from protocol.schema import NodeSlots, RenderResult


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the daemon at one moment.

    Attributes:
        queued: how many jobs wait, by priority.
        oldest_queued_s: seconds since the job that waits longest was accepted; 0 if no job waits.
        outputs_bytes: size of the videos that the daemon keeps.
        uptime_s: seconds since the daemon began.
        disk_free_bytes: free space on the disk of the videos; None if that cannot be found out.
        disk_min_free_bytes: with less free space than this, no job is accepted.
        webhooks_pending: how many calls about finished jobs have not been acknowledged yet.
        spool_claims: manifests of the manifest directory that it has claimed; None without that door.
        spool_backlog: manifests that no daemon had claimed at the last look; None without that door.
        slots: where jobs may run; this machine, and the nodes that are there now.
    """

    is_ready: bool
    queued: Mapping[str, int]
    running: int
    workers: int
    outputs_bytes: int
    uptime_s: float
    oldest_queued_s: float = 0.0
    disk_free_bytes: int | None = None
    disk_min_free_bytes: int = 0
    webhooks_pending: int = 0
    spool_claims: int | None = None
    spool_backlog: int | None = None
    slots: Sequence[NodeSlots] = ()


class Metrics:
    """Keeps no counts; may be called from any thread."""

    def accepted(self, client: str) -> None:
        """Count a job that was accepted.

        Args:
            client: one of `prometheus.CLIENTS`; what follows a colon, such as a connection's identity, is left out.
        """

    def refused(self, reason: str) -> None:
        """Count a request that was refused.

        Args:
            reason: the error's type, a row of `protocol.errors`.
        """

    def ended(
        self,
        state: str,
        *,
        error_type: str | None = None,
        waited_s: float | None = None,
        took_s: float | None = None,
        result: RenderResult | None = None,
    ) -> None:
        """Count a job that has reached its last state.

        Args:
            state: one of `prometheus.STATES`.
            error_type: a row of `protocol.errors`; None for a job that is done.
            waited_s: from acceptance to the last begin; None if it never began.
            took_s: from the last begin to the end; None if it never began.
            result: what a job that is done has made.
        """

    def worker_restarted(self, reason: str) -> None:
        """Count a worker that was replaced.

        Args:
            reason: one of `prometheus.RESTARTS`.
        """

    def stills(self, found: int, coded: int) -> None:
        """Count the stills of a job that were found among those of earlier jobs, and those that had to be coded."""

    def webhook_ended(self, state: str) -> None:
        """Count a webhook that needs no further call.

        Args:
            state: one of `prometheus.WEBHOOKS`.
        """

    def manifest_ended(self, state: str) -> None:
        """Count a manifest that has ended.

        Args:
            state: one of `prometheus.MANIFESTS`.
        """

    def text(self) -> bytes:
        """Return all of it, as Prometheus reads it."""
        return b""
