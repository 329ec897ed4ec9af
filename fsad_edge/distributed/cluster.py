"""Connect to a Ray cluster, or start Ray on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

from fsad_edge.errors import FsadEdgeError, InputError, needs_extra
from fsad_edge.runtime.cores import usable_cores

#: Bytes of shared memory that Ray reserves when it is started here. Only paths and counts pass
#: through it, because the workers read the images themselves.
OBJECT_STORE = 256 << 20

#: Set before Ray is imported, so that it reports no usage and shows no log. Without log
#: deduplication, Ray holds no messages back that would appear on standard output after the results.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@contextlib.contextmanager
def cluster(address: str | None) -> Iterator[Any]:
    """Yield the ``ray`` module, connected to a cluster.

    A Ray that already runs in this process is used and left running.

    Args:
        address: address of the cluster. With None, ``RAY_ADDRESS`` from the environment is used,
            which Ray sets for submitted jobs; without that, Ray is started on this machine.

    Raises:
        MissingExtraError: Ray is not installed.
        InputError: there is no cluster at ``address``.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with needs_extra("ray"):
        import pandas  # noqa: F401
        import pyarrow  # noqa: F401
        import ray
        import ray.data
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
        with _without_stderr(), _keeping_sigterm():
            if address is None:
                ray.init(
                    "local",
                    num_cpus=usable_cores(),  # Ray would count those of the machine
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE,
                    _node_ip_address="127.0.0.1",  # Ray needs no network then
                    **quiet,
                )
            else:
                ray.init(address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = "Ray could not be started here" if address is None else f"no Ray at {address}"
        raise InputError(f"{where} ({str(error).strip().splitlines()[0]}).") from error
    # Ray prints messages, such as that a worker died, on standard output, which is for results.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            yield ray
        finally:
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """Refuse an address that nothing answers at: Ray itself would wait for minutes, silently."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and port.isdigit()):
        return  # an address such as auto
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise InputError(f"no Ray at {address} ({error.strerror or error}).") from error


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Hide what Ray's C++ code prints about its own log level; failures raise exceptions."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Keep the program's own answer to SIGTERM, which Ray replaces by an exit with code 15."""
    own = signal.getsignal(signal.SIGTERM)
    yield
    if callable(own) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, own)


@contextlib.contextmanager
def worker_errors() -> Iterator[None]:
    """Unwrap the errors of workers in the block from Ray's own error types.

    Raises:
        FsadEdgeError: a worker raised it.
        InputError: a worker died several times, or the machine's memory is full.
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
                f"a worker died, and died again after a restart ({first}): the chunks written so "
                "far stay; run the same command again, with fewer --workers if memory is short."
            ) from error
        raise
