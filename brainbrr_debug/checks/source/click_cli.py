"""Rebuilds what the click and typer programs of a repository accept, from their decorators and signatures."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from brainbrr_debug.checks.source.click_parameters import add_parameter
from brainbrr_debug.checks.source.command_line import HELP, Command, Option
from brainbrr_debug.checks.source.index import Function, PythonFile, Source, constant, dotted, keyword, walk
from brainbrr_debug.checks.source.typer_cli import typer_parameters

_CLICK = re.compile(r"^(rich_click|asyncclick|click|cloup)\.")
_ADDS_ONE = {"version_option": "--version", "help_option": "--help", "confirmation_option": "--yes"}
_COMPLETION = Option(names=("--install-completion", "--show-completion"), values=0)


class ClickCommands:
    """Every command of the repository, by the dotted name of the function or application that makes it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._files = [f for f in source.program if any(_about(name) for name in f.imports.values())]
        self._commands: dict[str, Command] = {}
        self._typer: set[str] = set()
        self._with_callback: set[str] = set()
        self._members: list[tuple[str, Command]] = []
        for file in self._files:
            self._applications(file)
        for file in self._files:
            for function in file.functions:
                self._decorated(file, function)
        for file in self._files:
            self._added(file)
        self._join()

    def of(self, file: PythonFile, node: ast.expr) -> Command | None:
        """The command that an expression in `file` stands for."""
        return self.named(self._name(file, node))

    def named(self, name: str) -> Command | None:
        """The command of a dotted name; a package may pass it on from a module below it."""
        package, _, last = name.rpartition(".")
        file = self._source.modules.get(package)
        passed_on = file.imports.get(last, "") if file is not None else ""
        return self._commands.get(name) or self._commands.get(passed_on)

    def _name(self, file: PythonFile, node: ast.expr) -> str:
        imported = dotted(node).partition(".")[0] in file.imports
        return file.name(node) if imported else f"{file.module}.{file.name(node)}"

    def _applications(self, file: PythonFile) -> None:
        """`app = typer.Typer()`, `cli = click.Group()`, at the level of the module."""
        for statement in file.tree.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
                kind = file.name(statement.value.func)
                if kind in ("typer.Typer", "click.Group"):
                    name = f"{file.module}.{dotted(statement.targets[0])}"
                    made = Command(file=file.path, line=statement.lineno, options=[HELP])
                    made.name = _own_name(statement.value) or ""
                    if kind == "typer.Typer":
                        made.options.append(_COMPLETION)
                        self._typer.add(name)
                    self._commands[name] = made

    def _decorated(self, file: PythonFile, function: Function) -> None:
        """A function with a decorator that makes it a command, alone or of an application."""
        for decorator in function.decorator_list:
            call = decorator if isinstance(decorator, ast.Call) else None
            target = call.func if call is not None else decorator
            method = file.name(target).rpartition(".")[2]
            owner = self._name(file, target.value) if isinstance(target, ast.Attribute) else ""
            if method == "callback" and owner in self._typer:
                self._with_callback.add(owner)
                typer_parameters(file, function, self._commands[owner])
                self._commands[owner].open |= call is not None and "invoke_without_command" in ast.unparse(call)
            elif method in ("command", "group") and (_CLICK.match(file.name(target)) or self.named(owner) is not None):
                self._command(file, function, call, owner)

    def _command(self, file: PythonFile, function: Function, call: ast.Call | None, owner: str) -> None:
        made = Command(file=file.path, line=function.lineno, options=[HELP])
        made.name = _own_name(call) or _spoken(function.name)
        settings = keyword(call, "context_settings") if call is not None else None
        made.open = (call is not None and keyword(call, "cls") is not None) or (
            settings is not None
            and ("ignore_unknown" in ast.unparse(settings) or "allow_extra" in ast.unparse(settings))
        )
        if owner in self._typer:
            typer_parameters(file, function, made)
        else:
            for decorator in function.decorator_list:
                self._parameter(file, decorator, made)
        self._commands.setdefault(f"{file.module}.{function.name}", made)
        if self.named(owner) is not None:
            self._members.append((owner, made))

    def _parameter(self, file: PythonFile, decorator: ast.expr, made: Command) -> None:
        """`@click.option(…)`, or a name that stands for one, or a function of the repository that applies some."""
        name = file.name(decorator.func if isinstance(decorator, ast.Call) else decorator)
        method = name.rpartition(".")[2]
        if method in ("command", "group") or name.startswith(("functools.", "contextlib.")):
            return
        if not _CLICK.match(name):
            self._shared(file, decorator, made)
        elif isinstance(decorator, ast.Call) and method in ("option", "argument"):
            add_parameter(made, decorator, is_option=method == "option")
        elif isinstance(decorator, ast.Call) and method in _ADDS_ONE:
            spelled = [v for a in decorator.args if isinstance(v := constant(a), str) and v.startswith("-")]
            made.options.append(Option(names=tuple(spelled) or (_ADDS_ONE[method],), values=0))

    def _shared(self, file: PythonFile, decorator: ast.expr, made: Command) -> None:
        """A decorator made elsewhere in the repository: every parameter that its definition speaks of is one."""
        name = self._name(file, decorator.func if isinstance(decorator, ast.Call) else decorator)
        package, _, last = name.rpartition(".")
        module = self._source.modules.get(package)
        if module is None or (statement := _definition(module, last)) is None:
            made.open = True
            return
        calls = [n for n in walk(statement) if isinstance(n, ast.Call) and _CLICK.match(module.name(n.func))]
        parameters = [c for c in calls if module.name(c.func).endswith((".option", ".argument"))]
        for call in parameters:
            add_parameter(made, call, is_option=module.name(call.func).endswith(".option"))
        made.open |= not parameters and re.search(r"option|argument", ast.unparse(statement)) is not None

    def _added(self, file: PythonFile) -> None:
        """`cli.add_command(command, name=…)`, `app.add_typer(other, name=…)`, `app.command()(function)`."""
        for call in file.of(ast.Call):
            method = getattr(call.func, "attr", "")
            if isinstance(call.func, ast.Attribute) and method in ("add_command", "add_typer") and call.args:
                application = self.of(file, call.func.value)
                if application is not None:
                    self._add(application, self.of(file, call.args[0]), call, has_own_name=method == "add_command")
            elif isinstance(call.func, ast.Call) and getattr(call.func.func, "attr", "") == "command" and call.args:
                self._applied(file, call.func, call.args[0])

    def _add(self, application: Command, command: Command | None, call: ast.Call, *, has_own_name: bool) -> None:
        name = constant(keyword(call, "name") or (call.args[1] if len(call.args) > 1 else None))
        if command is None:
            application.open = True
        elif isinstance(name, str) or has_own_name or command.name:
            application.commands[name if isinstance(name, str) else command.name] = command
        else:
            application.include(command)  # the commands of a typer application without a name become its own

    def _applied(self, file: PythonFile, maker: ast.Call, function: ast.expr) -> None:
        owner = self._name(file, maker.func.value) if isinstance(maker.func, ast.Attribute) else ""
        application = self.named(owner)
        if application is None:
            return
        package, _, last = self._name(file, function).rpartition(".")
        module = self._source.modules.get(package)
        definition = _definition(module, last) if module is not None else None
        if module is None or not isinstance(definition, Function):
            application.open = True
        else:
            self._command(module, definition, maker, owner)

    def _join(self) -> None:
        """Hang commands under their applications; the only command of a typer application is the application."""
        for owner, command in self._members:
            application = self.named(owner)
            if application is not None:
                application.commands[command.name] = command
        for name in self._typer - self._with_callback:
            application = self._commands[name]
            if len(application.commands) == 1 and not any(application is c for c in self._groups()):
                application.include(application.commands.popitem()[1])

    def _groups(self) -> Iterator[Command]:
        """What hangs under something else: an application with one command that is added to another stays a group."""
        for command in self._commands.values():
            yield from command.commands.values()


def _about(name: str) -> bool:
    return name.partition(".")[0] in ("click", "typer", "rich_click", "asyncclick", "cloup")


def _own_name(call: ast.Call | None) -> str | None:
    if call is None:
        return None
    value = constant(keyword(call, "name") or (call.args[0] if call.args else None))
    return value if isinstance(value, str) else None


def _spoken(function: str) -> str:
    """What click makes of a function's name; older versions keep the ending."""
    return re.sub(r"_(command|cmd|group|grp)$", "", function.lower()).strip("_").replace("_", "-")


def _definition(module: PythonFile, name: str) -> ast.stmt | None:
    for statement in module.tree.body:
        named = [statement.name] if isinstance(statement, Function) else map(dotted, getattr(statement, "targets", ()))
        if name in named:
            return statement
    return None
