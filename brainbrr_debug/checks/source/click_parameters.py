"""What `@click.option(…)` and `@click.argument(…)` add to a command."""

from __future__ import annotations

import ast

from brainbrr_debug.checks.source.command_line import Argument, Command, Option
from brainbrr_debug.checks.source.index import constant, dotted, keyword


def add_parameter(made: Command, call: ast.Call, *, is_option: bool) -> None:
    """Add what a decorator adds; names that are computed make the command open."""
    names = [v for a in call.args if isinstance(v := constant(a), str)]
    if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords) or not names:
        made.open = True
    elif is_option:
        made.options.append(_option(call, names))
    else:
        made.arguments.append(_argument(call, names[-1]))


def _argument(call: ast.Call, name: str) -> Argument:
    nargs = constant(keyword(call, "nargs"))
    required = constant(keyword(call, "required"))
    most = None if nargs == -1 else (nargs if isinstance(nargs, int) else 1)
    needed = required is not False and keyword(call, "default") is None and (nargs != -1 or required is True)
    return Argument(name=name, least=(most or 1) if needed else 0, most=most, choices=_choices(keyword(call, "type")))


def _option(call: ast.Call, names: list[str]) -> Option:
    nargs = constant(keyword(call, "nargs"))
    default = constant(keyword(call, "default"))
    says_flag = constant(keyword(call, "is_flag"))
    valued = keyword(call, "flag_value") is not None
    flag = says_flag is True or any("/" in n for n in names) or constant(keyword(call, "count")) is True
    flag |= isinstance(default, bool) and keyword(call, "type") is None
    kind = keyword(call, "type")
    values: int | None = len(kind.elts) if isinstance(kind, ast.Tuple) else 1
    if isinstance(nargs, int):
        values = nargs
    if flag or valued:
        values = None if says_flag is False else 0  # a flag that may take a value
    return Option(
        names=tuple(part.strip() for n in names if n.startswith("-") for part in n.split("/")),
        values=values,
        choices=_choices(keyword(call, "type")),
        required=constant(keyword(call, "required")) is True and default is None,
        default=default,
    )


def _choices(node: ast.expr | None) -> tuple[str, ...]:
    if isinstance(node, ast.Call) and dotted(node.func).endswith("Choice") and node.args:
        listed = node.args[0]
        if isinstance(listed, (ast.List, ast.Tuple)) and constant(keyword(node, "case_sensitive")) is not False:
            values = [constant(e) for e in listed.elts]
            if all(isinstance(v, str) for v in values):
                return tuple(str(v) for v in values)
    return ()
