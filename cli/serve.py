"""``fsad-edge serve``: score over HTTP, from a folder, from a camera."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from fsad_edge import serve as service
from fsad_edge.cli.shared_options import RunsOn, Threads
from fsad_edge.cli.unused_options import given
from fsad_edge.options import MAX_THREADS, Provider
from fsad_edge.runtime.plain_text import PlainFormatter
from fsad_edge.serve.options import TOKEN_VARIABLE, WEBHOOK_TOKEN_VARIABLE, Publish, read_token


def serve(
    context: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Model files, each as FILE or NAME=FILE, or a FOLDER of model files; by default "
            "those in the current folder.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the token that requests must carry; by default it is taken from "
            f"{TOKEN_VARIABLE} in the environment."
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Host name by which requests may call the service, such as that of a proxy; "
            "repeatable."
        ),
    ] = None,
    root_path: Annotated[
        str,
        typer.Option(
            help="Path below which a reverse proxy publishes the service, such as /inspection; "
            "the proxy may strip it from requests or not.",
            show_default=False,
        ),
    ] = "",
    tls_cert: Annotated[Path | None, typer.Option(help="TLS certificate, a PEM file.")] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="Key of the certificate, a PEM file.")
    ] = None,
    provider: RunsOn = Provider.AUTO,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Refuse to run on the CPU in place of the GPU, or without a model file of a "
            "FOLDER that has a fault.",
        ),
    ] = False,
    threads: Threads = 0,
    queue: Annotated[
        int,
        typer.Option(
            min=0,
            max=1024,
            help="Most images of one client in the service; more are refused with 429. 0 is 8 on a "
            "CPU, 64 elsewhere.",
        ),
    ] = 0,
    max_batch: Annotated[
        int,
        typer.Option(
            min=0,
            max=64,
            help="Most images in one run of the engine; 0 is 1 on a CPU, 8 elsewhere. A GPU is "
            "prepared for the sizes 1, 2, 4 ... up to it, and keeps memory for each.",
        ),
    ] = 0,
    decoders: Annotated[
        int,
        typer.Option(
            min=0,
            max=MAX_THREADS,
            help="Most images of one client that are decoded at once; 0 is 2 where the engine runs "
            "on the CPU, and elsewhere as many as there are cores, up to 16.",
        ),
    ] = 0,
    decode_processes: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MAX_THREADS,
            help="Most processes that decode images beside the service; 0 decodes in its threads. "
            "By default 0 on a CPU or with few cores, elsewhere one for each core but one.",
            show_default=False,
        ),
    ] = None,
    max_mb: Annotated[
        int,
        typer.Option(
            min=1,
            max=1024,
            help="Size limit of a request's body, and of a file of a watched folder, in MB.",
        ),
    ] = 32,
    max_megapixels: Annotated[
        float, typer.Option(min=0.01, max=89.4, help="Size limit of an image in megapixels.")
    ] = 50.0,
    decode_memory_mb: Annotated[
        int,
        typer.Option(
            min=0,
            help="MB of memory for images that arrive, wait and are decoded; 0 is 1024, or eight "
            "times --max-mb where that is more.",
        ),
    ] = 0,
    timeout: Annotated[
        float,
        typer.Option(min=0.1, max=3600, help="Seconds in which a request's body must arrive."),
    ] = 15.0,
    drain: Annotated[
        int,
        typer.Option(
            min=1,
            max=3600,
            help="Seconds in which the service ends; running requests may finish in them.",
        ),
    ] = 20,
    connections: Annotated[
        int, typer.Option(min=1, help="Most open connections, TLS handshakes among them.")
    ] = 512,
    client_connections: Annotated[
        int,
        typer.Option(
            min=1,
            help="Most of them of one client (address). Behind a proxy all clients have its "
            "address: give as many as --connections.",
        ),
    ] = 64,
    keep_mb: Annotated[
        int, typer.Option(min=0, max=1 << 20, help="MB of images kept in memory for the page.")
    ] = 64,
    results: Annotated[
        Path | None,
        typer.Option(help="Folder for results.jsonl; by default fsad-edge in each watched folder."),
    ] = None,
    watch: Annotated[
        list[str] | None,
        typer.Option(help="Folder whose new images are scored, or MODEL=FOLDER; repeatable."),
    ] = None,
    camera: Annotated[
        str | None,
        typer.Option(
            help="Number, address or GStreamer pipeline of a camera to score, or MODEL=URI."
        ),
    ] = None,
    webhook: Annotated[
        str | None, typer.Option(help="Address to which each result is sent by POST.")
    ] = None,
    mqtt: Annotated[
        str | None, typer.Option(help="mqtt://HOST:1883/TOPIC to which each result is published.")
    ] = None,
    publish: Annotated[
        Publish,
        typer.Option(
            help="Results that are sent to the webhook and to MQTT; not-good: anomalies and images "
            "that are not judged."
        ),
    ] = Publish.ALL,
    publish_rate: Annotated[
        float,
        typer.Option(
            min=0, max=1e6, help="Most results per second for each of them; 0 is no limit."
        ),
    ] = 10.0,
    mm_per_px: Annotated[
        list[str] | None,
        typer.Option(
            help="Millimetres that a pixel of the photographs shows, or MODEL=MILLIMETRES; "
            "repeatable. Results tell regions in millimetres, too, then. They are where the heat "
            "map is above the threshold; the defect itself is mostly smaller."
        ),
    ] = None,
) -> None:
    """Serve models over HTTP, with a page.

    Watched folders and a camera are scored too.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # also while the models are loaded
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in ("publish", "publish_rate"):  # a service starts all the same
        if (option := given(context, name)) and webhook is None and mqtt is None:
            logging.warning("%s changes nothing: it is for --webhook and --mqtt", option)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    listen = service.ListenOptions(
        host, port, tls_cert, tls_key, drain, connections, client_connections
    )
    options = service.ServeOptions(
        token=read_token(token_file),
        allowed_hosts=listen.allowed_hosts(allow_host or ()),
        root_path=root_path,
        provider=provider,
        strict=strict,
        threads=threads,
        queue=queue,
        max_batch=max_batch,
        decoders=decoders,
        decode_processes=decode_processes,
        max_mb=max_mb,
        max_megapixels=max_megapixels,
        decode_memory_mb=decode_memory_mb,
        timeout=timeout,
        keep_mb=keep_mb,
        results=results,
        watch=tuple(watch or ()),
        camera=camera,
        webhook=webhook,
        webhook_token=os.environ.get(WEBHOOK_TOKEN_VARIABLE),
        mqtt=mqtt,
        publish=publish,
        publish_rate=publish_rate,
        mm_per_px=tuple(mm_per_px or ()),
    )
    with service.take_address(listen) as listener:  # one that is taken ends this at once
        service.run_server(service.create_app(models or ".", options), listen, listener)
