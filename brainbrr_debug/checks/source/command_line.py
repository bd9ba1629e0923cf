"""What a command line of a repository accepts, as far as its source says: commands, options, arguments."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """An option by all its names; `values` is how many words follow it, None when any number may."""

    names: tuple[str, ...]
    values: int | None = 1
    choices: tuple[str, ...] = ()
    required: bool = False
    default: object = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Argument:
    """A word without a name of its own: at least `least` of it, at most `most` (None: any number).

    `rest`: it takes everything that is left, options too.
    """

    name: str
    least: int = 1
    most: int | None = 1
    rest: bool = False
    choices: tuple[str, ...] = ()


@dataclasses.dataclass(eq=False, kw_only=True)
class Command:
    """A command under construction: what `open` is may take more than its source shows, and is not judged for it.

    `abbreviates`: a unique beginning of a long option will do (argparse). `name` is what it
    calls itself, `file` and `line` where it is made.
    """

    file: str
    line: int
    name: str = ""
    options: list[Option] = dataclasses.field(default_factory=list)
    arguments: list[Argument] = dataclasses.field(default_factory=list)
    commands: dict[str, Command] = dataclasses.field(default_factory=dict)
    open: bool = False
    abbreviates: bool = False

    def option(self, name: str) -> Option | None:
        """The option of this name, or of which it is a beginning that no other option has."""
        for option in self.options:
            if name in option.names:
                return option
        if self.abbreviates and len(name) > 2:
            begun = [o for o in self.options if any(n.startswith(name) for n in o.names)]
            return begun[0] if len(begun) == 1 else None
        return None

    def every_option(self) -> Iterator[str]:
        """The long names, for a suggestion."""
        for option in self.options:
            yield from (name for name in option.names if name.startswith("--"))

    def include(self, other: Command) -> None:
        """Take over everything that another command accepts."""
        self.options += other.options
        self.arguments += other.arguments
        self.commands |= other.commands
        self.open |= other.open


HELP = Option(names=("--help", "-h"), values=0)
