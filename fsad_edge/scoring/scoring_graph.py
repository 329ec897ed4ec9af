"""The one graph that embeds images, is calibrated, scores and is shipped, put together in ONNX.

It holds everything after resizing: pixel normalisation, encoder, projection, distance to the memory
bank, Gaussian distance, scores. The normal parts (:class:`ReferenceModel`) are inputs of the graph
that have defaults. :mod:`fsad_edge.graph.scoring_graph` computes the same in PyTorch, and proves
it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from fsad_edge.options import ScoreKind
from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.bank import (
    NEIGHBOURS,
    RARITY_WEIGHT,
    REJECTED_RATIO,
    WORST_PATCHES,
    ReferenceModel,
    capacity_of,
    empty_reference,
)
from fsad_edge.runtime.locator import Locator, default_weights
from fsad_edge.runtime.model_file import REFERENCE_INPUTS
from fsad_edge.runtime.places import (
    ROWS,
    SPARE_ROWS,
    patches_of_place,
    place_grid,
    place_of_patch,
    worst_count,
)
from fsad_edge.scoring.encoder_graph import PLANES, EncoderGraph
from fsad_edge.scoring.onnx_graph import Graph, Value
from fsad_edge.scoring.tiles import is_tiled, spans, tile_size

INPUTS = ("image", *REFERENCE_INPUTS)
OUTPUTS = ("score", "anomaly_map", "patch_score", "image_score", "patches", "embedding")
PLACE_OUTPUTS = ("place_score", "place_map")

#: The fewest patches along a side that a patch is compared with in its own image. On maps twice as
#: fine or finer, every second to fifth patch does as well and takes less time.
COMPARED = 14

#: Of those, the nearest ones on each side that a patch is not compared with, because they show some
#: of what it shows. On maps with fewer than nine patches along a side they are fewer.
AROUND = 2

#: Subtracted from the similarity, -1 to 1, of two patches that are not compared.
NOT_COMPARED = 4.0

#: The least length that a vector is divided by.
LEAST_LENGTH = 1e-6

_FLOAT = np.dtype("float32")
_CAST_TO_FLOAT = 1  # ONNX's number of the type


def build_scoring_graph(
    encoder: EncoderGraph,
    height: int,
    width: int,
    score: ScoreKind,
    locator: Locator | None,
    bank_size: int,
    places: bool = False,
) -> Graph:
    """The scoring graph of an encoder for an input size, with an empty reference model.

    What it takes and gives is described at
    :meth:`fsad_edge.graph.scoring_graph.ScoringGraph.forward`.

    Args:
        encoder: the encoder.
        height: height of the input, pixels, a multiple of the encoder's step.
        width: likewise.
        score: the score that decides.
        locator: how the part is found; cells of the map that show it in no shot have the weight 0,
            and do not count in the embedding. None counts all.
        bank_size: the most rows of the memory bank that is exported; the input has room for more.
        places: compare images with the shots place by place, too.
    """
    rows, columns = height // encoder.stride, width // encoder.stride
    reference = empty_reference(
        capacity_of(bank_size),
        encoder.channels,
        encoder.embedding_channels,
        default_weights(locator, rows, columns),
    )
    if places:
        reference = with_empty_places(reference, rows, columns)
    image = Value("image", np.dtype("uint8"), ("batch", height, width, 3))
    patch = encoder.channels + 1
    shapes = [(), (rows, columns), (), (), (rows * columns, patch), (encoder.embedding_channels,)]
    names = [*OUTPUTS, *(PLACE_OUTPUTS if places else ())]
    shapes += [(), (rows, columns)] if places else []
    outputs = [
        Value(name, _FLOAT, ("batch", *shape)) for name, shape in zip(names, shapes, strict=True)
    ]
    writer = _Writer(image, outputs, reference, rows, columns, locator)
    writer.write(encoder, height, width, score)
    return writer.graph


def build_patch_graph(
    channels: int, rows: int, columns: int, capacity: int, locator: Locator | None
) -> Graph:
    """The part of the scoring graph that comes after the patches, for one that is known by them.

    It takes ``unprojected``, float ``[N, rows * columns, channels + 1]``, which the scoring graph
    gives as ``patches`` where nothing is projected, and gives ``patch_score``, float ``[N]``. So
    one image is scored with several reference models, and encoded once.

    Args:
        channels: features of a patch, D.
        rows: rows of the map.
        columns: columns of the map.
        capacity: rows that the memory bank has room for.
        locator: as of :func:`build_scoring_graph`.
    """
    count = rows * columns
    given = Value("unprojected", _FLOAT, ("batch", count, channels + 1))
    weights = default_weights(locator, rows, columns)
    reference = empty_reference(capacity, channels, channels, weights)
    outputs = [Value("patch_score", _FLOAT, ("batch",))]
    writer = _Writer(given, outputs, reference, rows, columns, locator)
    writer.write_scores_alone()
    return writer.graph


def with_empty_places(reference: ReferenceModel, rows: int, columns: int) -> ReferenceModel:
    """The same reference model with places of a map that resemble nothing and do not count."""
    depth, places = reference.bank.shape[1], math.prod(place_grid(rows, columns))
    return replace(
        reference,
        place_bank=np.zeros((places, ROWS + SPARE_ROWS, depth), np.float32),
        place_projection=np.eye(depth, dtype=np.float32),
        place_scale=np.zeros(places, np.float32),
    )


def near_places(length: int, step: int, around: int) -> Float32Array:
    """Which places on a line are within ``around`` of every ``step``-th place.

    Returns:
        float32 ``[length, places]``, 1 where they are and 0 elsewhere.
    """
    places = np.arange(step // 2, length, step)
    near: Float32Array = np.float32(np.abs(np.arange(length)[:, None] - places) <= around)
    return near


def compared_step(rows: int, columns: int) -> tuple[int, int]:
    """Of a map of this size, every so many patches are compared with each other, and how many
    around a patch are left out."""
    # Of a long map as many patches as of a square one with as many patches.
    step = max(1, min(math.isqrt(rows * columns) // COMPARED, rows, columns))
    # A small map must have patches to compare with.
    return step, min(AROUND * step, (min(rows, columns) - 1) // 4)


class _Writer:
    """Writes the nodes of one graph, whose map has so many rows and columns."""

    def __init__(
        self,
        given: Value,
        outputs: list[Value],
        reference: ReferenceModel,
        rows: int,
        columns: int,
        locator: Locator | None,
    ) -> None:
        arrays = reference.as_inputs()
        inputs = [given, *(Value(name, _FLOAT, value.shape) for name, value in arrays.items())]
        self.graph = Graph(inputs, outputs, constants=dict(arrays))
        capacity, self.channels = reference.bank.shape
        self.rows, self.columns, self.neighbours = rows, columns, min(NEIGHBOURS, capacity)
        self.cells = None if locator is None else np.float32(locator.cells(rows, columns))
        self.places = reference.place_bank is not None

    def write(self, encoder: EncoderGraph, height: int, width: int, score: ScoreKind) -> None:
        add = self.graph.add
        features, whole = self._encode(encoder, height, width)
        unprojected = self._patches(features)
        turned = add("Transpose", unprojected, perm=[0, 2, 1])  # [N, P, D]
        projected = self._score_patches(turned, self._rarity(unprojected, turned))
        self._image_score(whole, encoder.full_depth)
        if self.places:
            self._score_places(projected)
            add("Max", "patch_score", "place_score", output="score")
            return
        decides = "patch_score" if score == ScoreKind.PATCH else "image_score"
        add("Identity", decides, output="score")

    def write_scores_alone(self) -> None:
        add, depth, last = self.graph.add, self.channels, self._ints(2)
        vectors = add("Slice", "unprojected", self._ints(0), self._ints(depth), last)
        rarity = add("Slice", "unprojected", self._ints(depth), self._ints(depth + 1), last)
        self._score_patches(vectors, rarity)

    def _score_patches(self, unprojected: str, rarity: str) -> str:
        """Projected patches, map and patch score.

        Args:
            unprojected: unit vectors of the patches, ``[N, P, D]``.
            rarity: their rarity, ``[N, P, 1]``.

        Returns:
            the name of the projected patches, unit vectors ``[N, P, D]``.
        """
        add, count = self.graph.add, self.rows * self.columns
        projected = self._unit(add("MatMul", unprojected, "projection"))
        add("Concat", projected, rarity, output="patches", axis=2)
        distance = self._distance(
            add("Reshape", projected, self._ints(-1, self.channels)),
            add("Reshape", rarity, self._ints(-1, 1)),
        )
        distance = add("Reshape", distance, self._ints(-1, count))
        self._worst(distance, WORST_PATCHES, "anomaly_map", "patch_score")
        return projected

    def _worst(self, distance: str, count: int, map_name: str, score_name: str) -> None:
        """The mean of the largest distances ``[N, P]``, weighted, and the map limited to it."""
        add = self.graph.add
        distance = add("Mul", distance, "weights")
        worst, _ = self.graph.add_two("TopK", distance, self._ints(count), axis=1)
        mean = add("ReduceMean", worst, self._ints(1), keepdims=1)
        limited = add("Min", distance, mean)
        add("Reshape", limited, self._ints(-1, self.rows, self.columns), output=map_name)
        add("Squeeze", mean, self._ints(1), output=score_name)

    def _score_places(self, projected: str) -> None:
        """Map and score of the places (:mod:`fsad_edge.runtime.places`).

        Args:
            projected: unit vectors of the patches, ``[N, P, D]``.
        """
        add, rows, columns = self.graph.add, self.rows, self.columns
        side, (down, across) = patches_of_place(rows, columns), place_grid(rows, columns)
        if side > 1:
            planes = add("Transpose", projected, perm=[0, 2, 1])
            planes = add("Reshape", planes, self._ints(-1, self.channels, rows, columns))
            sides = [side, side]
            means = add("AveragePool", planes, kernel_shape=sides, strides=sides)
            means = add("Reshape", means, self._ints(-1, self.channels, down * across))
            projected = add("Transpose", means, perm=[0, 2, 1])
        features = self._unit(add("MatMul", projected, "place_projection"))
        # One product for each place with its own rows: [Q, K, D] x [N, Q, D, 1].
        features = add("Unsqueeze", features, self._ints(3))
        nearest = add("ReduceMax", add("MatMul", "place_bank", features), self._ints(2), keepdims=0)
        apart = add("Relu", add("Sub", self._float(1.0), nearest))  # [N, Q, 1]
        distance = add("Mul", add("Squeeze", apart, self._ints(2)), "place_scale")
        if side > 1:
            distance = add("Reshape", distance, self._ints(-1, down, across))
            for axis, length in ((1, rows), (2, columns)):
                patches = self.graph.constant(place_of_patch(length, side).tolist())
                distance = add("Gather", distance, patches, axis=axis)
            distance = add("Reshape", distance, self._ints(-1, rows * columns))
        self._worst(distance, worst_count(rows, columns), *PLACE_OUTPUTS[::-1])

    def _ints(self, *values: int) -> str:
        return self.graph.constant(values)

    def _float(self, value: float) -> str:
        return self.graph.constant(np.float32(value))

    def _encode(self, encoder: EncoderGraph, height: int, width: int) -> tuple[str, str]:
        """Names of the features, ``[N, D, h, w]``, and of the whole image's vector, ``[N, E]``."""
        add = self.graph.add
        mean, std = np.asarray(encoder.mean), np.asarray(encoder.std)
        # Cast first: the only thing that TensorRT can do with bytes is to cast them.
        numbers = add("Cast", "image", to=_CAST_TO_FLOAT)
        planes = add("Transpose", numbers, perm=[0, 3, 1, 2])
        # One pass over the pixels instead of two.
        given = (1 / (255 * std), -mean / std, np.zeros(3), np.ones(3))
        constants = (self.graph.constant(np.float32(values)) for values in given)
        planes = add("BatchNormalization", planes, *constants, epsilon=0.0)
        if encoder.full_depth:
            features, whole = self._put_in(encoder, planes)
            return features, whole
        if is_tiled(height, width):
            features = self._in_tiles(encoder, planes, height, width)
        else:
            [features] = self._put_in(encoder, planes)
        counted = features
        if self.cells is not None:
            weights = np.float32(self.cells / self.cells.mean())
            counted = add("Mul", features, self.graph.constant(weights))
        return features, add("ReduceMean", counted, self._ints(2, 3), keepdims=0)

    def _put_in(self, encoder: EncoderGraph, planes: str, copy: str = "") -> list[str]:
        return self.graph.put_in(encoder.graph, {PLANES: planes}, "encoder/", copy)

    def _in_tiles(self, encoder: EncoderGraph, planes: str, height: int, width: int) -> str:
        """The features of a large image, computed tile by tile."""
        tall, wide = tile_size(height, width, encoder.step)
        strips = []
        for down in spans(height, tall, encoder.stride, encoder.step):
            row = []
            for across in spans(width, wide, encoder.stride, encoder.step):
                tile = self._cut(
                    planes, down.start, down.start + tall, across.start, across.start + wide
                )
                [features] = self._put_in(encoder, tile, f"tile_{down.start}_{across.start}/")
                row.append(self._cut(features, down.first, down.last, across.first, across.last))
            strips.append(self.graph.add("Concat", *row, axis=3))
        return self.graph.add("Concat", *strips, axis=2)

    def _cut(self, maps: str, top: int, bottom: int, left: int, right: int) -> str:
        starts, ends, axes = self._ints(top, left), self._ints(bottom, right), self._ints(2, 3)
        return self.graph.add("Slice", maps, starts, ends, axes)

    def _patches(self, features: str) -> str:
        """The unit vectors of the patches, before the projection, ``[N, D, P]``."""
        add = self.graph.add
        # The mean with the 3x3 neighbourhood (PatchCore, section 3.1) counts half: on its own it
        # would hide small defects. At the borders the mean is over what is inside the image.
        around = add(
            "AveragePool",
            features,
            kernel_shape=[3, 3],
            pads=[1, 1, 1, 1],
            strides=[1, 1],
            count_include_pad=0,
        )
        local = add("Add", features, around)  # twice the mean of both, which the length undoes
        shape = self._ints(-1, self.channels, self.rows * self.columns)
        return self._unit(add("Reshape", local, shape), axis=1)

    def _unit(self, vectors: str, axis: int = -1, output: str = "") -> str:
        """Vectors of length 1 along an axis; zero vectors stay zero."""
        add = self.graph.add
        length = add("ReduceL2", vectors, self._ints(axis), keepdims=1)
        return add("Div", vectors, add("Clip", length, self._float(LEAST_LENGTH)), output=output)

    def _rarity(self, unprojected: str, turned: str) -> str:
        """How different each patch is from the rest of its own image, ``[N, P, 1]``.

        Args:
            unprojected: the patches, ``[N, D, P]``.
            turned: the same, ``[N, P, D]``.
        """
        add, rows, columns = self.graph.add, self.rows, self.columns
        step, around = compared_step(rows, columns)
        near_y, near_x = (near_places(length, step, around) for length in (rows, columns))
        places = near_y.shape[1] * near_x.shape[1]
        left = places - max(near_y.sum(axis=1)) * max(near_x.sum(axis=1))
        compared = min(NEIGHBOURS, int(left))
        if compared < 1:
            summed = add("ReduceMax", turned, self._ints(2), keepdims=1)
            return add("Mul", summed, self._float(0.0))
        others = unprojected
        if step > 1:
            depth = self.channels
            others = add("Reshape", others, self._ints(-1, depth, rows, columns))
            start, end = self._ints(step // 2, step // 2), self._ints(rows, columns)
            others = add("Slice", others, start, end, self._ints(2, 3), self._ints(step, step))
            others = add("Reshape", others, self._ints(-1, depth, places))
        similarity = add("MatMul", turned, others)
        # A patch is near if it is near in both directions. The engine computes the product of the
        # two small constants once, when it loads the file: stored, it would be as large as the
        # encoder on a fine map.
        near = add(
            "Mul",
            self.graph.constant(np.float32(NOT_COMPARED * near_y)[:, None, :, None]),
            self.graph.constant(near_x[None, :, None, :]),
        )
        near = add("Reshape", near, self._ints(rows * columns, places))
        similarity = add("Sub", similarity, near)
        nearest, _ = self.graph.add_two("TopK", similarity, self._ints(compared), axis=2)
        mean = add("ReduceMean", nearest, self._ints(2), keepdims=1)
        return add("Relu", add("Sub", self._float(1.0), mean))

    def _distance(self, queries: str, rarity: str) -> str:
        """The distance of each patch to its nearest bank rows, ``[N * P, 1]``.

        Args:
            queries: projected patches, ``[N * P, D]``.
            rarity: their rarity, ``[N * P, 1]``.
        """
        add, graph, last = self.graph.add, self.graph, self._ints(1)
        # |x - b|^2 / 2 = |x|^2 / 2 - (x.b - |b|^2 / 2): one matrix product. The bias of a row holds
        # its norm and its rarity.
        similarity = add("Gemm", queries, "bank", "bank_bias", transB=1)
        nearest, _ = graph.add_two("TopK", similarity, self._ints(self.neighbours), axis=1)
        nearest = add("ReduceMean", nearest, last, keepdims=1)
        square = add("ReduceSumSquare", queries, last, keepdims=1)
        bias = add(
            "Add",
            add("Mul", square, self._float(0.5)),
            add("Mul", rarity, self._float(RARITY_WEIGHT)),
        )
        distance = add("Relu", add("Sub", bias, nearest))
        known_bad = add("Gemm", queries, "rejected", "rejected_bias", transB=1)
        known_bad = add("ReduceMax", known_bad, last, keepdims=1)
        # Where r is the distance from the rejected rows and d that from the bank, this is d, or
        # twice d - r where that is more, up to twice d: d + min(max(d - 2r, 0), d), in fewer steps.
        # An unused slot is so far away that d stays d, exactly.
        beyond = add("Min", add("Sub", known_bad, nearest), distance)
        return add("Max", distance, add("Mul", beyond, self._float(REJECTED_RATIO)))

    def _image_score(self, whole: str, full_depth: bool) -> None:
        """Mahalanobis distance of the image embedding (COFT-AD)."""
        add = self.graph.add
        if not full_depth:
            whole = add("MatMul", whole, "projection")
        embedding = self._unit(whole, output="embedding")
        white = add("MatMul", add("Sub", embedding, "gaussian_mean"), "gaussian_whitening")
        add("ReduceL2", white, self._ints(1), output="image_score", keepdims=0)
