"""Pretrained encoders from timm, cut off after the last feature map that is used.

timm's feature getter removes the layers behind it, so that they are neither trained, stored nor
shipped.
"""

from __future__ import annotations

import contextlib
import json
import socket
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import safetensors.torch
import timm
import torch
from huggingface_hub import constants
from timm.models import load_model_config_from_hf
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

import fsad_edge.training.edge_encoder  # noqa: F401  (timm knows the bundled encoders from here)
from fsad_edge.errors import InputError, ModelFileError, WeightsError
from fsad_edge.options import BundledEncoder
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.documents import shorten
from fsad_edge.runtime.encoder_names import WHOLE_ENCODER, bundled_name
from fsad_edge.runtime.files import exists, is_file, is_folder, read_bytes, sha256
from fsad_edge.scoring.encoder_spec import EncoderSpec, check_size, check_weights_file, map_indices
from fsad_edge.scoring.tiles import is_tiled, tile_size
from fsad_edge.training.full_depth import FullDepthNet, has_full_depth
from fsad_edge.training.tiles import in_tiles

#: timm's name for the fast one of the encoders inside the package.
BUNDLED = bundled_name(BundledEncoder.FAST)

#: The most characters of another library's reason in a message.
LONGEST_REASON = 200

#: Bytes of the largest configuration of a timm model folder.
LARGEST_CONFIG = 1 << 20


class Encoder(nn.Module):
    """A network that gives one map of patch features.

    Attributes:
        spec: how it was built.
        channels: channels of the map, D.
        embedding_channels: length of the embedding of the whole image, E; D without full depth.
        stride: stride of the map, pixels.
        step: the largest stride of the network's maps, pixels.
    """

    gain: Tensor
    offset: Tensor

    def __init__(self, spec: EncoderSpec, network: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.network = network
        info = cast(Any, network).feature_info
        self.channels = sum(info.channels())
        self.embedding_channels: int = (
            cast(Any, network).embedding_channels if spec.full_depth else self.channels
        )
        self.stride, self.step = min(info.reduction()), max(info.reduction())
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
        self.register_buffer("gain", 1 / (255 * std), persistent=False)
        self.register_buffer("offset", mean / std, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """The patch features of a batch.

        Args:
            images: float ``[N, 3, H, W]``, RGB in 0 to 255.

        Returns:
            float ``[N, D, H/stride, W/stride]``, not normalised. Maps of a larger stride are
            enlarged to the finest map by bilinear interpolation and then concatenated. Large images
            go through the network in tiles (:mod:`fsad_edge.scoring.tiles`).
        """
        images = self._normalised(images)
        if is_tiled(*images.shape[2:]):
            return in_tiles(self._map_of, images, self.stride, self.step)
        return self._map_of(images)

    def with_embedding(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The patch features of a batch, and an embedding of each whole image.

        Args:
            images: float ``[N, 3, H, W]``, RGB in 0 to 255.

        Returns:
            The map as :meth:`forward` gives it, and float ``[N, E]``, not normalised.
        """
        if not self.spec.full_depth:
            features = self(images)
            return features, features.mean(dim=(2, 3))
        features, embedding = self.of_planes(self._normalised(images))
        return features, embedding

    def of_planes(self, planes: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """What the network gives for one tile, or an image that goes through it whole.

        Args:
            planes: float ``[N, 3, H, W]``, (pixel / 255 - mean) / std.

        Returns:
            The map as :meth:`forward` gives it; with full depth also the embedding,
            float ``[N, E]``, not normalised.
        """
        if not self.spec.full_depth:
            return self._map_of(planes)
        maps, embedding = cast(FullDepthNet, self.network).with_embedding(planes)
        return _joined(maps), embedding

    def _map_of(self, images: Tensor) -> Tensor:
        return _joined(self.network(images))

    def _normalised(self, images: Tensor) -> Tensor:
        return images * self.gain - self.offset


def _joined(maps: list[Tensor]) -> Tensor:
    """Maps as one: the coarser ones enlarged to the finest."""
    finest = max(maps, key=lambda features: features.shape[-1])
    return torch.cat(
        [
            features
            if features.shape[-2:] == finest.shape[-2:]
            else nn.functional.interpolate(
                features, size=finest.shape[-2:], mode="bilinear", align_corners=False
            )
            for features in maps
        ],
        dim=1,
    )


def pretrained_encoder(
    backbone: str,
    weights: Path | None,
    height: int,
    width: int,
    strides: list[int],
    full_depth: bool = False,
) -> Encoder:
    """An encoder with pretrained weights.

    Args:
        backbone: a model in one of timm's forms: its name, ``hf-hub:NAME`` or ``local-dir:FOLDER``.
        weights: a checkpoint (.safetensors or .pth) to load instead of the hub's.
        height: height of the input, pixels.
        width: width of the input, pixels.
        strides: strides of the feature maps to use; a ViT has one.
        full_depth: give an embedding of the network's full depth, too, where it has one.

    Raises:
        InputError: the backbone has no feature map at such a stride or size.
        WeightsError: there is no such backbone, or its weights cannot be loaded.
    """
    check_weights_file(weights)
    source = backbone if weights is None else f"{backbone} with {weights.name}"
    if full_depth:
        backbone = _with_tail(backbone, weights)
    plain, arguments = _untrained(backbone, weights)
    config: dict[str, Any] = plain.pretrained_cfg
    reductions = [int(info["reduction"]) for info in plain.feature_info]
    # All blocks of a transformer have the same stride. The last one is best, with the final norm.
    is_transformer = len(set(reductions)) == 1 and len(reductions) > 1
    indices = map_indices(reductions, strides, backbone)
    check_size(height, width, strides, backbone)
    if config.get("fixed_input_size"):
        arguments = {**arguments, "img_size": list(tile_size(height, width, max(strides)))}
    # timm loads the weights from this file, unless the source is named as the hub or a folder.
    overlay: dict[str, Any] = (
        {} if weights is None else {"pretrained_cfg_overlay": {"file": str(weights), "source": ""}}
    )
    full_depth = full_depth and has_full_depth(plain)
    if full_depth:  # which a classifier is part of
        arguments = {**arguments, "num_classes": plain.num_classes}
    with _weights_errors(backbone, weights):
        network = _cut(
            timm.create_model(backbone, pretrained=True, **arguments, **overlay),
            indices,
            is_transformer,
            full_depth,
        )
    spec = EncoderSpec(
        architecture=str(config["architecture"]),
        arguments=arguments,
        indices=indices,
        final_norm=is_transformer,
        full_depth=full_depth,
        mean=[float(value) for value in config["mean"]],
        std=[float(value) for value in config["std"]],
        height=height,
        width=width,
        source=source,
        sha256=sha256(safetensors.torch.save(_state(network))),
    )
    return Encoder(spec, network)


def _with_tail(backbone: str, weights: Path | None) -> str:
    """The network that is taken where full depth is wanted; other weights have no tail."""
    return WHOLE_ENCODER if (backbone, weights) == (BUNDLED, None) else backbone


def _cut(model: nn.Module, indices: list[int], norm: bool, full_depth: bool) -> nn.Module:
    """A network without the layers that nothing used depends on; ``norm`` is of its maps."""
    if full_depth:
        return FullDepthNet(model, indices, norm)
    return cast(nn.Module, FeatureGetterNet(model, out_indices=tuple(indices), norm=norm))


def strides_of(backbone: str, weights: Path | None) -> list[int]:
    """The strides of a backbone's feature maps, ascending; a transformer has one.

    Raises:
        WeightsError: there is no such backbone.
    """
    plain, _ = _untrained(backbone, weights)
    return sorted({int(info["reduction"]) for info in plain.feature_info})


def trained_size_of(backbone: str, weights: Path | None) -> int | None:
    """The side at which a network of full depth was trained, pixels; None without full depth.

    Raises:
        WeightsError: there is no such backbone.
    """
    plain, _ = _untrained(_with_tail(backbone, weights), weights)
    return int(plain.pretrained_cfg["input_size"][-1]) if has_full_depth(plain) else None


def check_finite(encoder: Encoder, image: UInt8Array) -> None:
    """Refuse an encoder whose training diverged.

    Args:
        encoder: the encoder, on the CPU.
        image: uint8 ``[H, W, 3]``, at the model's size.

    Raises:
        InputError: its features are not finite, or their squares overflow.
    """
    with torch.inference_mode():
        batch = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
        features, embedding = encoder.with_embedding(batch)
        length = features.square().sum() + embedding.square().sum()
    if not torch.isfinite(length):
        raise InputError(
            "training diverged, and the weights are not finite: take a smaller --learning-rate."
        )


def save_encoder(encoder: Encoder, path: Path) -> None:
    """Write an encoder's weights as safetensors."""
    path.write_bytes(safetensors.torch.save(_state(encoder.network)))


def load_encoder(spec: EncoderSpec, weights: bytes, source: str) -> Encoder:
    """Read the weights that :func:`save_encoder` wrote into a new encoder.

    Args:
        spec: what the encoder is.
        weights: all bytes of the file.
        source: where they came from, for the error's sentence.

    Raises:
        ModelFileError: they are damaged or the weights of another network.
    """
    try:
        network = _cut(
            timm.create_model(spec.architecture, pretrained=False, **spec.arguments),
            spec.indices,
            spec.final_norm,
            spec.full_depth,
        )
        network.load_state_dict(safetensors.torch.load(weights))
        return Encoder(spec, network)
    except Exception as error:  # timm raises many types of errors for a damaged specification
        raise ModelFileError(
            f"{source} does not hold the weights of {shorten(spec.architecture)} "
            f"({shorten(_reason(error))}): "
            "run  fsad-edge finetune  again."
        ) from error


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}


def _untrained(backbone: str, weights: Path | None) -> tuple[Any, dict[str, Any]]:
    """The network with random weights, which tells its strides, and its constructor's arguments."""
    if (
        not backbone.startswith(BUNDLED)
        and weights is None
        and not backbone.startswith("local-dir:")
    ):
        _go_offline_without_hub()
    with _weights_errors(backbone, weights):
        arguments = _constructor_arguments(backbone)
        return timm.create_model(backbone, pretrained=False, **arguments), arguments


def _constructor_arguments(backbone: str) -> dict[str, Any]:
    """The constructor's arguments in the configuration of ``local-dir:`` or ``hf-hub:``."""
    if backbone.startswith("local-dir:"):
        folder = Path(backbone.removeprefix("local-dir:"))
        for file in folder.iterdir():  # timm opens them, and would wait for a pipe
            if exists(file) and not (is_file(file) or is_folder(file)):
                raise InputError(f"{file.name} is not a regular file")
        return dict(
            json.loads(read_bytes(folder / "config.json", most=LARGEST_CONFIG)).get("model_args")
            or {}
        )
    if backbone.startswith("hf-hub:"):
        _, _, arguments = load_model_config_from_hf(backbone.removeprefix("hf-hub:"))
        return dict(arguments or {})
    return {}


def _go_offline_without_hub() -> None:
    """Use only the hub's cache if its host name does not resolve: retries take a minute."""
    host = urlsplit(constants.ENDPOINT).hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        constants.HF_HUB_OFFLINE = True


def _reason(error: Exception) -> str:
    """What another library says is wrong, in one line."""
    # torch says it below a heading that ends with a colon.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[:2] if lines and lines[0].endswith(":") else lines[:1]
    return textwrap.shorten(" ".join(said) or type(error).__name__, LONGEST_REASON)


@contextlib.contextmanager
def _weights_errors(backbone: str, weights: Path | None) -> Iterator[None]:
    """Turn the errors of timm, torch and the hub into one sentence."""
    try:
        yield
    except Exception as error:  # a file of another kind makes them raise errors of any type
        reason = _reason(error)
        if weights is not None:
            message = f"{weights} does not fit {backbone} ({reason})."
        elif backbone.startswith("local-dir:"):
            message = f"{backbone} is not a timm model folder that can be loaded ({reason})."
        elif "Unknown model" in reason or "Invalid pretrained tag" in reason:
            message = (
                f"timm has no model '{backbone}' ({reason}): "
                "timm.list_models('*part-of-name*') lists them."
            )
        else:
            message = (
                f"the weights of {backbone} cannot be loaded from the model hub ({reason}): "
                "connect to the network, or give --weights FILE (.safetensors or .pth), or "
                "--backbone local-dir:FOLDER (timm's layout)."
            )
        raise WeightsError(message) from error
