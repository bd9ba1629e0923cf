"""Command lines as documents, Makefiles and shell scripts show them, one list of words each."""

from __future__ import annotations

import dataclasses
import itertools
import re
import shlex
from collections.abc import Iterator

from brainbrr_debug.checks.source.index import Source, TextFile

_SHELLS = {
    "",
    "sh",
    "bash",
    "shell",
    "zsh",
    "console",
    "shell-session",
    "bash session",
    "terminal",
    "commandline",
    "text",
}
_FENCE = re.compile(r"^\s*(`{3,}|~{3,})\s*\{?\.?([\w -]*)")
_DIRECTIVE = re.compile(r"^(\s*)(\.\. (?:code-block|code|prompt|sourcecode)::\s*([\w-]*)|[^.\s].*::|::)\s*$")
_FAILED = re.compile(
    r"(?im)^\s*(error:|usage:|traceback|no such option|.*unrecognized arguments|.*error: |╭─ error)|"
    r"^\s*#.*\b(wrong|broken|fails?|does(n't| not) work|before|old|deprecated|removed)\b|❌"
)
_PROMPT = re.compile(r"^\s*(?:\([\w.-]+\)\s*)?(?:[\w.@:~-]*[$%❯]|>)\s+")
_OPENS = re.compile(r"(\b(do|then|else)|[{(&|;\\])\s*$|^\s*(#|if\b|for\b|while\b|case\b)|<<")
"""The line above an indented one that is a command of its own."""
_OPERATORS = {"|", "||", "&&", ";", "&", "|&"}
_MAKE = re.compile(r"\$[({](\w+)[)}]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
    """One command as shown: the words after any prompt, at `line` of `file`."""

    file: TextFile
    line: int
    words: tuple[str, ...]


def shown_commands(source: Source) -> Iterator[Shown]:
    """Every command of fenced or indented blocks of documents, of recipes of Makefiles, and of shell scripts.

    A block that shows an error message, or says that it is wrong or old, is about the past and left out.
    """
    for file in source.documents:
        blocks = _restructured(file) if file.path.endswith(".rst") else _fenced(file)
        for start, lines in blocks:
            if not _FAILED.search("\n".join(lines)) and "❌" not in "\n".join(file.lines[max(0, start - 4) : start]):
                yield from _commands(file, start, _continued(lines))
    for file in source.texts:
        name = file.path.rpartition("/")[2]
        if name.endswith((".sh", ".bash", ".slurm", ".sbatch")):
            yield from _commands(file, 1, file.lines)
        elif name in ("Makefile", "makefile", "GNUmakefile") or name.endswith(".mk"):
            yield from _commands(file, 1, [_recipe(line) for line in file.lines])


def _continued(lines: list[str]) -> list[str]:
    """With "…" where a document goes on in an indented line without a backslash, to be read and not to be pasted."""
    return [
        f"{line} …" if line.strip() and _indent(below) > _indent(line) and not _OPENS.search(line) else line
        for line, below in itertools.zip_longest(lines, lines[1:], fillvalue="")
    ]


def _recipe(line: str) -> str:
    if not line.startswith("\t"):
        return "\\" if line.rstrip().endswith("\\") else ""
    return _MAKE.sub(r"$\1", line.strip().lstrip("@-+"))


def _fenced(file: TextFile) -> Iterator[tuple[int, list[str]]]:
    """Each fenced block of a shell, with the number of its first line."""
    closing = ""
    block: list[str] = []
    start = 0
    for number, line in enumerate(file.lines, start=1):
        fence = _FENCE.match(line)
        if closing:
            if line.strip().startswith(closing) and not line.strip().strip(closing[0]):
                if start:
                    yield start, block
                closing = ""
            else:
                block.append(line)
        elif fence:
            closing, block = fence[1], []
            start = number + 1 if fence[2].strip().lower() in _SHELLS else 0


def _restructured(file: TextFile) -> Iterator[tuple[int, list[str]]]:
    """Each indented literal block of reStructuredText that is of a shell or of no language."""
    lines = file.lines
    number = 0
    while number < len(lines):
        directive = _DIRECTIVE.match(lines[number])
        number += 1
        if directive is None:
            continue
        indent = len(directive[1])
        start = number
        while number < len(lines) and (not lines[number].strip() or _indent(lines[number]) > indent):
            number += 1
        if (directive[3] or "").lower() in _SHELLS:
            yield start + 1, lines[start:number]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _commands(file: TextFile, start: int, lines: list[str]) -> Iterator[Shown]:
    """The commands of some lines, continued lines joined; here-documents are left out."""
    pending, first, until = "", 0, ""
    prompted = any(re.match(r"^\s*(?:\([\w.-]+\)\s*)?[\w.@:~-]*\$\s", line) for line in lines)
    for number, line in enumerate(lines, start=start):
        if until:
            until = "" if line.strip() == until else until
            continue
        if not pending:
            bare = _PROMPT.sub("", line, count=1)
            if prompted and bare == line and line.strip():
                continue  # output of the commands
            line, first = bare, number
        here = re.search(r"<<-?\s*['\"]?(\w+)", line)
        until = here[1] if here else ""
        if line.rstrip().endswith("\\") and not until:
            pending += line.rstrip()[:-1] + " "
            continue
        for words in _split(pending + line):
            yield Shown(file=file, line=first, words=tuple(words))
        pending = ""


def _split(line: str) -> Iterator[list[str]]:
    """The words of each command of a line; a line that no shell could read gives none."""
    line = re.sub(r"[$<>]\([^()]*\)|`[^`]*`", "$SUBSTITUTED", line)
    line = re.sub(r"<[^<>|&;\s][^<>|&;]*>", lambda m: "<" + re.sub(r"\W+", "_", m[0][1:-1]) + ">", line)
    reader = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    reader.whitespace_split = True
    try:
        words = list(reader)
    except ValueError:
        return
    command: list[str] = []
    for word in words:
        if word in _OPERATORS:
            if command:
                yield command
            command = []
        else:
            command.append(word)
    if command:
        yield command
