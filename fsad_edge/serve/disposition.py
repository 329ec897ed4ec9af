"""The Content-Disposition header: the name of a form's field, and the client's name for a file."""

from __future__ import annotations

import contextlib
import re
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from urllib.parse import unquote_to_bytes

#: Characters of a client's name for a field or an image that are kept.
NAME_LENGTH = 200

_PARAMETER = re.compile(r';\s*([^\s=;]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;]*))', re.DOTALL)

#: What a quoted text holds in place of quotes, backslashes and line ends: as HTTP and mail write
#: them, and as browsers and curl do.
_ESCAPES = re.compile(r'\\(["\\])|%(22|0D|0A)', re.IGNORECASE)

#: The path that some browsers on Windows send before the name.
_WINDOWS_PATH = re.compile(r"\A(?:[A-Za-z]:)?\\(?:.*\\)?", re.DOTALL)


def read_disposition(header: bytes | str | None) -> dict[str, str]:
    """The parameters of a Content-Disposition header, among them ``name`` and ``filename``.

    ``filename*`` (RFC 8187) goes before ``filename``. This one is read as UTF-8 or else as
    Latin-1, with the escapes of browsers, of quoted strings and of .NET (RFC 2047), and without a
    Windows path.

    Args:
        header: the bytes of the header, or their Latin-1 text as web frameworks give it.

    Example:
        >>> read_disposition("form-data; name=file; filename=a.jpg; filename*=UTF-8''%C3%A4.jpg")
        {'name': 'file', 'filename': 'ä.jpg'}
    """
    text = header.decode("latin-1") if isinstance(header, bytes) else header or ""
    plain: dict[str, str] = {}
    extended: dict[str, str] = {}
    for key, quoted, token in _PARAMETER.findall(text):
        if key.endswith("*"):
            given = quoted or token.strip()
            try:
                extended[key[:-1].lower()] = _shorten(_extended(given))
            except ValueError:  # shown as it came, unless there is a plain one
                plain.setdefault(key[:-1].lower(), _shorten(given))
        else:
            plain[key.lower()] = _shorten(_plain(quoted, token.strip()))
    return {**plain, **extended}


def _extended(value: str) -> str:
    """``UTF-8'en'%C3%A4`` as text. Raises ValueError where it is malformed."""
    charset, _, encoded = value.split("'", 2)
    if charset.lower() not in {"utf-8", "iso-8859-1"}:
        raise ValueError(charset)
    return unquote_to_bytes(encoded).decode(charset)


def _plain(quoted: str, token: str) -> str:
    value = _ESCAPES.sub(_unescape, quoted) if quoted else token
    raw = value.encode("latin-1", "replace")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    if text.startswith("=?") and text.endswith("?="):
        with contextlib.suppress(HeaderParseError, LookupError, ValueError):
            text = str(make_header(decode_header(text)))
    return text


def _unescape(escape: re.Match[str]) -> str:
    return escape[1] or chr(int(escape[2], 16))


def _shorten(name: str) -> str:
    printable = name.encode("utf-8", "replace").decode("utf-8")  # without lone surrogates
    return _WINDOWS_PATH.sub("", printable)[:NAME_LENGTH]
