"""``/v2``: the Open Inference Protocol (KServe v2) over HTTP, which Triton's client speaks.

The names, types and shapes are those that Triton serves from the same file (``fsad-edge
triton``). Images come as the graph takes them, at the model's size.
"""

from __future__ import annotations

import functools
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from fsad_edge import _version
from fsad_edge.runtime.documents import to_document
from fsad_edge.serve import schemas
from fsad_edge.serve.fair_shares import OWN
from fsad_edge.serve.json_pixels import STEP, write_numbers
from fsad_edge.serve.kserve_request import (
    HEADER_LENGTH,
    OUTPUTS,
    InferRequest,
    read_infer_request,
    to_binary,
)
from fsad_edge.serve.problems import ProblemError
from fsad_edge.serve.request_body import ClientGoneError
from fsad_edge.serve.result_store import encode_image
from fsad_edge.serve.routes.route_helpers import (
    GONE,
    client_of,
    engine_hangs,
    find_model,
    json_response,
    queue_full,
    wait_for_scores,
)
from fsad_edge.serve.schemas import ConfigTensor, Source, TensorMetadata, problem_responses, to_json
from fsad_edge.serve.scoring_queue import QueueFullError, ScoredImage
from fsad_edge.serve.served_model import ServedModel
from fsad_edge.serve.service import Service

#: The supported extensions of the protocol.
EXTENSIONS = ["binary_tensor_data", "model_configuration", "parameters"]

MODEL = "/v2/models/{name}"
#: The same with a version. The OpenAPI document leaves these out and has each route once.
VERSION = MODEL + "/versions/{version}"

_BINARY = {"schema": {"type": "string", "format": "binary"}}


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the routes to an application."""
    routes = KServeRoutes(service)
    add = functools.partial(_add_get, app)
    add("/v2", routes.server, schemas.ServerMetadata, "The server and its extensions")
    add("/v2/health/live", routes.live, schemas.Live, "Whether the process works", 400)
    add("/v2/health/ready", routes.ready, schemas.Ready, "Whether images may be sent here", 400)
    for path in (MODEL, VERSION):
        add(path, routes.metadata, schemas.ModelMetadata, "Inputs and outputs of a model", 404)
        add(path + "/config", routes.config, schemas.TritonConfig, "Triton's configuration", 404)
        add(path + "/ready", routes.model_ready, schemas.ModelReady, "Whether it may be asked", 404)
        app.post(
            path + "/infer",
            summary="Score images at the model's size",
            include_in_schema=path == MODEL,
            response_class=Response,
            responses={
                200: {
                    "model": schemas.InferResponse,
                    "content": {"application/octet-stream": _BINARY},
                    "description": "The requested outputs.",
                },
                **problem_responses(400, 403, 404, 408, 413, 415, 429),
            },
            openapi_extra={
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": {"type": "object"}},
                        "application/octet-stream": _BINARY,
                    },
                }
            },
        )(routes.infer)


def _add_get(
    app: FastAPI,
    path: str,
    handler: Callable[..., Awaitable[Response]],
    model: type,
    summary: str,
    *errors: int,
) -> None:
    app.get(
        path,
        summary=summary,
        include_in_schema=not path.startswith(VERSION),
        responses={200: {"model": model}, **problem_responses(*errors)},
    )(handler)


class KServeRoutes:
    """The routes below ``/v2``."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def server(self) -> Response:
        return json_response(schemas.ServerMetadata("fsad-edge", _version.__version__, EXTENSIONS))

    async def live(self) -> Response:
        if self._service.queue.stalled:
            raise engine_hangs(400)
        return json_response(schemas.Live())

    async def ready(self) -> Response:
        self._check_ready()
        if await self._service.health.run(OWN, self._service.watch_fault, "fault") is not None:
            # The protocol needs no token, so that the folder's name stays out of the answer.
            raise ProblemError(
                400,
                "a watched folder makes no progress: /v1/status tells why.",
                ready=False,
            )
        return json_response(schemas.Ready())

    async def metadata(self, name: str, request: Request) -> Response:
        served = self._find(request)
        height, width = served.model.metadata.height, served.model.metadata.width
        return json_response(
            schemas.ModelMetadata(
                name=served.name,
                versions=[served.version],
                platform=_platform(served),
                inputs=[TensorMetadata("image", "UINT8", [-1, height, width, 3])],
                outputs=[
                    TensorMetadata(output, kind.datatype, [-1, *kind.shape])
                    for output, kind in OUTPUTS.items()
                ],
            )
        )

    async def config(self, name: str, request: Request) -> Response:
        served = self._find(request)
        model, version = served.model, served.version
        height, width = model.metadata.height, model.metadata.width
        parameters = {
            "title": model.metadata.name,
            "resize": model.metadata.resize,
            # The keys are those of a repository for Triton.
            f"threshold_{version}": repr(model.threshold),
            f"judgement_{version}": json.dumps(to_document(model.metadata.judgement)),
            f"sha256_{version}": version,
        }
        return json_response(
            schemas.TritonConfig(
                name=served.name,
                platform=_platform(served),
                backend="fsad-edge",
                max_batch_size=self._service.queue.limit,
                input=[ConfigTensor("image", "TYPE_UINT8", [height, width, 3])],
                output=[
                    ConfigTensor(output, kind.triton_type, kind.shape)
                    for output, kind in OUTPUTS.items()
                ],
                parameters={key: {"string_value": text} for key, text in parameters.items()},
            )
        )

    async def model_ready(self, name: str, request: Request) -> Response:
        served = self._find(request)
        self._check_ready()
        return json_response(schemas.ModelReady(served.name))

    async def infer(self, name: str, request: Request) -> Response:
        start = time.perf_counter()
        service = self._service
        served = self._find(request)
        client = client_of(request)
        if service.queue.is_full(client):
            raise queue_full(service)  # before the body is read
        try:
            asked = await self._read(request, served)
            earlier = {"read": round((time.perf_counter() - start) * 1e3, 3)}
            with service.queue.reserve(len(asked.images), client=client):
                scored = await wait_for_scores(service, request, served, list(asked.images))
                await self._record(scored, asked, earlier, client)
        except ClientGoneError:
            service.metrics.abandoned.inc()
            return GONE
        except QueueFullError:
            raise queue_full(service) from None
        return await service.reading.run(client, lambda: _infer_response(scored, asked))

    def _check_ready(self) -> None:
        if self._service.draining:
            # The protocol wants a 4xx here, where /readyz answers 503.
            raise ProblemError(400, "the service is shutting down.", ready=False)

    def _find(self, request: Request) -> ServedModel:
        served = find_model(self._service, request.path_params["name"])
        version = request.path_params.get("version", served.version)
        if version != served.version:
            raise ProblemError(404, f"the only version of model {served.name} is {served.version}.")
        return served

    async def _read(self, request: Request, served: ServedModel) -> InferRequest:
        service, client = self._service, client_of(request)
        reason = "body"
        try:
            body = await service.bodies.read(request)
            reason = "tensor"
            read = functools.partial(
                read_infer_request,
                body,
                request.headers.get(HEADER_LENGTH),
                served.model.metadata,
                service.queue.limit,
            )
            return await service.reading.run(client, read)
        except ProblemError as problem:
            service.metrics.refused.labels(f"{reason}_{problem.status}").inc()
            raise

    async def _record(
        self, scored: list[ScoredImage], asked: InferRequest, earlier: dict[str, float], client: str
    ) -> None:
        """Record the results. The JPEGs are for the page only."""
        for one, image in zip(scored, asked.images, strict=True):
            encode = functools.partial(encode_image, image, "JPEG")
            jpeg = await self._service.answering.run(client, encode)
            self._service.record(one, Source.HTTP, asked.id, jpeg, earlier)


def _platform(served: ServedModel) -> str:
    """Triton's name for what runs the model."""
    return "tensorrt_plan" if served.model.provider.startswith("TensorRT") else "onnxruntime_onnx"


def _infer_response(scored: list[ScoredImage], asked: InferRequest) -> Response:
    """The requested outputs; binary ones follow the JSON document."""
    first = scored[0]
    outputs, binary, texts = list[schemas.InferOutput](), list[bytes](), dict[str, str]()
    arrays = asked.arrays([one.result for one in scored])
    for name, array in arrays.items():
        datatype = OUTPUTS[name].datatype
        values: dict[str, Any] = {}
        if array.size > STEP and not asked.outputs[name]:  # a long list has its place in the text
            texts[name] = secrets.token_hex(16)
            values = {"data": [texts[name]]}
        elif not asked.outputs[name]:
            values = {"data": array.ravel().tolist()}
        if asked.outputs[name]:
            binary.append(to_binary(array, datatype))
            values = {"parameters": {"binary_data_size": len(binary[-1])}}
        outputs.append(schemas.InferOutput(name, datatype, list(array.shape), **values))
    document = schemas.InferResponse(
        model_name=first.served.name,
        model_version=first.served.version,
        id=asked.id,
        parameters={
            "threshold": first.result.threshold,
            "map_threshold": first.result.map_threshold,
        },
        outputs=outputs,
    )
    text = to_json(document)
    for name, place in texts.items():
        text = text.replace(f'["{place}"]', write_numbers(arrays[name]))
    head = text.encode()
    if not binary:
        return Response(head, media_type="application/json")
    return Response(
        b"".join([head, *binary]),
        media_type="application/octet-stream",
        headers={HEADER_LENGTH: str(len(head))},
    )
