"""What the routes that teach a model share: who does it, with which image, and one at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Query, Request
from pydantic import AfterValidator
from starlette.responses import Response

from fsad_edge.errors import (
    BusyError,
    ExamplesLostError,
    FsadEdgeError,
    ImageError,
    ImageTooLargeError,
    NotNormalError,
)
from fsad_edge.learning.learner import Learner
from fsad_edge.serve.problems import ProblemError
from fsad_edge.serve.routes.route_helpers import check_parameters, client_of, read_images
from fsad_edge.serve.schemas import to_json
from fsad_edge.serve.served_model import ServedModel
from fsad_edge.serve.service import Service


def _check_name(name: str) -> str:
    """Refuse a name of which nothing is seen."""
    if not any(one.isprintable() and not one.isspace() for one in name):
        raise ValueError("give the name of the person, in letters or digits")
    return name


Who = Annotated[
    str,
    Query(min_length=1, max_length=100, description="Name of the person.", examples=["anna"]),
    AfterValidator(_check_name),
]

ResultId = Annotated[
    int | None, Query(ge=0, description="Id of a result with that image; no body then.")
]

#: The most characters of an image's name that are kept.
MOST_NAME = 255


async def read_taught(
    service: Service, request: Request, served: ServedModel, result: int | None
) -> tuple[bytes, str | None]:
    """The image that is taught and its name: of the request's body, or of a result.

    Nothing is read for a client that has too many changes that wait.

    Raises:
        ProblemError: there is none, or more than one.
        ClientGoneError: the client closed the connection.
    """
    service.teaching.check(client_of(request))
    if result is None:
        image, name = await _sent(service, request)
    else:
        find = functools.partial(stored_image, service, served, result)
        image, name = await service.lists.run(client_of(request), find)
    return image, name and name[:MOST_NAME]


async def change(
    service: Service,
    request: Request,
    served: ServedModel,
    act: Callable[[Learner], Any],
    status: int = 200,
    dry_run: bool = False,
) -> Response:
    """Change what a model was taught. The answer is the document that ``act`` returns.

    Args:
        service: the service.
        request: who asks for it.
        served: the model.
        act: makes the change, in a thread.
        status: of the answer.
        dry_run: ``act`` changes nothing.

    Raises:
        ProblemError: the address has a parameter that is not known (422), the client has too many
            changes that wait (429), or it is refused. ``force`` is true where it can be forced, and
            ``lost`` are the ids of the examples that it would lose.
        ImageTooLargeError, BusyError: there is no memory to decode an image.
    """

    check_parameters(request)

    def teach() -> bytes:
        return to_json(act(served.learner) if dry_run else served.teach(act)).encode()

    try:
        text = await service.teaching.run(client_of(request), teach)
    except (BusyError, ImageTooLargeError):
        raise  # 429 and 413, as everywhere
    except ImageError as error:
        raise ProblemError(422, str(error)) from error
    except ExamplesLostError as error:
        raise ProblemError(409, str(error), force=True, lost=error.lost) from error
    except NotNormalError as error:
        raise ProblemError(409, str(error), force=True) from error
    except FsadEdgeError as error:
        raise ProblemError(409, str(error)) from error
    service.models.update_metrics(served)
    return Response(text, status, media_type="application/json")


async def _sent(service: Service, request: Request) -> tuple[bytes, str | None]:
    uploads = await read_images(service, request)
    if len(uploads) > 1:
        sent = " and ".join(map(str, uploads[:5]))
        raise ProblemError(400, f"{len(uploads)} images were sent ({sent}): teach one at a time.")
    try:
        check = functools.partial(service.queue.check_size, uploads[0].data)
        await service.lists.run(client_of(request), check)
    except ImageError as error:
        raise ProblemError(422, str(error)) from error
    return uploads[0].data, uploads[0].name


def stored_image(service: Service, served: ServedModel, number: int) -> tuple[bytes, str | None]:
    """The image of a result and its name.

    Raises:
        ProblemError: it is no longer kept, or the result is of another model (404).
    """
    record, image = service.results.get(number), service.image(number)
    data = image.read() if image is not None else None
    if record is None or data is None:
        raise ProblemError(404, "the image of that result is no longer kept.")
    if record.model != served.name:
        raise ProblemError(404, f"that result is not of model {served.name}.")
    return data, record.name
