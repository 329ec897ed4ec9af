"""The Open Inference Protocol (KServe v2) over HTTP, so that a client of Triton's scores here too.

What Triton serves of the same file (``fsad-edge export --triton``) is served here under the same
names, types and shapes. Images come as the graph takes them, at the model's size.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from fsad_edge import _version
from fsad_edge.serve import schemas
from fsad_edge.serve.body import BodyReader, ClientGoneError
from fsad_edge.serve.models import ServedModel
from fsad_edge.serve.problems import ProblemError
from fsad_edge.serve.results import encode
from fsad_edge.serve.routes.common import find_model, json_response
from fsad_edge.serve.routes.scoring import GONE, refuse_full, wait_for_scores
from fsad_edge.serve.schemas import problems as documented
from fsad_edge.serve.scoring_queue import QueueFullError, Scored
from fsad_edge.serve.service import Service
from fsad_edge.serve.tensors import HEADER_LENGTH, OUTPUTS, InferRequest, read_request

#: Names of the protocol's extensions that are spoken.
EXTENSIONS = ["binary_tensor_data", "model_configuration", "parameters"]

MODEL = "/v2/models/{name}"
#: The same with a version: not in the OpenAPI document, which has each of these once.
VERSION = MODEL + "/versions/{version}"

_BINARY = {"schema": {"type": "string", "format": "binary"}}


class KServe:
    """The routes below ``/v2``."""

    def __init__(self, service: Service, reader: BodyReader) -> None:
        self._service = service
        self._reader = reader

    def install(self, app: FastAPI) -> None:
        """Add the routes to an application."""
        self._add_health(app)
        for path in (MODEL, VERSION):
            shown = path == MODEL
            for end, handler, model, summary in (
                ("", self.metadata, schemas.TensorModel, "Inputs and outputs of a model"),
                ("/config", self.config, schemas.TritonConfig, "The same as Triton tells it"),
                ("/ready", self.model_ready, schemas.ModelReady, "Whether a model may be asked"),
            ):
                app.get(
                    path + end,
                    summary=summary,
                    include_in_schema=shown,
                    responses={200: {"model": model}, **documented(404)},
                )(handler)
            app.post(
                path + "/infer",
                summary="Score images at the model's size",
                include_in_schema=shown,
                response_class=Response,
                responses={
                    200: {
                        "model": schemas.InferResponse,
                        "content": {"application/octet-stream": _BINARY},
                        "description": "Outputs as they were asked for.",
                    },
                    **documented(400, 403, 404, 408, 413, 415, 429),
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
            )(self.infer)

    def _add_health(self, app: FastAPI) -> None:
        @app.get(
            "/v2",
            summary="Who serves, and what it speaks",
            responses={200: {"model": schemas.TensorServer}, **documented()},
        )
        async def server() -> Response:
            return json_response(
                {"name": "fsad-edge", "version": _version.__version__, "extensions": EXTENSIONS}
            )

        @app.get(
            "/v2/health/live",
            summary="Whether it lives",
            responses={200: {"model": schemas.Live}, **documented(400)},
        )
        async def live() -> Response:
            if self._service.scorer.stalled:
                raise ProblemError(400, "the engine hangs: start the service anew.")
            return json_response({"live": True})

        @app.get(
            "/v2/health/ready",
            summary="Whether images should be sent here",
            responses={200: {"model": schemas.Ready}, **documented(400)},
        )
        async def ready() -> Response:
            self._check_ready()
            return json_response({"ready": True})

    def _check_ready(self) -> None:
        if self._service.draining:
            # The protocol wants a 4xx where /readyz has a 503.
            raise ProblemError(400, "it is shutting down.", ready=False)

    def _find(self, request: Request) -> ServedModel:
        served = find_model(self._service, request.path_params["name"])
        version = request.path_params.get("version", served.version)
        if version != served.version:
            raise ProblemError(404, f"model {served.name} is served as {served.version} alone.")
        return served

    async def metadata(self, name: str, request: Request) -> Response:
        served = self._find(request)
        height, width = served.model.metadata.height, served.model.metadata.width
        return json_response(
            {
                "name": served.name,
                "versions": [served.version],
                "platform": _platform(served),
                "inputs": [_tensor("image", "UINT8", [-1, height, width, 3])],
                "outputs": [_tensor(name, "FP32", [-1, *OUTPUTS[name]]) for name in OUTPUTS],
            }
        )

    async def config(self, name: str, request: Request) -> Response:
        served = self._find(request)
        height, width = served.model.metadata.height, served.model.metadata.width
        model, version = served.model, served.version
        parameters = {
            "title": model.metadata.name,
            "resize": model.metadata.resize,
            # Under the keys that a repository for Triton has.
            f"threshold_{version}": repr(model.threshold),
            f"sha256_{version}": version,
        }
        return json_response(
            {
                "name": served.name,
                "platform": _platform(served),
                "backend": "fsad-edge",
                "max_batch_size": self._service.scorer.limit,
                "input": [{"name": "image", "data_type": "TYPE_UINT8", "dims": [height, width, 3]}],
                "output": [
                    {"name": name, "data_type": "TYPE_FP32", "dims": OUTPUTS[name]}
                    for name in OUTPUTS
                ],
                "parameters": {key: {"string_value": text} for key, text in parameters.items()},
            }
        )

    async def model_ready(self, name: str, request: Request) -> Response:
        served = self._find(request)
        self._check_ready()
        return json_response({"name": served.name, "ready": True})

    async def infer(self, name: str, request: Request) -> Response:
        start = time.perf_counter()
        service = self._service
        served = self._find(request)
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise ProblemError(415, "send the body uncompressed: compressed ones are not read.")
        if service.scorer.full:
            raise refuse_full(service)  # before the body is read
        try:
            asked = await self._read(request, served)
            read = {"read": round((time.perf_counter() - start) * 1e3, 3)}
            with service.scorer.room(len(asked.images)):
                scored = await wait_for_scores(service, request, served, list(asked.images))
                await self._file(scored, asked, read)
        except ClientGoneError:
            service.metrics.abandoned.inc()
            return GONE
        except QueueFullError:
            raise refuse_full(service) from None
        return _answer(scored, asked)

    async def _read(self, request: Request, served: ServedModel) -> InferRequest:
        service, loop = self._service, asyncio.get_running_loop()
        reason = "body"
        try:
            body = await self._reader.read(request)
            reason = "tensor"
            with service.scorer.room():  # no more of them wait to be read than to be scored
                return await loop.run_in_executor(
                    service.scorer.pool,
                    read_request,
                    body,
                    request.headers.get(HEADER_LENGTH),
                    served.model.metadata,
                    service.scorer.limit,
                )
        except ProblemError as problem:
            service.metrics.refused.labels(f"{reason}_{problem.status}").inc()
            raise

    async def _file(
        self, scored: list[Scored], asked: InferRequest, read: dict[str, float]
    ) -> None:
        """Count, keep and hand on; encoded for the page alone."""
        loop, pool = asyncio.get_running_loop(), self._service.scorer.pool
        pictures = await asyncio.gather(
            *(loop.run_in_executor(pool, encode, image, "JPEG") for image in asked.images)
        )
        for result, picture in zip(scored, pictures, strict=True):
            self._service.file(result, "http", asked.id, picture, read)


def _platform(served: ServedModel) -> str:
    """By Triton's name."""
    return "tensorrt_plan" if served.model.provider == "TensorRT" else "onnxruntime_onnx"


def _tensor(name: str, kind: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": kind, "shape": shape}


def _answer(scored: list[Scored], asked: InferRequest) -> Response:
    """Outputs as they were asked for, binary ones behind the JSON document."""
    first = scored[0]
    arrays = asked.arrays([one.result for one in scored])
    outputs, tail = [], []
    for name, array in arrays.items():
        output = _tensor(name, "FP32", list(array.shape))
        if asked.outputs[name]:
            tail.append(array.astype("<f4").tobytes())
            output["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            output["data"] = array.ravel().tolist()
        outputs.append(output)
    document = {
        "model_name": first.served.name,
        "model_version": first.served.version,
        **({} if asked.id is None else {"id": asked.id}),
        "parameters": {
            "threshold": first.result.threshold,
            "map_threshold": first.result.map_threshold,
        },
        "outputs": outputs,
    }
    if not tail:
        return json_response(document)
    head = json.dumps(document).encode()
    return Response(
        b"".join([head, *tail]),
        media_type="application/octet-stream",
        headers={HEADER_LENGTH: str(len(head))},
    )
