"""Text of others on a terminal and in a log: file names, folders' names, what packages say.

A file name may hold any character but a slash and a null byte: a line feed begins a line that looks
like one of ours, an escape sequence colours, moves or hides what stands on the terminal, and a
bidirectional override turns the order of letters around.
"""

from __future__ import annotations

import copy
import logging
import unicodedata

#: The kinds of characters that do something and show nothing: control and format characters, halves
#: of pairs (which stand for bytes that are no text), and the two separators of lines.
_ACTING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    r"""A text in one line in which no character does anything, as Python would write it.

    Spaces of every kind and letters of every language stay as they are.

    Example:
        >>> printable("a\nb\x1b[31m.png")
        'a\\nb\\x1b[31m.png'
    """
    if text.isprintable():
        return text
    return "".join(
        one.encode("unicode_escape").decode() if unicodedata.category(one) in _ACTING else one
        for one in text
    )


class PlainFormatter(logging.Formatter):
    """Writes each record in one line, whatever names it holds; a traceback is indented below it.

    So no line of a log can be made by the name of a file.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record, and its traceback if it has one."""
        shown = copy.copy(record)  # other handlers may write it in another way
        shown.msg, shown.args = printable(record.getMessage()), None
        line, *traceback = super().format(shown).split("\n")
        return "\n".join([line, *(f"  {printable(one)}" for one in traceback)])
