"""Ray, found or started."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

from fsad_edge.errors import FsadEdgeError, InputError, MissingExtraError

#: Bytes of shared memory that Ray started here sets aside: paths and figures need little, images
#: out of a Parquet file stream through it.
OBJECT_STORE = 256 << 20

#: Before Ray is imported: no outside request, no log on the screen, nothing kept back of what is
#: said there, which would come on standard output after the results.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@contextlib.contextmanager
def cluster(address: str | None) -> Iterator[Any]:
    """The ``ray`` module, connected: to ``address``, or to a Ray of this machine's own.

    Ray that already runs in this process is used and left running; ``RAY_ADDRESS`` in the
    environment, which Ray sets for submitted jobs, stands for ``address``.

    Raises:
        MissingExtraError: Ray is not installed.
        InputError: there is no cluster at ``address``.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import pandas  # noqa: F401
        import pyarrow  # noqa: F401
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError(error.name or "ray", "ray") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    address = address or os.environ.get("RAY_ADDRESS")
    if address is not None:
        _check_reachable(address)
    if ray.is_initialized():
        yield ray
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        with _without_stderr():
            if address is None:
                ray.init(
                    "local",
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE,
                    _node_ip_address="127.0.0.1",  # looks for no network
                    **quiet,
                )
            else:
                ray.init(address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = "Ray could not be started here" if address is None else f"no Ray at {address}"
        raise InputError(f"{where} ({str(error).strip().splitlines()[0]}).") from error
    # What Ray has to say, of a worker that died for instance, it prints where results go.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            yield ray
        finally:
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """Ray would ask an address where nobody is for minutes, without a word."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and port.isdigit()):
        return  # such as auto
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise InputError(f"no Ray at {address} ({error.strerror or error}).") from error


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Keep what Ray's C++ says of its own log level from the user; what fails is an exception."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def sentences() -> Iterator[None]:
    """Let errors that workers raised on purpose through as themselves.

    Raises:
        FsadEdgeError: of a worker.
        InputError: a worker died again and again, or the machine's memory is full.
    """
    import ray.exceptions

    try:
        yield
    except ray.exceptions.RayError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, FsadEdgeError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if cause is not None:
            raise cause from None
        died = (
            ray.exceptions.ActorDiedError,
            ray.exceptions.ActorUnavailableError,
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.OutOfMemoryError,
            ray.exceptions.NodeDiedError,
        )
        if isinstance(error, died):
            first = str(error).strip().splitlines()[0]
            raise InputError(
                f"a worker died, and died again where it was started anew ({first}): what is "
                "written stays; run the same command again, with fewer --workers where memory is "
                "short."
            ) from error
        raise
