"""The options of the jobs; ``--help`` of the commands shows the same ones."""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsad_edge.errors import InputError
from fsad_edge.options import (
    LEAST_RATE,
    MAX_THREADS,
    MOST_RATE,
    BundledEncoder,
    ComparePlaces,
    Device,
    Locate,
    Precision,
    ScoreKind,
    Target,
    to_choice,
)
from fsad_edge.runtime.image_scale import ImageScale

#: More passes over the shots than any training has use for: it would never end.
MAX_EPOCHS = 1_000_000

#: The fewest shots that a projection is trained on: half of them must be a pair of different ones.
FEWEST_TO_TRAIN = 4


def _fits(value: object, kind: Any) -> bool:
    """Whether a value is of an option's type. True and False are no numbers here."""
    kinds = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(one, kinds[0]) for one in value)
    if kinds:  # one of several
        return any(_fits(value, one) for one in kinds)
    if isinstance(value, bool) and kind is not bool:
        return False
    return isinstance(value, (int, float) if kind is float else kind)


def _check_types(options: object) -> None:
    """Refuse values of a type that their option does not take."""
    for name, kind in typing.get_type_hints(type(options)).items():
        value = getattr(options, name)
        if not _fits(value, kind):
            words = str(kind) if typing.get_args(kind) else kind.__name__
            raise InputError(f"the option {name} takes {words}, not {value!r}.")


def check_options(options: object, kind: type) -> None:
    """Refuse what is given in place of options, such as a dictionary of them.

    Raises:
        InputError: it is of another type.
    """
    if not isinstance(options, kind):
        raise InputError(
            f"the options are {kind.__name__}(...), not {type(options).__qualname__}: give them by "
            "name there."
        )


@dataclass(frozen=True)
class FinetuneOptions:
    """The options of :func:`fsad_edge.finetune`.

    Attributes:
        backbone: another pretrained encoder than the bundled ones, in timm's forms: a model name,
            ``hf-hub:NAME`` or ``local-dir:FOLDER``.
        encoder: which of the bundled encoders; None chooses.
        weights: a checkpoint (.safetensors or .pth) for ``backbone``, or for the bundled encoder
            that ``encoder`` names; for ``fast`` where neither is given.
        epochs: None trains a projection of the features contrastively, and keeps it where shots
            that the training has not seen confirm it; a number trains the whole encoder for so many
            passes over the shots; 0 trains nothing.
        image_size: side of the model's square input, pixels, 32 to 4096; None chooses. Where the
            part is found and is longer than broad, the input has about as many pixels. Above 1024
            the encoder runs over overlapping tiles.
        strides: strides of the feature maps, such as ``(16,)`` or ``(8, 16)``; None chooses.
        locate: whether the part is looked for in photographs, so that the model looks at it alone:
            where the shots say that it can be found and that it pays, never, or always and without
            being turned upright.
        rotations: steps of a full turn in which the shots go into the memory bank, 1 to 360; 1
            leaves them as photographed, None chooses.
        place: whether images are also compared with the shots place by place, which finds what is
            missing, extra or in another place: where the shots show the same at the same places,
            always or never.
        budget_ms: milliseconds that the model alone may take on this machine; None sets no limit.
        budget_s: seconds that the search for what suits the part may take, from the start; 0 takes
            the first model, which looks at the part in one way. None searches to the end.
        device: what torch trains on, and where ONNX Runtime computes the features: ``cuda`` takes
            the CPU for these where ``onnxruntime-gpu`` is not installed.
        seed: random seed, 0 and up.
        lambda_con: weight of the instance contrastive loss.
        lambda_pp: weight of the loss of cross-instance positive pairs.
        lambda_np: weight of the loss of synthesised negative pairs.
        learning_rate: peak learning rate of the encoder.
        flip: a mirrored part is a good part.
        keep_gain: fine-tuned weights are kept where they gain more than this in AUROC on
            synthesised defects; -1 keeps them always.
        align: make features steady against changes of light, unless that costs more than 0.05 of
            AUROC on synthesised defects.
        bank_size: most rows of the memory bank; None takes 200 for each shot, but 1000 to 2000.
        score: the score that decides.
        false_alarm_rate: the share of good parts that may be rejected, from 1e-6 up to 0.5.
        bits: significant bits of 16-bit files, 8 to 16, such as 12 for a camera of 12 bits; None
            takes what the files say, or 16 where their values need it, and refuses others.
        range: the values of black and white in float, signed and 32-bit files; None takes what the
            files say, or 0 and 1 for float files that are all within, and refuses others.
        threads: threads of torch and of ONNX Runtime; 0 takes as many as this process may use.
        recursive: learn from the images in the folders of the shots' folder, too.
        keep_outliers: learn from shots that are unlike the rest, too; without it they are refused.
        force: replace an older model directory.
    """

    backbone: str | None = None
    encoder: BundledEncoder | None = None
    weights: Path | None = None
    epochs: int | None = None
    image_size: int | None = None
    strides: tuple[int, ...] | None = None
    locate: Locate = Locate.AUTO
    rotations: int | None = None
    place: ComparePlaces = ComparePlaces.AUTO
    budget_ms: float | None = None
    budget_s: float | None = None
    device: Device = Device.AUTO
    seed: int = 0
    lambda_con: float = 1.0
    lambda_pp: float = 1.0
    lambda_np: float = 1.0
    learning_rate: float = 1e-5
    flip: bool = False
    keep_gain: float = 0.02
    align: bool = True
    bank_size: int | None = None
    score: ScoreKind = ScoreKind.PATCH
    false_alarm_rate: float = 0.01
    bits: int | None = None
    range: tuple[float, float] | None = None
    threads: int = 0
    recursive: bool = False
    keep_outliers: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        """Take words for enums and text for a path; refuse what would silently mean another thing.

        Raises:
            InputError: a value is of a type that its option does not take.
        """
        object.__setattr__(self, "device", to_choice(Device, self.device, "device"))
        object.__setattr__(self, "score", to_choice(ScoreKind, self.score, "score"))
        object.__setattr__(self, "locate", to_choice(Locate, self.locate, "locate"))
        object.__setattr__(self, "place", to_choice(ComparePlaces, self.place, "place"))
        if self.encoder is not None:
            encoder = to_choice(BundledEncoder, self.encoder, "encoder")
            object.__setattr__(self, "encoder", encoder)
        if isinstance(self.weights, str):
            object.__setattr__(self, "weights", Path(self.weights))
        if isinstance(self.strides, list):
            object.__setattr__(self, "strides", tuple(self.strides))
        if isinstance(self.range, list):
            object.__setattr__(self, "range", tuple(self.range))
        _check_types(self)

    @property
    def scale(self) -> ImageScale:
        """Black and white in files of more than 8 bits."""
        return ImageScale(self.bits, self.range)

    def check(self) -> None:
        """Refuse values that no job can use.

        Raises:
            InputError: a value is out of range.
        """
        numbers = {
            "lambda_con": self.lambda_con,
            "lambda_pp": self.lambda_pp,
            "lambda_np": self.lambda_np,
            "learning_rate": self.learning_rate,
            "false_alarm_rate": self.false_alarm_rate,
            "keep_gain": self.keep_gain,
        }
        for name, number in numbers.items():
            if not math.isfinite(number):
                raise InputError(f"the option {name} needs a finite number, not {number}.")
        self._check_encoder()
        self._check_budget()
        if self.image_size is not None and not 32 <= self.image_size <= 4096:
            raise InputError(f"the image size is 32 to 4096 pixels, not {self.image_size}.")
        if self.rotations is not None and not 1 <= self.rotations <= 360:
            raise InputError(f"the rotations are 1 to 360 steps, not {self.rotations}.")
        if self.strides is not None and not (self.strides and min(self.strides) > 0):
            raise InputError(f"strides are whole numbers above 0, such as 16, not {self.strides}.")
        if not LEAST_RATE <= self.false_alarm_rate <= MOST_RATE:
            raise InputError(
                f"the false alarm rate is a fraction from {LEAST_RATE:g} up to {MOST_RATE:g}, not "
                f"{self.false_alarm_rate:g}."
            )
        if not 0 <= (self.epochs or 0) <= MAX_EPOCHS or not 0 <= self.seed < 2**32:
            raise InputError(
                f"epochs are 0 or more, up to {MAX_EPOCHS:,}, and the seed is 0 or more, up to "
                "4,294,967,295."
            )
        if not 0 <= self.threads <= MAX_THREADS:
            raise InputError(f"the threads are 0 or more, up to {MAX_THREADS}.")
        ImageScale(self.bits, self.range)  # refuses what no file has
        if self.bank_size is not None and not 1 <= self.bank_size <= 100_000:
            raise InputError(f"the bank size is 1 to 100000 rows, not {self.bank_size}.")

    def _check_budget(self) -> None:
        if self.budget_s is None:
            return
        if not (math.isfinite(self.budget_s) and self.budget_s >= 0):
            raise InputError(f"--budget-s is 0 or more seconds, not {self.budget_s:g}.")
        if self.epochs:
            raise InputError(
                f"--budget-s limits the search, and --epochs {self.epochs} trains for as long as "
                "it takes: leave one of them out."
            )

    def _check_encoder(self) -> None:
        if self.encoder is not None and self.backbone:
            raise InputError(
                "--encoder takes one of the bundled encoders, --backbone another one: give one of "
                "them."
            )
        if self.encoder is BundledEncoder.ACCURATE and self.score is ScoreKind.IMAGE:
            raise InputError(
                "--encoder accurate has no full depth, which --score image takes: leave --encoder "
                "out, or give --backbone."
            )


@dataclass(frozen=True)
class ExportOptions:
    """The options of :func:`fsad_edge.export`.

    Attributes:
        golden: put two small shots into the file, which every load must score right; False where
            the parts are secret.
        precision: number format of the encoder: ``int8`` is for CPUs, ``fp16`` for GPUs. The
            memory bank and the threshold are computed again through the graph that is written.
        target: the engine that an int8 graph is written for.
        ranges_of: an int8 file of another part with the same encoder, whose activation ranges are
            taken: both files can share a session then.
        allow_drift: the share of decisions that int8 or fp16 may change on views of the shots, with
            and without synthesised defects. Of AUROC half as much may be lost.
        force: replace an older file.
        allow_lost: write the file although it decides examples wrongly that files of this part
            beside it decide rightly with what they were taught.
    """

    golden: bool = True
    precision: Precision = Precision.FP32
    target: Target = Target.CPU
    ranges_of: Path | None = None
    allow_drift: float = 0.1
    force: bool = False
    allow_lost: bool = False

    def __post_init__(self) -> None:
        """Take words for enums, and refuse what would silently mean something else."""
        object.__setattr__(self, "precision", to_choice(Precision, self.precision, "precision"))
        object.__setattr__(self, "target", to_choice(Target, self.target, "target"))
        if isinstance(self.ranges_of, str):
            object.__setattr__(self, "ranges_of", Path(self.ranges_of))
        _check_types(self)
        if not 0 <= self.allow_drift <= 1:
            raise InputError(f"allow_drift is a share from 0 to 1, not {self.allow_drift}.")
