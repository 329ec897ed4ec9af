"""``fsad-edge serve``: score over HTTP, from a folder, from a camera."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fsad_edge.cli.console import warn
from fsad_edge.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from fsad_edge.serve.service import Service
    from fsad_edge.serve.sinks import ResultsFile

#: Where the token may stand, so that no command line shows it.
TOKEN_VARIABLE, WEBHOOK_TOKEN_VARIABLE = "FSAD_EDGE_TOKEN", "FSAD_EDGE_WEBHOOK_TOKEN"


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Files that export wrote, each as FILE or NAME=FILE, or a FOLDER of such files. "
            "Those of one graph share a session."
        ),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(help=f"File with the token that requests must carry, or {TOKEN_VARIABLE}."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Name by which a proxy on this machine passes requests on; repeatable."),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    provider: Annotated[str, typer.Option(help="auto, cpu, cuda or tensorrt.")] = "auto",
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse to run on the CPU in place of the GPU.")
    ] = False,
    threads: Annotated[int, typer.Option(min=0, help="For one image; 0: the engine's choice.")] = 0,
    queue: Annotated[
        int, typer.Option(min=1, max=1024, help="Images in the service at once; above it, 429.")
    ] = 8,
    max_batch: Annotated[
        int, typer.Option(min=0, max=64, help="Images a run; 0: 1 on a CPU, 8 elsewhere.")
    ] = 0,
    max_mb: Annotated[int, typer.Option(min=1, max=1024, help="Of a request's body.")] = 32,
    max_megapixels: Annotated[float, typer.Option(min=0.01, max=89.4, help="Of an image.")] = 50.0,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds in which a body must arrive.")
    ] = 15.0,
    drain: Annotated[
        int, typer.Option(min=1, help="Seconds for what is in flight at the end.")
    ] = 20,
    keep_mb: Annotated[int, typer.Option(min=0, help="Of images kept for the page.")] = 64,
    results: Annotated[
        Path | None, typer.Option(help="Folder for results.jsonl; DIR/fsad-edge with --watch DIR.")
    ] = None,
    watch: Annotated[
        list[str] | None,
        typer.Option(help="Folder whose new images are scored, or MODEL=FOLDER; repeatable."),
    ] = None,
    camera: Annotated[
        str | None,
        typer.Option(help="Number, address or GStreamer pipeline to score, or MODEL=URI."),
    ] = None,
    webhook: Annotated[str | None, typer.Option(help="Address to POST results to.")] = None,
    mqtt: Annotated[str | None, typer.Option(help="mqtt://HOST:1883/TOPIC for results.")] = None,
    publish: Annotated[
        str, typer.Option(help="To webhook and MQTT: all, or anomalies alone.")
    ] = "all",
    publish_rate: Annotated[
        float, typer.Option(min=0, help="Results a second to each of them; 0: no limit.")
    ] = 10.0,
) -> None:
    """Serve models: HTTP with a page, a watched folder, a camera."""
    try:
        from fsad_edge.serve import server
        from fsad_edge.serve.app import create_app
        from fsad_edge.serve.body import BodyReader
        from fsad_edge.serve.metrics import Metrics
        from fsad_edge.serve.models import Models
        from fsad_edge.serve.names import name_models
        from fsad_edge.serve.results import Results
        from fsad_edge.serve.scoring_queue import Scorer
        from fsad_edge.serve.security import Guard
        from fsad_edge.serve.service import Service
        from fsad_edge.serve.static import Page
    except ImportError as error:
        raise MissingExtraError(error.name or "fastapi", "serve") from error

    token = _token(token_file)
    hosts = _hosts(host, token, allow_host or [])
    if (tls_cert is None) != (tls_key is None):
        raise InputError("--tls-cert and --tls-key belong together: give both.")
    if publish not in {"all", "anomalies"}:
        raise InputError(f"--publish {publish}: take all or anomalies.")
    server.start_log()
    metrics = Metrics()
    loaded = Models(name_models(models), provider, threads, metrics, strict)
    for notice in dict.fromkeys(model.notice for model in loaded.loaded):
        if notice:
            warn(notice)
    on_cpu = all(model.provider == "CPUExecutionProvider" for model in loaded.loaded)
    scorer = Scorer(
        limit=queue,
        max_batch=max_batch or (1 if on_cpu else 8),
        decoders=min(2, os.cpu_count() or 1),
        max_pixels=int(max_megapixels * 1e6),
        metrics=metrics,
    )
    service = Service(loaded, scorer, Results(keep_mb << 20), metrics)
    file = _add_file(service, results, watch or [])
    _add_sources(service, file, watch or [], camera)
    _add_receivers(service, webhook, mqtt, publish_rate, publish == "anomalies")
    page = Page()
    app = create_app(service, BodyReader(max_mb << 20, timeout), page)
    guard = Guard(app, token, hosts, page.is_open, lambda: service.draining, metrics.answered)
    server.run(guard, service, server.Address(host, port, tls_cert, tls_key), timeout, drain)


def _token(file: Path | None) -> str | None:
    from fsad_edge.serve.security import TOKEN_LENGTH

    if file is None:
        source, text = TOKEN_VARIABLE, os.environ.get(TOKEN_VARIABLE)
    else:
        try:
            source, text = str(file), file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the token file {file} cannot be read: {error}.") from error
    if text is None:
        return None
    token = text.strip()
    if len(token) < TOKEN_LENGTH or not token.isascii() or any(map(str.isspace, token)):
        raise InputError(
            f"the token in {source} must be at least {TOKEN_LENGTH} ASCII characters without "
            "spaces: make one with  openssl rand -hex 24."
        )
    return token


def _hosts(host: str, token: str | None, allowed: list[str]) -> frozenset[str] | None:
    """The names that requests may call the service by; None: any."""
    from fsad_edge.serve.security import is_loopback

    if is_loopback(host):
        return frozenset({"localhost", "127.0.0.1", "::1", host.lower(), *map(str.lower, allowed)})
    if token is None:
        raise InputError(
            f"--host {host} can be reached from other machines: give a token with --token-file or "
            f"{TOKEN_VARIABLE}, or listen on 127.0.0.1."
        )
    return frozenset(map(str.lower, allowed)) if allowed else None


def _model_and(service: Service, given: str, option: str) -> tuple[str, str]:
    """``MODEL=REST``, or ``REST`` where there is one model; REST may hold an ``=`` itself."""
    name, equals, rest = given.partition("=")
    if equals and name in service.models.slots:
        return name, rest
    only = service.models.only
    if only is None:
        raise InputError(f"several models are served: say which, as in  --{option} NAME={given}.")
    return only.name, given


def _add_file(service: Service, results: Path | None, watch: list[str]) -> ResultsFile | None:
    from fsad_edge.serve.sinks import FileSink, ResultsFile

    if results is None:
        if not watch:
            return None
        results = Path(_model_and(service, watch[0], "watch")[1]) / "fsad-edge"
        if not results.parent.is_dir():
            raise InputError(f"--watch {results.parent} is not a folder.")
    file = ResultsFile(results)
    service.sinks.append(FileSink(file, service.metrics))
    return file


def _add_sources(
    service: Service, file: ResultsFile | None, watch: list[str], camera: str | None
) -> None:
    if watch and file is not None:
        from fsad_edge.serve.watch import Watch

        for given in watch:
            model, folder = _model_and(service, given, "watch")
            service.watches.append(Watch(Path(folder), file, model, service))
    if camera is not None:
        from fsad_edge.serve.camera import Camera

        model, uri = _model_and(service, camera, "camera")
        service.camera = Camera(uri, model, service)


def _add_receivers(
    service: Service, webhook: str | None, mqtt: str | None, rate: float, anomalies_only: bool
) -> None:
    from fsad_edge.serve.sinks import Mqtt, Webhook

    if webhook is not None:
        token = os.environ.get(WEBHOOK_TOKEN_VARIABLE)
        service.sinks.append(Webhook(webhook, service.metrics, rate, anomalies_only, token))
    if mqtt is not None:
        service.sinks.append(Mqtt(mqtt, service.metrics, rate, anomalies_only))
