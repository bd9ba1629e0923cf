"""What the signature of a typer command makes of its parameters."""

from __future__ import annotations

import ast
import re

from brainbrr_debug.checks.source.command_line import Argument, Command, Option
from brainbrr_debug.checks.source.index import Function, PythonFile, constant, keyword, walk

_CONTEXT = re.compile(r"\b(typer|click)\.(Context|CallbackParam)\b|^Context$")
_MANY = re.compile(r"\b(list|List|Sequence|Iterable|tuple\[[^\]]*\.\.\.)")


def typer_parameters(file: PythonFile, function: Function, made: Command) -> None:
    """Add the options and arguments that typer reads from the signature of `function`."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    for argument, default in [
        *zip(positional, defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]:
        annotation = ast.unparse(argument.annotation) if argument.annotation is not None else "str"
        if not _CONTEXT.search(annotation):
            _parameter(file, argument, annotation, default, made)


def _parameter(file: PythonFile, argument: ast.arg, annotation: str, default: ast.expr | None, made: Command) -> None:
    says = _declared(file, argument.annotation) or (default if _kind(file, default) else None)
    kind = _kind(file, says) or ("option" if default is not None else "argument")
    names = []
    if isinstance(says, ast.Call):
        spelled = says.args if says is not default else says.args[1:]
        names = [v for a in spelled if isinstance(v := constant(a), str)]
        if says is default:
            default = says.args[0] if says.args else keyword(says, "default")
    required = default is None or (isinstance(default, ast.Constant) and default.value is Ellipsis)
    many = _MANY.search(annotation) is not None
    if kind == "argument":
        optional = not required or ("None" in annotation and default is not None)
        made.arguments.append(Argument(name=argument.arg, least=0 if optional else 1, most=None if many else 1))
        return
    boolean = re.search(r"\bbool\b", annotation) is not None or (
        argument.annotation is None and isinstance(constant(default), bool)
    )
    long = "--" + argument.arg.strip("_").replace("_", "-")
    given = tuple(part for n in names if n.startswith("-") for part in n.split("/"))
    made.options.append(
        Option(
            names=given or ((long, "--no-" + long[2:]) if boolean else (long,)),
            values=0 if boolean else 1,
            required=required and not boolean,
            default=constant(default),
        )
    )


def _declared(file: PythonFile, annotation: ast.expr | None) -> ast.expr | None:
    """The `typer.Option(…)` within `Annotated[…]`."""
    for node in walk(annotation) if annotation is not None else ():
        if isinstance(node, ast.Call) and _kind(file, node):
            return node
    return None


def _kind(file: PythonFile, node: ast.expr | None) -> str:
    if isinstance(node, ast.Call):
        return {"typer.Option": "option", "typer.Argument": "argument"}.get(file.name(node.func), "")
    return ""
