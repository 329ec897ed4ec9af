"""The names of the bundled encoders: timm's, and those of the command line."""

from __future__ import annotations

from fsad_edge.options import BundledEncoder

#: timm's name for each.
NAMES = {BundledEncoder.FAST: "fsad_edge", BundledEncoder.ACCURATE: "fsad_edge_accurate"}

#: timm's name for the fast one with a tail, which gives it full depth.
WHOLE_ENCODER = "fsad_edge_whole"

#: The side at which the tail was trained, pixels.
WHOLE_SIDE = 128


def bundled_name(kind: BundledEncoder) -> str:
    """timm's name for one of the bundled encoders.

    Example:
        >>> bundled_name(BundledEncoder.FAST)
        'fsad_edge'
    """
    return NAMES[kind]


def bundled_kind(backbone: str) -> BundledEncoder | None:
    """Which bundled encoder a name of timm's means; None where it means another network.

    Example:
        >>> bundled_kind("fsad_edge_accurate"), bundled_kind("resnet18")
        (<BundledEncoder.ACCURATE: 'accurate'>, None)
    """
    return {name: kind for kind, name in NAMES.items()}.get(backbone)


def encoder_words(source: str) -> str:
    """An encoder in its user's words: ``fast``, ``accurate`` or a backbone, and its weights.

    Args:
        source: timm's name for it, and ``with FILE`` where its weights came from a file.

    Example:
        >>> encoder_words("fsad_edge_accurate"), encoder_words("fsad_edge with own.pth")
        ('accurate', 'fast with own.pth')
    """
    name, joined, weights = source.partition(" with ")
    kind = BundledEncoder.FAST if name == WHOLE_ENCODER else bundled_kind(name)
    return source if kind is None else f"{kind}{joined}{weights}"
