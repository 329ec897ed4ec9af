"""Assemble the service: its parts, its routes and the guard around them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fastapi import FastAPI

from fsad_edge import _version
from fsad_edge.errors import InputError
from fsad_edge.options import to_choice
from fsad_edge.runtime.backends.batch_sizes import USUAL_MOST
from fsad_edge.runtime.backends.cuda import free_memory
from fsad_edge.runtime.cores import usable_cores
from fsad_edge.runtime.decode_gate import GATE
from fsad_edge.runtime.files import exists
from fsad_edge.runtime.real_scale import read_mm_per_px
from fsad_edge.serve import problems
from fsad_edge.serve.camera import Camera
from fsad_edge.serve.folder_watch import FolderWatch
from fsad_edge.serve.metrics import Metrics
from fsad_edge.serve.model_files import find_model_files
from fsad_edge.serve.model_registry import ModelRegistry
from fsad_edge.serve.options import (
    MANY_CORES,
    MOST_DECODERS,
    QUEUE_ELSEWHERE,
    QUEUE_ON_CPU,
    Publish,
    ServeOptions,
)
from fsad_edge.serve.page_files import PageFiles
from fsad_edge.serve.request_body import BodyReader
from fsad_edge.serve.result_store import ResultStore
from fsad_edge.serve.results_file import ResultsFile
from fsad_edge.serve.root_path import check_root_path
from fsad_edge.serve.routes import (
    health,
    kserve,
    learning,
    models,
    page,
    results,
    scoring,
    threshold,
    twins,
    zones,
)
from fsad_edge.serve.scoring_queue import ScoringQueue
from fsad_edge.serve.security import GuardedApp
from fsad_edge.serve.service import Service
from fsad_edge.serve.sinks import FileSink, Mqtt, Webhook
from fsad_edge.serve.watch_history import WatchHistory, find_places

log = logging.getLogger("fsad_edge.serve")

ROUTES = (scoring, results, twins, learning, threshold, zones, models, kserve, health)

ModelPaths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def create_app(models: ModelPaths, options: ServeOptions | None = None) -> GuardedApp:
    """The service as an ASGI application, for a server such as uvicorn or inside another program.

    The server's lifespan events start and stop its threads, once. A program that mounts the
    application must call ``app.service.start()`` and ``app.service.stop()`` itself.

    Args:
        models: one or several of ``FILE``, ``NAME=FILE`` and ``FOLDER``; a folder stands for
            the model files in it.
        options: the options of the service; by default it answers to this machine's own names only.

    Raises:
        FsadEdgeError: a model cannot be loaded, or an option cannot be used.

    Example:
        >>> from pathlib import Path
        >>> from starlette.testclient import TestClient
        >>> from fsad_edge.serve import ServeOptions, create_app
        >>> app = create_app(part_file, ServeOptions(token="0123456789abcdef"))
        >>> headers = {"Authorization": "Bearer 0123456789abcdef", "Content-Type": "image/png"}
        >>> image = Path(photograph).read_bytes()
        >>> with TestClient(app, base_url="http://localhost") as client:
        ...     answer = client.post("/v1/score", content=image, headers=headers)
        >>> answer.json()["results"][0]["decision"]
        'good'
    """
    options = options or ServeOptions()
    service = _make_service(models, options)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        # Its thread runs from now on: none can be started where the memory is used up.
        with ThreadPoolExecutor(1, "stop") as stopper:
            stopper.submit(int).result()
            try:
                yield
            finally:
                await asyncio.get_running_loop().run_in_executor(stopper, service.stop)

    app = FastAPI(
        title="fsad-edge",
        version=_version.__version__,
        description="Scores photographs of parts: how far each is from the good ones it knows.",
        openapi_url=None,  # a route of ours makes it once
        docs_url=None,  # these pages load scripts from other servers
        redoc_url=None,
        lifespan=lifespan,
    )
    problems.add_handlers(app)
    for routes in ROUTES:
        routes.add_routes(app, service)
    page.add_routes(app, PageFiles())
    health.add_openapi(app, service)
    root_path = check_root_path(options.root_path)
    return GuardedApp(app, service, options.token, options.allowed_hosts, root_path)


def _make_service(models: ModelPaths, options: ServeOptions) -> Service:
    encoded, GATE.memory = options.image_memory
    metrics = Metrics()
    registry = ModelRegistry(
        find_model_files(models, options.provider),
        options.provider,
        options.threads,
        metrics,
        options.strict,
        options.max_batch,
    )
    for notice in dict.fromkeys(one for model in registry.loaded for one in model.notices):
        log.warning("%s", notice)
    on_cpu = all(model.provider == "CPUExecutionProvider" for model in registry.loaded)
    if not on_cpu and (memory := free_memory()) is not None:
        log.info(
            "the GPU has %.0f of %.0f MB free, with all models prepared for their batch sizes.",
            *(size / 1e6 for size in memory),
        )
    queue = _make_queue(options, on_cpu, metrics)
    service = Service(
        models=registry,
        queue=queue,
        results=ResultStore(options.keep_mb << 20),
        metrics=metrics,
        bodies=BodyReader(options.max_mb << 20, options.timeout, encoded),
    )
    _add_scales(service, options)
    _add_sources(service, options)
    _add_receivers(service, options)
    return service


def _make_queue(options: ServeOptions, on_cpu: bool, metrics: Metrics) -> ScoringQueue:
    """The queue; the engine of a CPU needs the cores itself."""
    cores = min(MOST_DECODERS, usable_cores())
    processes = options.decode_processes
    if processes is None:
        processes = 0 if on_cpu or cores < MANY_CORES else cores - 1
    return ScoringQueue(
        limit=options.queue or (QUEUE_ON_CPU if on_cpu else QUEUE_ELSEWHERE),
        max_batch=options.max_batch or (1 if on_cpu else USUAL_MOST),
        decoders=options.decoders or (min(2, cores) if on_cpu else cores),
        processes=processes,
        overlap=not on_cpu,
        max_pixels=int(options.max_megapixels * 1e6),
        metrics=metrics,
    )


def _split_model(service: Service, given: str, option: str) -> tuple[str, str]:
    """``MODEL=REST``, or ``REST`` where there is one model. REST may contain an ``=``."""
    name, equals, rest = given.partition("=")
    if option == "watch" and exists(Path(given)):
        equals = ""  # a folder whose name has an "="
    if equals and name in service.models.faulty and name not in service.models.slots:
        raise InputError(f"--{option} {given}: {service.models.faulty[name].fault}")
    if equals and name in service.models.slots:
        return name, rest
    only = service.models.only
    if only is None:
        raise InputError(f"several models are served: name one, as in  --{option} NAME={given}.")
    return only.name, given


def _add_scales(service: Service, options: ServeOptions) -> None:
    for given in options.mm_per_px:
        model, text = _split_model(service, given, "mm-per-px")
        if model in service.scales:
            raise InputError(f"--mm-per-px is given twice for the model {model}: give it once.")
        service.scales[model] = read_mm_per_px(text)


def _add_sources(service: Service, options: ServeOptions) -> None:
    watched = [_split_model(service, given, "watch") for given in options.watch]
    places = find_places([Path(folder) for _, folder in watched], options.results)
    # What comes by HTTP or from the camera goes to --results, or else to the first watched folder.
    main = options.results or (places[0].results if places else None)
    if main is not None:
        file = ResultsFile(main)
        service.sinks.append(FileSink(file, service.metrics))
        service.restore(file)
    for (model, _), place in zip(watched, places, strict=True):
        results = file if place.results == main else ResultsFile(place.results)
        history = WatchHistory(place, results)
        service.sources.append(FolderWatch(place.folder, history, model, service))
        if place.results != main:
            service.restore(results)
    if options.camera is not None:
        model, uri = _split_model(service, options.camera, "camera")
        service.sources.append(Camera(uri, model, service))


def _add_receivers(service: Service, options: ServeOptions) -> None:
    publish = to_choice(Publish, options.publish, "choice of results to publish")
    rate, skip_good = options.publish_rate, publish is Publish.NOT_GOOD
    metrics = service.metrics
    if options.webhook is not None:
        service.sinks.append(
            Webhook(options.webhook, metrics, rate, skip_good, options.webhook_token)
        )
    if options.mqtt is not None:
        service.sinks.append(Mqtt(options.mqtt, metrics, rate, skip_good))
