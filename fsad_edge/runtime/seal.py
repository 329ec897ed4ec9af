"""The seal of a model file: a SHA-256 over all of its bytes but the seal itself.

    doc_string      ``REMARK``, the first field of the file
    ...             graph and description
    metadata_props  the key ``KEY``; its value, the last 64 bytes of the file, is the SHA-256, in
                    hexadecimal, of all bytes before them

So a file can be checked by whoever reads it, without a reader of ONNX. That a file has a seal can
be seen at both of its ends: damage at one of them does not make it look like a file without one.
"""

from __future__ import annotations

from fsad_edge.errors import ModelFileError
from fsad_edge.runtime.files import sha256
from fsad_edge.runtime.protobuf import message

#: Key of the seal in the file's metadata.
KEY = "fsad_edge_seal"

#: What the file says of its seal to whoever opens it with another tool.
REMARK = "Sealed: the last 64 bytes are the SHA-256, in hexadecimal, of all bytes before them."

_DIGITS = 64

# Field numbers of onnx.proto: the model's documentation and metadata; an entry's key and value.
_DOCUMENTATION, _METADATA, _PAIR_KEY, _PAIR_VALUE = 6, 14, 1, 2

_ENTRY = message(_PAIR_KEY, KEY.encode()) + message(_PAIR_VALUE, bytes(_DIGITS))
#: The first bytes of a sealed file, and those before its last 64.
_FIRST, _LAST = message(_DOCUMENTATION, REMARK.encode()), message(_METADATA, _ENTRY)[:-_DIGITS]


def sealed(data: bytes) -> bytes:
    """The bytes of a model file with a seal; those of a sealed one are returned as they are.

    Raises:
        ModelFileError: the bytes have a seal, and it does not fit them.

    Example:
        >>> data = sealed(b"")
        >>> check_seal(data, "part.onnx")
        True
    """
    if check_seal(data, "the model"):
        return data
    body = b"".join((_FIRST, data, _LAST))
    return body + sha256(body).encode()


def check_seal(data: bytes, source: str) -> bool:
    """Check the seal of a model file.

    Args:
        data: all bytes of the file.
        source: where they came from, for the error's sentence.

    Returns:
        Whether the file has a seal, which fits it then. Versions before the seal wrote none.

    Raises:
        ModelFileError: the file has a seal, or a part of one, and it does not fit the file.
    """
    first, last = data.startswith(_FIRST), data[-_DIGITS - len(_LAST) : -_DIGITS] == _LAST
    if not (first or last or KEY.encode() in data or REMARK.encode() in data):
        return False
    hashed = memoryview(data)[:-_DIGITS]
    if not (first and last and sha256(hashed).encode() == data[-_DIGITS:]):
        raise ModelFileError(
            f"{source} is damaged: it is not, byte for byte, the file that was written (its "
            "SHA-256 differs): copy it again, or export it again."
        )
    return True


def without_seal(source: str) -> str:
    """The sentence about a file that has none."""
    return (
        f"{source} was written by a version that put no seal into model files, so it cannot be "
        "checked for damage: export it again, and it can."
    )
