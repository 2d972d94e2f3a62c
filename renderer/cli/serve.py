"""The commands `stillreel serve` and `stillreel doctor`: the daemon, and a check of what works on this machine."""

import json
import logging
from dataclasses import asdict
from pathlib import Path

import click

from renderer import config
from renderer.cli import terminal, usage
from renderer.cli.usage import PATH, config_option, data_dir_option, json_option, slots_option
from renderer.disk import absolute
from renderer.observe import logs


@click.command(epilog=usage.SERVE)
@click.option("--bind", metavar="ENDPOINT", help="ZeroMQ endpoint; requires CURVE keys once there are some.")
@click.option("--local", metavar="ENDPOINT", help="A second one, loopback or ipc, that never requires keys.")
@data_dir_option
@click.option(
    "--allow-root",
    "allow_roots",
    multiple=True,
    type=PATH,
    metavar="DIR",
    help="Directory that requests may read from; may be repeated.",
)
@click.option(
    "--allow-http/--no-allow-http", default=None, help="Requests may name http(s) URLs, as by default, or may not."
)
@click.option(
    "--allow-network",
    "allow_networks",
    multiple=True,
    metavar="CIDR",
    help="Network that is not public but that http(s) URLs may reach; may be repeated.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), metavar="NUMBER", help="How many jobs to render here at the same time."
)
@slots_option
@click.option("--spool", type=PATH, metavar="DIR", help="Directory into which manifests are moved.")
@click.option("--http", metavar="HOST:PORT", help="Serve HTTP and the page here.")
@click.option("--https", metavar="HOST:PORT", help="Serve HTTPS here.")
@click.option("--tls-cert", type=PATH, metavar="FILE", help="Its certificate; else that of keys --tls.")
@click.option("--tls-key", type=PATH, metavar="FILE", help="The certificate's key.")
@click.option("--metrics", metavar="HOST:PORT", help="Loopback address for Prometheus.")
@click.option("--log-format", metavar="text|json", help="The format of the log.")
@config_option
def serve(
    *,
    bind: str | None,
    local: str | None,
    data_dir: Path | None,
    allow_roots: tuple[Path, ...],
    allow_http: bool | None,
    allow_networks: tuple[str, ...],
    workers: int | None,
    slots: tuple[str, ...],
    spool: Path | None,
    http: str | None,
    https: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    metrics: str | None,
    log_format: str | None,
    config_file: Path | None,
) -> None:
    """Run the daemon; a line on stdout says when it is ready. SIGTERM or SIGHUP drains it, a second one stops it."""
    from renderer.daemon import serve as serve_until_stopped  # noqa: PLC0415 - the help of all commands stays quick

    settings = config.load(
        config_file,
        flags={
            "server": {"bind": bind, "local": local, "data_dir": data_dir},
            "fetch": {
                "allow_roots": [absolute(root, "fetch.allow_roots") for root in allow_roots] or None,
                "allow_http": allow_http,
                "allow_networks": list(allow_networks) or None,
            },
            "engine": {"workers": workers, "slots": slots or None},
            "http": {"bind": http, "tls_bind": https, "tls_cert": tls_cert, "tls_key": tls_key},
            "spool": {"directory": absolute(spool, "spool.directory") if spool else None},
            "observe": {"metrics": metrics, "log_format": log_format},
        },
    )
    logs.configure(min(logging.getLogger().level, logging.INFO), settings.observe.log_format)
    serve_until_stopped(settings, lambda line: print(line, flush=True))


@click.command(epilog=usage.DOCTOR)
@json_option
@config_option
def doctor(*, as_json: bool, config_file: Path | None) -> None:
    """Show what works on this machine, and why other things do not."""
    from renderer.cli.doctor import examine  # noqa: PLC0415 - the help of all commands stays quick

    findings = examine(config.load(config_file))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        terminal.show_findings((finding.works, finding.what, finding.found) for finding in findings)
    if not all(finding.works for finding in findings if finding.is_needed):
        raise click.exceptions.Exit(usage.FAILED)
