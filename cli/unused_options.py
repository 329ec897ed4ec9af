"""Options that were given and would change nothing: they are refused, not taken and forgotten."""

from __future__ import annotations

import typer

from fsad_edge.errors import InputError


def given(context: typer.Context, name: str) -> str | None:
    """The option of a parameter as it is written, such as ``--scale``; None where it was not given.

    Args:
        context: of the command.
        name: the parameter of the command's function.
    """
    source = context.get_parameter_source(name)
    if source is None or source.name != "COMMANDLINE":
        return None
    [options] = [one.opts for one in context.command.params if one.name == name]
    return max(options, key=len)


def refuse_unused(context: typer.Context, cure: str, *names: str) -> None:
    """Refuse options that were given where they change nothing.

    Args:
        context: of the command.
        cure: when they would change something, after "they are for".
        names: the parameters of the command's function.

    Raises:
        InputError: one of them was given.
    """
    for name in names:
        if option := given(context, name):
            raise InputError(f"{option} changes nothing here: it is for {cure}; leave it out.")
