"""The options of the service. ``fsad-edge serve --help`` shows the same ones."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fsad_edge.errors import InputError
from fsad_edge.options import MAX_THREADS, Choice, Provider
from fsad_edge.runtime.files import read_bytes
from fsad_edge.serve.root_path import check_root_path

#: Environment variables that hold tokens, so that no command line shows them.
TOKEN_VARIABLE, WEBHOOK_TOKEN_VARIABLE = "FSAD_EDGE_TOKEN", "FSAD_EDGE_WEBHOOK_TOKEN"

#: Bytes of the largest file that a token is read from.
LARGEST_TOKEN_FILE = 1 << 16

#: Characters of the shortest token: shorter ones can be guessed.
TOKEN_LENGTH = 16

#: The lowest and the highest value of each number.
RANGES = {
    "threads": (0, MAX_THREADS),
    "queue": (0, 1024),
    "max_batch": (0, 64),
    "decoders": (0, MAX_THREADS),
    "decode_processes": (0, MAX_THREADS),
    "max_mb": (1, 1024),
    "max_megapixels": (0.01, 89.4),  # Pillow takes more for an attack
    "decode_memory_mb": (0, 1 << 20),
    "timeout": (0.1, 3600),
    "keep_mb": (0, 1 << 20),
    "publish_rate": (0, 1e6),
}

#: Most images of one client in the service, unless another number is given. Elsewhere than on a CPU
#: many are decoded at once and scored together, and each waits for less time.
QUEUE_ON_CPU, QUEUE_ELSEWHERE = 8, 64

#: From so many cores on, images are decoded in processes beside a GPU: threads of one process keep
#: no more than some cores busy, since much of the work for an image is Python's own.
MANY_CORES = 8

#: Most threads and processes for that, unless another number is given. They decode photographs of
#: 700 pixels faster than one process can answer requests.
MOST_DECODERS = 16

#: MB of memory for images, unless another number is given, and the part for what arrives and waits.
DECODE_MEMORY_MB, ENCODED_PART = 1024, 4

#: The names of this machine for itself.
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")

#: Among the allowed hosts: requests may call the service by any name.
ANY_HOST = "*"


class Publish(Choice):
    """The results that are sent to the webhook and to MQTT."""

    ALL = "all"
    NOT_GOOD = "not-good"  # anomalies, and images that are not judged


@dataclass(frozen=True)
class ServeOptions:
    """The options of :func:`fsad_edge.serve.create_app`.

    Attributes:
        token: requests must carry it as ``Authorization: Bearer TOKEN``; None asks for no token.
        allowed_hosts: the names by which requests may call the service (their ``Host`` header).
            ``*`` allows any name and needs a token. Without this check, a foreign web page whose
            name resolves to 127.0.0.1 could read results.
        root_path: the path below which a reverse proxy publishes the service, such as
            ``/inspection``; whether the proxy strips it from requests does not matter.
        provider: what runs the models.
        strict: refuse to run on the CPU in place of the GPU, or without a model file of a folder
            that has a fault.
        threads: threads of the engine for one image; 0 takes as many as this process may use.
        queue: most images of one client in the service at once; requests above that get 429.
            Several clients together have at most twice as many. 0 is 8 on a CPU and 64 elsewhere.
        max_batch: most images in one run of the engine; 0 is 1 on a CPU and 8 elsewhere. A GPU is
            prepared for the sizes 1, 2, 4 ... up to it before the service is ready.
        decoders: most images of one client that are decoded at once; 0 is 2 where the engine runs
            on the CPU, and elsewhere as many as this process may use cores, but at most
            ``MOST_DECODERS``.
        decode_processes: most processes that decode images beside the service; 0 decodes in its
            threads. None is 0 where the engine runs on the CPU or there are fewer than
            ``MANY_CORES`` cores, and elsewhere one fewer than the default of ``decoders``.
        max_mb: size limit of a request's body, and of a file of a watched folder, in MB.
        max_megapixels: size limit of an image.
        decode_memory_mb: MB of memory for all images that arrive, wait and are decoded: a quarter
            for what arrives and waits, the rest for decoding and drawing. 0 takes
            ``DECODE_MEMORY_MB``, or eight times ``max_mb`` where that is more.
        timeout: seconds within which a request's body must arrive.
        keep_mb: MB of images kept in memory for the page.
        results: folder for ``results.jsonl``; with ``watch`` it defaults to ``fsad-edge`` in each
            watched folder. Each of several watched folders has a folder of its own in it.
        watch: folders whose new images are scored, each as ``FOLDER`` or ``MODEL=FOLDER``.
        camera: number, address or GStreamer pipeline of a camera, or ``MODEL=URI``.
        webhook: address to which each result is sent by POST.
        webhook_token: bearer token for the webhook.
        mqtt: ``mqtt://HOST:1883/TOPIC`` to which each result is published.
        publish: the results that are sent to the webhook and to MQTT.
        publish_rate: most results per second for each of them; 0 sets no limit.
        mm_per_px: the millimetres that a pixel of the photographs shows, at the full resolution of
            their files, as ``0.05``, or as ``MODEL=0.05`` for one of several models. Regions are
            told in millimetres, too, then.

    Raises:
        InputError: a number is out of its range, the root path cannot be used, or the token is too
            short, or it is missing where any host name is allowed.
    """

    token: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = LOOPBACK_HOSTS
    root_path: str = ""
    provider: Provider = Provider.AUTO
    strict: bool = False
    threads: int = 0
    queue: int = 0
    max_batch: int = 0
    decoders: int = 0
    decode_processes: int | None = None
    max_mb: int = 32
    max_megapixels: float = 50.0
    decode_memory_mb: int = 0
    timeout: float = 15.0
    keep_mb: int = 64
    results: Path | None = None
    watch: tuple[str, ...] = ()
    camera: str | None = None
    webhook: str | None = None
    webhook_token: str | None = field(default=None, repr=False)
    mqtt: str | None = None
    publish: Publish = Publish.ALL
    publish_rate: float = 10.0
    mm_per_px: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, (lowest, highest) in RANGES.items():
            given = getattr(self, name)
            if given is not None and not lowest <= given <= highest:
                raise InputError(f"{name} must be from {lowest:g} to {highest:g}.")
        least = 2 * ENCODED_PART * self.max_mb  # so that a lone client may send a body of that size
        if 0 < self.decode_memory_mb < least:
            raise InputError(
                f"decode_memory_mb must be at least {2 * ENCODED_PART} times max_mb: give {least} "
                "or more."
            )
        check_root_path(self.root_path)
        if self.token is None:
            if ANY_HOST in self.allowed_hosts:
                raise InputError(
                    "a service that answers to any host name needs a token: give a token with "
                    f"--token-file or {TOKEN_VARIABLE}, or listen on 127.0.0.1."
                )
        elif (
            len(self.token) < TOKEN_LENGTH
            or not self.token.isascii()
            or any(map(str.isspace, self.token))
        ):
            raise InputError(
                f"the token must have at least {TOKEN_LENGTH} ASCII characters and no spaces: "
                "make one with  openssl rand -hex 24."
            )

    @property
    def image_memory(self) -> tuple[int, int]:
        """Bytes for images that arrive and wait, and bytes for decoding and drawing."""
        whole = self.decode_memory_mb or max(DECODE_MEMORY_MB, 8 * self.max_mb)
        encoded = (whole << 20) // ENCODED_PART
        return encoded, (whole << 20) - encoded


@dataclass(frozen=True)
class ListenOptions:
    """Where :func:`fsad_edge.serve.run_server` listens.

    Attributes:
        host: name or address.
        port: TCP port; 0 takes a free one.
        tls_cert: certificate as a PEM file; None serves plain HTTP.
        tls_key: the certificate's private key as a PEM file.
        drain: seconds in which the service ends; running requests may finish within them.
        connections: most open connections, TLS handshakes among them.
        client_connections: most of them of one client: of one address, or of one IPv6 network of 64
            bits. Behind a proxy all clients have its address.

    Raises:
        InputError: a certificate without its key, or the reverse; or a number below 1.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    tls_cert: Path | None = None
    tls_key: Path | None = None
    drain: int = 20
    connections: int = 512
    client_connections: int = 64

    def __post_init__(self) -> None:
        for name in ("drain", "connections", "client_connections"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1.")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InputError("--tls-cert and --tls-key belong together: give both.")

    @property
    def is_loopback(self) -> bool:
        """Whether the service can be reached from this machine alone."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def allowed_hosts(self, names: Iterable[str] = ()) -> tuple[str, ...]:
        """The names by which requests may call a service that listens here.

        Args:
            names: further names, such as that of a proxy.
        """
        if self.is_loopback:
            return (*LOOPBACK_HOSTS, self.host, *names)
        return tuple(names) or (ANY_HOST,)


def read_token(file: Path | None) -> str | None:
    """The service's token from a file, or from the environment where there is no file.

    Raises:
        InputError: the file cannot be read.
    """
    if file is None:
        text = os.environ.get(TOKEN_VARIABLE)
        return None if text is None else text.strip()
    data = read_bytes(file, cure="give a file that holds the token alone", most=LARGEST_TOKEN_FILE)
    try:
        return data.decode().strip()
    except UnicodeDecodeError as error:
        raise InputError(f"the token file {file} holds no text: {error}.") from error
