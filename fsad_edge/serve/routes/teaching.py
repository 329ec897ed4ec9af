"""What the routes that teach a model share: who does it, with which image, and one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import Query, Request
from starlette.concurrency import run_in_threadpool

from fsad_edge.errors import ExamplesLostError, FsadEdgeError, ImageError, NotNormalError
from fsad_edge.learning.learner import Learner
from fsad_edge.serve.problems import ProblemError
from fsad_edge.serve.routes.route_helpers import read_images
from fsad_edge.serve.served_model import ServedModel
from fsad_edge.serve.service import Service

Who = Annotated[
    str,
    Query(min_length=1, max_length=100, description="Name of the person.", examples=["anna"]),
]

ResultId = Annotated[
    int | None, Query(ge=0, description="Id of a result with that image; no body then.")
]

#: The most characters of an image's name that are kept.
MOST_NAME = 255

T = TypeVar("T")


async def read_taught(
    service: Service, request: Request, served: ServedModel, result: int | None
) -> tuple[bytes, str | None]:
    """The image that is taught and its name: of the request's body, or of a result.

    Raises:
        ProblemError: there is none, or more than one.
        ClientGoneError: the client closed the connection.
    """
    if result is None:
        image, name = await _sent(service, request)
    else:
        image, name = await run_in_threadpool(_stored, service, served, result)
    return image, name and name[:MOST_NAME]


async def change(service: Service, served: ServedModel, act: Callable[[Learner], T]) -> T:
    """Change what a model was taught. Returns what ``act`` returns.

    Args:
        service: the service.
        served: the model.
        act: makes the change, in a thread.

    Raises:
        ProblemError: it is refused. ``force`` is true where it can be forced, and ``lost`` are the
            ids of the examples that it would lose.
    """
    loop, pool = asyncio.get_running_loop(), service.queue.pool
    try:
        async with service.teaching:
            done = await loop.run_in_executor(pool, served.teach, act)
    except ImageError as error:
        raise ProblemError(422, str(error)) from error
    except ExamplesLostError as error:
        raise ProblemError(409, str(error), force=True, lost=error.lost) from error
    except NotNormalError as error:
        raise ProblemError(409, str(error), force=True) from error
    except FsadEdgeError as error:
        raise ProblemError(409, str(error)) from error
    service.models.update_metrics(served)
    return done


async def _sent(service: Service, request: Request) -> tuple[bytes, str | None]:
    uploads = await read_images(service, request)
    if len(uploads) > 1:
        sent = " and ".join(map(str, uploads[:5]))
        raise ProblemError(400, f"{len(uploads)} images were sent ({sent}): teach one at a time.")
    return uploads[0].data, uploads[0].name


def _stored(service: Service, served: ServedModel, number: int) -> tuple[bytes, str | None]:
    record, image = service.results.get(number), service.image(number)
    data = image.read() if image is not None else None
    if record is None or data is None:
        raise ProblemError(404, "the image of that result is no longer kept.")
    if record.model != served.name:
        raise ProblemError(404, f"that result is not of model {served.name}.")
    return data, record.name
