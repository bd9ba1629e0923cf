"""Rebuilds what an argparse program accepts, by following the parser through the functions that are run."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from brainbrr_debug.checks.source.command_line import HELP, Argument, Command, Option
from brainbrr_debug.checks.source.index import Function, PythonFile, Source, children, constant, dotted, keyword, walk

_FLAGS = {"store_true", "store_false", "store_const", "append_const", "count", "help", "version"}
_DEEPEST = 6
"""Calls that are followed into one another."""


class ArgparseProgram:
    """The parsers that a run of some statements makes. `root` is the one program found, None for none or several."""

    def __init__(self, source: Source, file: PythonFile, body: Iterable[ast.stmt]) -> None:
        self.source = source
        self._made: list[Command] = []
        self._parsed: list[Command] = []
        self._entered: set[ast.AST] = set()
        _Run(self, file, {}, 0).statements(body)

    @property
    def root(self) -> Command | None:
        """The parser that reads the command line."""
        candidates = list(dict.fromkeys(self._parsed)) or self._made
        return candidates[0] if len(candidates) == 1 else None

    @staticmethod
    def find(source: Source, file: PythonFile, name: str) -> tuple[PythonFile, Function] | None:
        """The function of the repository that a dotted name, imports resolved, stands for in `file`."""
        package, _, last = name.rpartition(".")
        module = source.modules.get(package) if package else file
        if module is None:
            return None
        for statement in module.tree.body:
            if isinstance(statement, Function) and statement.name == last:
                return module, statement
        passed_on = module.imports.get(last, name)
        return ArgparseProgram.find(source, module, passed_on) if package and passed_on != name else None


class _Run:
    """One function being followed: what its names stand for (`Command`s only)."""

    def __init__(self, program: ArgparseProgram, file: PythonFile, names: dict[str, Command], depth: int) -> None:
        self.program = program
        self.file = file
        self.names = names
        self.depth = depth
        self.groups: dict[str, Command] = {}
        self.returned: Command | None = None

    def statements(self, body: Iterable[ast.stmt]) -> None:
        for statement in body:
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                continue
            value = getattr(statement, "value", None)
            if isinstance(statement, (ast.Assign, ast.AnnAssign)) and isinstance(
                value, (ast.Call, ast.BoolOp, ast.IfExp)
            ):
                targets: list[ast.expr] = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                self._bind(targets, value)
            elif isinstance(statement, ast.Return) and statement.value is not None:
                self.returned = self.command(statement.value) or self.returned
            else:
                self._expressions(statement)
            for part in ("body", "orelse", "handlers", "finalbody", "cases"):
                inner = getattr(statement, part, [])
                for block in inner if isinstance(inner, list) else []:
                    self.statements([block] if isinstance(block, ast.stmt) else block.body)

    def _bind(self, targets: list[ast.expr], value: ast.expr) -> None:
        alternatives: list[ast.expr] = value.values if isinstance(value, ast.BoolOp) else [value]
        if isinstance(value, ast.IfExp):
            alternatives = [value.body, value.orelse]
        made = next(filter(None, map(self.command, alternatives)), None)  # `parser = parser or default_parser()`
        for name in filter(None, map(dotted, targets)):
            if made is not None and isinstance(value, ast.Call) and getattr(value.func, "attr", "") == "add_subparsers":
                self.groups[name] = made
            elif made is not None:
                self.names[name] = made

    def _expressions(self, statement: ast.stmt) -> None:
        """The calls of a simple statement or of the head of a compound one, outermost first."""
        heads = [c for c in children(statement) if isinstance(c, (ast.expr, ast.withitem))]
        for head in heads:
            for node in walk(head):
                if isinstance(node, ast.Call):
                    self.command(node)
                    break

    def command(self, node: ast.expr) -> Command | None:
        """The command that an expression stands for; what calls in it do to commands is done."""
        if not isinstance(node, ast.Call):
            return self.names.get(dotted(node))
        name = self.file.name(node.func)
        if name.rpartition(".")[2] == "ArgumentParser" and name.startswith(
            ("argparse", "ArgumentParser", "configargparse")
        ):
            return self._new(node)
        if isinstance(node.func, ast.Attribute):
            owner = self._owner(node.func.value)
            if owner is not None:
                return self._method(owner, node.func.attr, node)
        return self._followed(name, node)

    def _owner(self, node: ast.expr) -> Command | None:
        return self.groups.get(dotted(node)) or self.command(node)

    def _new(self, call: ast.Call) -> Command:
        made = Command(
            file=self.file.path, line=call.lineno, abbreviates=constant(keyword(call, "allow_abbrev")) is not False
        )
        made.options.append(HELP)
        parents = keyword(call, "parents")
        for parent in parents.elts if isinstance(parents, (ast.List, ast.Tuple)) else ():
            known = self.command(parent)
            if known is not None:
                made.include(known)
            made.open |= known is None
        made.open |= parents is not None and not isinstance(parents, (ast.List, ast.Tuple))
        made.open |= keyword(call, "fromfile_prefix_chars") is not None
        self.program._made.append(made)
        return made

    def _method(self, owner: Command, method: str, call: ast.Call) -> Command | None:
        if method == "add_argument":
            add_argument(owner, call)
        elif method in ("add_argument_group", "add_mutually_exclusive_group", "add_subparsers"):
            return owner
        elif method == "add_parser":
            made = self._new(call)
            self.program._made.remove(made)
            names = [call.args[0] if call.args else None, *getattr(keyword(call, "aliases"), "elts", [])]
            for name in map(constant, names):
                if isinstance(name, str):
                    owner.commands[name] = made
                else:
                    owner.open = True
            return made
        elif method in ("parse_args", "parse_known_args", "parse_intermixed_args"):
            self.program._parsed.append(owner)
            owner.open |= method == "parse_known_args"
        elif method not in ("set_defaults", "print_help", "error", "exit", "format_help", "print_usage", "get_default"):
            owner.open = True
        return None

    def _followed(self, name: str, call: ast.Call) -> Command | None:
        handed = {k.arg: self._owner(k.value) for k in call.keywords if k.arg}
        by_position = [self._owner(a) for a in call.args]
        target = ArgparseProgram.find(self.program.source, self.file, name) if self.depth < _DEEPEST else None
        given = [c for c in (*handed.values(), *by_position) if c is not None]
        if target is None:
            if not name.startswith(("print", "len", "isinstance")):
                for command in given:
                    command.open = True  # somebody else's code may add what it likes
            return given[0] if len(given) == 1 and name.rpartition(".")[2] not in ("vars",) else None
        file, function = target
        if function in self.program._entered and not given:
            return None
        self.program._entered.add(function)
        names = dict(zip((a.arg for a in function.args.args), by_position, strict=False)) | handed
        inner = _Run(self.program, file, {k: v for k, v in names.items() if v is not None}, self.depth + 1)
        inner.statements(function.body)
        return inner.returned


def add_argument(owner: Command, call: ast.Call) -> None:
    """Add what `parser.add_argument(…)` adds; names that are computed make the command open."""
    names = [constant(a) for a in call.args]
    if not names or not all(isinstance(n, str) for n in names) or any(k.arg is None for k in call.keywords):
        owner.open = True
        return
    spelled = tuple(str(n) for n in names)
    action = constant(keyword(call, "action"))
    boolean = "BooleanOptionalAction" in ast.unparse(keyword(call, "action") or ast.Constant(""))
    chosen = _choices(keyword(call, "choices"))
    nargs = keyword(call, "nargs")
    least, most = _nargs(nargs)
    rest = constant(nargs) == "..." or dotted(nargs or call).endswith("REMAINDER")
    if not spelled[0].startswith("-"):
        if keyword(call, "default") is not None and keyword(call, "nargs") is None:
            least = 1
        owner.arguments.append(Argument(name=spelled[0], least=least, most=most, rest=rest, choices=chosen))
        return
    if boolean:
        spelled += tuple(f"--no-{n[2:]}" for n in spelled if n.startswith("--"))
    owner.options.append(
        Option(
            names=spelled,
            values=0 if boolean or action in _FLAGS else (most if least == most else None),
            choices=chosen,
            required=constant(keyword(call, "required")) is True,
            default=constant(keyword(call, "default")),
        )
    )


def _nargs(node: ast.expr | None) -> tuple[int, int | None]:
    value = constant(node)
    if node is None or isinstance(value, int):
        count = value if isinstance(value, int) else 1
        return count, count
    return {"?": (0, 1), "*": (0, None), "+": (1, None)}.get(str(value), (0, None))


def _choices(node: ast.expr | None) -> tuple[str, ...]:
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        values = [constant(e) for e in node.elts]
        if all(isinstance(v, (str, int)) for v in values):
            return tuple(str(v) for v in values)
    return ()


def argparse_command(source: Source, file: PythonFile, body: Iterable[ast.stmt]) -> Command | None:
    """The command line that running `body` in `file` reads with argparse; None where it does not."""
    return ArgparseProgram(source, file, body).root
