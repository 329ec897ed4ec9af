"""From an encoder to the one ONNX graph that embeds, calibrates, scores and ships.

The graph holds everything after resizing: pixel normalisation, encoder, projection, memory bank
distance, Gaussian distance, scores. What the normal parts look like (:class:`ReferenceModel`) comes in
through inputs; :func:`set_reference` gives those inputs their defaults.
"""

from __future__ import annotations

import json
import logging
import warnings
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from fsad_edge.runtime.bank import (
    NEIGHBOURS,
    RARITY_WEIGHT,
    WORST_PATCHES,
    ReferenceModel,
    capacity_of,
    empty_reference,
)
from fsad_edge.runtime.metadata import KEY, Metadata
from fsad_edge.training.encoder import Encoder

OPSET = 18

INPUTS = ["image", *ReferenceModel.__dataclass_fields__]
OUTPUTS = ["score", "anomaly_map", "patch_score", "image_score", "patches", "embedding"]


#: Patches along the shorter side, at least, that a patch is compared with in its own image: on maps
#: twice as fine and finer each second to fifth is as good and takes less time.
COMPARED = 14

#: Of those, the nearest on each side, which it is not compared with: it shares what it shows with
#: them. On maps of less than nine a side they are fewer.
AROUND = 2

#: Taken off the likeness of what is not to be compared, which is within -1 and 1.
_NOT_COMPARED = 4.0


class ScoringGraph(nn.Module):
    """What the exported graph computes.

    Args:
        encoder: gives the patch features.
        score: the score that decides, ``patch`` or ``image``.
    """

    def __init__(self, encoder: Encoder, score: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.score = score

    def forward(
        self,
        image: Tensor,
        bank: Tensor,
        bank_bias: Tensor,
        gaussian_mean: Tensor,
        gaussian_whitening: Tensor,
        projection: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Score a batch.

        Args:
            image: uint8 ``[N, H, W, 3]``, RGB.
            bank: float ``[K, D]``; this and the rest as in :class:`ReferenceModel`.
            bank_bias: float ``[K]``.
            gaussian_mean: float ``[D]``.
            gaussian_whitening: float ``[D, D]``.
            projection: float ``[D, D]``.

        Returns:
            score ``[N]``; anomaly_map ``[N, h, w]``, mean distance of each patch from its nearest
            bank rows, by cosine and by how much rarer it is in its image than they are in theirs;
            patch_score ``[N]``, mean of the worst patches; image_score ``[N]``, Mahalanobis
            distance of the image embedding (COFT-AD); patches ``[N, h*w, D + 1]``, features and
            rarity, and embedding ``[N, D]``; features and embedding are L2-normalised.
        """
        # Cast first: TensorRT takes bytes at its inputs, and can do nothing with them but cast.
        features = self.encoder(image.float().permute(0, 3, 1, 2))
        # Each patch sees its neighbours (PatchCore, section 3.1), at half weight: small defects
        # drown in the whole of it. At the edges what is there is averaged.
        around = nn.functional.avg_pool2d(features, 3, 1, 1, count_include_pad=False)
        local = (features + around) / 2
        height, width = local.shape[-2:]
        as_is = _unit(local.permute(0, 2, 3, 1))
        rare = rarity(as_is).flatten(1).unsqueeze(2)
        seen = _unit(as_is.flatten(1, 2) @ projection)
        patches = torch.cat([seen, rare], dim=2)
        rows = seen.reshape(-1, seen.shape[-1])
        # |x - b|^2 / 2 = |x|^2 / 2 - (x.b - |b|^2 / 2): one matrix product, norms folded in, and
        # the rarity of rows with them.
        similarity = torch.addmm(bank_bias, rows, bank.t())
        nearest = similarity.topk(min(NEIGHBOURS, len(bank)), dim=1).values.mean(dim=1)
        apart = rows.square().sum(dim=1) / 2 + RARITY_WEIGHT * rare.flatten()
        distance = (apart - nearest).clamp(min=0)
        anomaly_map = distance.reshape(-1, height, width)
        worst = anomaly_map.flatten(1).topk(WORST_PATCHES, dim=1).values
        patch_score = worst.mean(dim=1)
        embedding = _unit(features.mean(dim=(2, 3)) @ projection)
        white = (embedding - gaussian_mean) @ gaussian_whitening
        image_score = white.square().sum(dim=1).sqrt()
        score = patch_score if self.score == "patch" else image_score
        # A graph output that is another's alias would be dropped by the exporter.
        return score + 0, anomaly_map, patch_score, image_score, patches, embedding


def rarity(patches: Tensor) -> Tensor:
    """How unlike the rest of its own image each patch is.

    A scratch is rare in its image, a new grain of wood is not, though both are far from the bank.

    Args:
        patches: float ``[N, h, w, D]``, L2-normalised.

    Returns:
        float ``[N, h, w]``, 0 to 2: mean cosine distance to the ``NEIGHBOURS`` most like it, of
        every ``step``-th patch more than ``AROUND`` steps away; 0 where there is no other.
    """
    count, height, width, depth = patches.shape
    side = min(height, width)
    step = max(1, side // COMPARED)
    around = min(AROUND * step, (side - 1) // 4)  # of a small map there must be something left
    near_y, near_x = (_near(length, step, around) for length in (height, width))
    rows, columns = near_y.shape[1], near_x.shape[1]
    left = rows * columns - max(near_y.sum(axis=1)) * max(near_x.sum(axis=1))
    compared = min(NEIGHBOURS, int(left))
    if compared < 1:
        return torch.zeros_like(patches[..., 0])
    others = patches[:, step // 2 :: step, step // 2 :: step].reshape(count, -1, depth)
    similarity = patches.reshape(count, -1, depth) @ others.transpose(1, 2)
    similarity = similarity.reshape(count, height, width, rows, columns)
    # Near is what is so up and down and across. By two small constants: their product would be as
    # large as the encoder on a fine map.
    similarity = torch.maximum(
        similarity - _NOT_COMPARED * torch.from_numpy(near_y)[:, None, :, None],
        similarity - _NOT_COMPARED * torch.from_numpy(near_x)[None, :, None, :],
    )
    return (1 - similarity.flatten(3).topk(compared, dim=3).values.mean(dim=3)).clamp(min=0)


def _near(length: int, step: int, around: int) -> npt.NDArray[np.float32]:
    """1 where a place on a line is within ``around`` of every ``step``-th one, else 0."""
    places = np.arange(step // 2, length, step)
    near: npt.NDArray[np.float32] = np.float32(
        np.abs(np.arange(length)[:, None] - places) <= around
    )
    return near


def _unit(vectors: Tensor) -> Tensor:
    """L2-normalise the last axis; zero stays zero."""
    return vectors / vectors.square().sum(dim=-1, keepdim=True).sqrt().clamp(min=1e-6)


def build_graph(graph: ScoringGraph, bank_size: int) -> onnx.ModelProto:
    """Export to ONNX; batch is dynamic, height and width are fixed; no normal parts in it yet.

    Args:
        graph: in any mode; it is put into evaluation mode.
        bank_size: rows of the memory bank that is exported, at most; the input has room for more.
    """
    spec, depth = graph.encoder.spec, graph.encoder.channels
    capacity = capacity_of(bank_size)
    example = (
        torch.zeros(2, spec.height, spec.width, 3, dtype=torch.uint8),
        torch.zeros(capacity, depth),
        torch.zeros(capacity),
        torch.zeros(depth),
        torch.zeros(depth, depth),
        torch.eye(depth),
    )
    for module in graph.modules():
        if hasattr(module, "fused_attn"):
            # timm's switch: the fused form exports as shape arithmetic
            cast(Any, module).fused_attn = False
    batch = torch.export.Dim("batch", min=1)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the exporter's own future, not about this graph
        program = torch.onnx.export(
            graph.eval().cpu(),
            example,
            input_names=INPUTS,
            output_names=OUTPUTS,
            dynamic_shapes=({0: batch}, *[None] * (len(example) - 1)),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # None is for the exporter's other path
    model: onnx.ModelProto = program.model_proto
    _ask_no_bytes_for_their_shape(model)
    for thing in [*model.graph.node, *model.graph.value_info, model.graph]:
        # The exporter's notes: stack traces, with the paths of the machine that it ran on.
        thing.ClearField("metadata_props")
        thing.ClearField("doc_string")
    set_reference(model, empty_reference(capacity, depth))
    return model


def _ask_no_bytes_for_their_shape(model: onnx.ModelProto) -> None:
    """Let a ViT read the batch size off the cast image: TensorRT only ever casts bytes."""
    users = [node for node in model.graph.node if list(node.input) == ["image"]]
    cast = next(node for node in users if node.op_type == "Cast")
    shapes = [node for node in users if node.op_type == "Shape"]
    for node in shapes:
        node.input[0] = cast.output[0]
        model.graph.node.remove(node)
    first = list(model.graph.node).index(cast) + 1
    for node in reversed(shapes):
        model.graph.node.insert(first, node)


def set_reference(model: onnx.ModelProto, reference: ReferenceModel) -> None:
    """Give the graph's inputs for the normal parts their defaults, in place."""
    values = reference.as_inputs()
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in values]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    for name, value in values.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))


def set_metadata(model: onnx.ModelProto, metadata: Metadata) -> None:
    """Put the description into the model, in place, and name its producer."""
    model.producer_name = "fsad-edge"
    model.producer_version = json.dumps(metadata.versions)
    model.doc_string = "few-shot visual anomaly detection; see the metadata key fsad_edge"
    del model.metadata_props[:]
    model.metadata_props.add(key=KEY, value=metadata.to_json())
