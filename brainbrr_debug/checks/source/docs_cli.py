"""`docs.cli`: each documented command line, against the command line as the source makes it. Nothing is run."""

from __future__ import annotations

import dataclasses
import difflib
import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from brainbrr_debug.checks.source.command_line import Command
from brainbrr_debug.checks.source.found import found
from brainbrr_debug.checks.source.index import Source
from brainbrr_debug.checks.source.programs import Programs
from brainbrr_debug.checks.source.shell import Shown, shown_commands
from brainbrr_debug.records import Finding, Severity

ID = "docs.cli"
_RUNNERS = {("uv", "run"), ("poetry", "run"), ("pipenv", "run"), ("pdm", "run"), ("hatch", "run"), ("rye", "run")}
_BEFORE = {"sudo", "time", "nohup", "exec", "srun", "env", "command", "xvfb-run"}
_LAUNCHERS = {"torchrun", "accelerate", "deepspeed", "mpirun", "horovodrun"}
_PYTHON = re.compile(r"^(.*/)?(python[\d.]*|\$\{?PY\w*\}?|\$\{?PYTHON\w*\}?)$")
_ASSIGNS = re.compile(r"^\w+=")
_UNSURE = re.compile(r"[<>$\[\]{}()*…`|]|\.\.\.|%\w|^#")
_PLACEHOLDER = re.compile(r"^-+((other|more|additional|extra|further)[-_])?(options?|opts|args|arguments|flags)$")
_NUMBER = re.compile(r"^-[\d.]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refused:
    """A word that the program would refuse, in a sentence, and what to write instead."""

    word: str
    message: str
    remedy: str


def docs_cli(source: Source) -> Iterable[Finding]:
    """Options, commands and arguments that are documented and that the program would refuse."""
    programs = Programs(source)
    for shown in shown_commands(source):
        for name, command, words in _programs_of(source, programs, shown):
            if _another(command, words):
                continue
            for refused in dict.fromkeys(judge(command, words, name)):
                yield found(
                    ID,
                    Severity.P2,
                    shown.file.path,
                    _line(shown, refused.word),
                    refused.message,
                    why=f"whoever follows the document gets a usage error ({command.file}:{command.line})",
                    remedy=refused.remedy,
                )


def _another(command: Command, words: list[str]) -> bool:
    """Whether the document knows none of several options: it speaks of another program of that name."""
    options = {word.partition("=")[0] for word in words if word.startswith("--") and len(word) > 2}
    known = [command, *command.commands.values()]
    return len(options) > 1 and not any(one.option(option) for option in options for one in known)


def _line(shown: Shown, word: str) -> int:
    """The line of the word: commands go on over several."""
    for line in range(shown.line, min(shown.line + 40, len(shown.file.lines)) + 1):
        if word and word in shown.file.lines[line - 1]:
            return line
    return shown.line


def _programs_of(source: Source, programs: Programs, shown: Shown) -> Iterator[tuple[str, Command, list[str]]]:
    """The program of the repository that a shown command runs, if any, with the words that it is given."""
    words = _bare(list(shown.words))
    if not words:
        return
    first, rest = words[0], words[1:]
    name = first.rpartition("/")[2] if first.startswith("$") or "/bin/" in first else first
    if name in programs.scripts:
        command = programs.scripts[name]
        if command is not None:
            yield name, command, rest
        return
    if _PYTHON.match(first):
        while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c"):
            rest = rest[1:]
        if rest[:1] == ["-c"] or not rest:
            return
        if rest[0] == "-m" and len(rest) > 1:
            command = programs.module(rest[1])
            name, rest = f"python -m {rest[1]}", rest[2:]
        else:
            command = _file(source, programs, shown, rest[0])
            name, rest = f"python {rest[0]}", rest[1:]
        if command is not None:
            yield name, command, rest
    elif first in _LAUNCHERS:
        for number, word in enumerate(rest):
            if word.endswith(".py"):
                command = _file(source, programs, shown, word)
                if command is not None:
                    yield word, command, rest[number + 1 :]
                return
    elif first.startswith("./") and first.endswith(".py"):
        command = _file(source, programs, shown, first)
        if command is not None:
            yield first, command, rest


def _bare(words: list[str]) -> list[str]:
    """Without what stands before the program: variables, `sudo`, `uv run`."""
    while words:
        if _ASSIGNS.match(words[0]) or words[0] in _BEFORE:
            words = words[1:]
        elif tuple(words[:2]) in _RUNNERS:
            words = words[2:]
            while words and words[0].startswith("-"):
                words = words[2 if words[0] in ("--with", "--extra", "--group", "--python", "-p") else 1 :]
        else:
            return words
    return words


def _file(source: Source, programs: Programs, shown: Shown, path: str) -> Command | None:
    """The script as seen from the folder of the document or the nearest one above it; else the one of that name."""
    for folder in PurePosixPath(shown.file.path).parents:
        candidate = posixpath.normpath(posixpath.join(folder, path))
        if candidate in source.paths:
            return programs.file(candidate)
    alike = [p for p in source.paths if p.endswith("/" + path.removeprefix("./"))]
    return programs.file(alike[0]) if len(alike) == 1 and not path.startswith(("/", "~", "..")) else None


def judge(command: Command, words: list[str], name: str) -> Iterator[Refused]:
    """What the program would refuse in these words: each word once."""
    placed: list[str] = []
    sure = True
    words = list(words)
    while words:
        word = words.pop(0)
        if word in (">", ">>", "<", "2>", "2>&1") or re.match(r"^\d?>>?\S", word):
            break
        if word in ("--", "-h", "--help", "--version"):
            return
        if word.startswith("[") and word.endswith("]") and "-" in word[:3]:
            word, sure = word[1:-1], False
        if word.startswith("-") and len(word) > 1 and not _NUMBER.match(word):
            spelled, given, _ = word.partition("=")
            if re.search(r"[<>$\[\]{}…]|\.\.\.", spelled):
                sure = False
                continue
            values = _values(command, spelled)
            if values == -1:
                if command.open or _PLACEHOLDER.match(spelled):
                    return
                yield _unknown_option(command, spelled.strip("[]"), name)
                sure = False
            elif values is None:
                while words and not words[0].startswith("-"):
                    words.pop(0)
                sure = sure and not command.arguments
            elif not given:
                words = words[values:]
        elif command.commands and word in command.commands:
            command = command.commands[word]
            name = f"{name} {word}"
            placed = []
        elif command.commands and not command.arguments:
            if command.open or _UNSURE.search(word):
                return
            yield _unknown_command(command, word, name)
            return
        else:
            sure = sure and not _UNSURE.search(word)
            placed.append(word)
            if any(argument.rest for argument in command.arguments):
                return
    if sure and not command.open:
        yield from _arguments(command, placed, name)


def _values(command: Command, spelled: str) -> int | None:
    """How many words follow an option (None: any number), −1 where there is no such option."""
    option = command.option(spelled)
    if option is not None:
        return option.values
    if not spelled.startswith("--") and len(spelled) > 2:
        short = command.option(spelled[:2])
        if short is not None and (short.values != 0 or all(command.option("-" + c) for c in spelled[1:])):
            return 0  # "-abc" or "-n4"
    return -1


def _unknown_option(command: Command, spelled: str, name: str) -> Refused:
    bare = spelled.lstrip("-").replace("-", "_").lower()
    placed = next(
        (a.name for a in command.arguments if a.name.lower().startswith(bare) or bare in a.name.lower()), None
    )
    if placed is not None:
        message = f"`{name}` has no option {spelled}: {placed} is an argument"
        return Refused(word=spelled, message=message, remedy=f"write it without {spelled}")
    near = difflib.get_close_matches(spelled, list(command.every_option()), n=1)
    remedy = f"write {near[0]}" if near else f"leave {spelled} out, or add it to the program"
    return Refused(word=spelled, message=f"`{name}` has no option {spelled}", remedy=remedy)


def _unknown_command(command: Command, word: str, name: str) -> Refused:
    near = difflib.get_close_matches(word, command.commands, n=1)
    remedy = f"write {near[0]}" if near else f"write one of {', '.join(sorted(command.commands))}"
    return Refused(word=word, message=f"`{name}` has no command {word}", remedy=remedy)


def _arguments(command: Command, placed: list[str], name: str) -> Iterator[Refused]:
    least = sum(a.least for a in command.arguments)
    most = None if any(a.most is None for a in command.arguments) else sum(a.most or 0 for a in command.arguments)
    wanted = " ".join(a.name.upper() for a in command.arguments) or "no arguments"
    if len(placed) < least and (placed or not command.commands):
        message = f"`{name}` needs {wanted}, the document gives {len(placed)}"
        yield Refused(word="", message=message, remedy=f"write {name} {wanted}")
    elif most is not None and len(placed) > most and not command.commands:
        extra = " ".join(placed[most:])
        message = f"`{name}` takes {wanted}, not also {extra}"
        yield Refused(word=placed[most], message=message, remedy=f"leave {extra} out, or quote it with the word before")
