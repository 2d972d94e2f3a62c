"""The commands `stillreel serve` and `stillreel doctor`: the daemon, and a check of what works on this machine."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from renderer import config
from renderer.cli import terminal, usage
from renderer.cli.usage import AsJson, ConfigFile
from renderer.disk import absolute
from renderer.observe import logs

app = typer.Typer()


@app.command(epilog=usage.SERVE)
def serve(
    *,
    bind: Annotated[str | None, typer.Option(help="ZeroMQ endpoint; requires CURVE keys once there are some.")] = None,
    local: Annotated[
        str | None, typer.Option(metavar="ENDPOINT", help="A second one, loopback or ipc, that never requires keys.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the daemon keeps its files.")] = None,
    allow_root: Annotated[list[Path] | None, typer.Option(help="Directory that requests may read from.")] = None,
    allow_http: Annotated[
        bool | None,
        typer.Option("--allow-http/--no-allow-http", help="Requests may name http(s) URLs, as by default."),
    ] = None,
    allow_network: Annotated[
        list[str] | None,
        typer.Option(metavar="CIDR", help="Network that is not public but that http(s) URLs may reach."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="How many jobs to render at the same time.")] = None,
    spool: Annotated[Path | None, typer.Option(metavar="DIR", help="Directory into which manifests are moved.")] = None,
    http: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Serve HTTP and the page here.")] = None,
    https: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Serve HTTPS here.")] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its certificate; else that of keys --tls.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="The certificate's key.")] = None,
    metrics: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Loopback address for Prometheus.")] = None,
    log_format: Annotated[str | None, typer.Option(metavar="text|json", help="The format of the log.")] = None,
    config_file: ConfigFile = None,
) -> None:
    """Run the daemon; a line on stdout says when it is ready. SIGTERM or SIGHUP drains it, a second one stops it."""
    from renderer.daemon import serve as serve_until_stopped  # noqa: PLC0415 - the help of all commands stays quick

    settings = config.load(
        config_file,
        flags={
            "server": {"bind": bind, "local": local, "data_dir": data_dir},
            "fetch": {
                "allow_roots": [absolute(root, "fetch.allow_roots") for root in allow_root] if allow_root else None,
                "allow_http": allow_http,
                "allow_networks": allow_network or None,
            },
            "engine": {"workers": workers},
            "http": {"bind": http, "tls_bind": https, "tls_cert": tls_cert, "tls_key": tls_key},
            "spool": {"directory": absolute(spool, "spool.directory") if spool else None},
            "observe": {"metrics": metrics, "log_format": log_format},
        },
    )
    logs.configure(min(logging.getLogger().level, logging.INFO), settings.observe.log_format)
    serve_until_stopped(settings, lambda line: print(line, flush=True))


@app.command(epilog=usage.DOCTOR)
def doctor(as_json: AsJson = False, config_file: ConfigFile = None) -> None:
    """Show what works on this machine, and why other things do not."""
    from renderer.cli.doctor import examine  # noqa: PLC0415 - the help of all commands stays quick

    findings = examine(config.load(config_file))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        terminal.show_findings((finding.works, finding.what, finding.found) for finding in findings)
    if not all(finding.works for finding in findings if finding.is_needed):
        raise typer.Exit(usage.FAILED)
