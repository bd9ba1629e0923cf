"""What a subject's package knows of its configurations, in words that any project has. Imports no torch.

`subjects/` fills these in; checks judge them. Lengths of time in seconds, sizes in bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from brainbrr_debug.records import Reading


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """Why a configuration is refused, or (`unread`) a key of it that no code reads; `key` is dotted, "" the whole."""

    key: str
    message: str
    unread: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StateSpace:
    """The widths of one stack of Mamba-2 layers. `fused_convolution`: causal_conv1d's kernel is what runs."""

    key: str
    d_model: int
    expand: int
    headdim: int
    fused_convolution: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KernelIndex:
    """The elements of the largest tensor into which a kernel counts with `bits`: factors by what they are."""

    name: str
    factors: Mapping[str, int]
    bits: int = 32


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The learning rate as configured: `rates` of the first steps of the warm-up, by the code that training runs.

    Where the data are not at hand, `steps` of the run and `epoch_steps` of one epoch are None, and there are no
    `rates`. `key` sets the warm-up.
    """

    key: str
    peak: float
    epochs: float
    warmup_epochs: float
    steps: int | None
    epoch_steps: int | None
    warmup_steps: int | None
    rates: tuple[float, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Between what logits are held (None: free), where the loss stops telling them apart, and what decides an event."""

    key: str
    logits: tuple[float, float] | None
    loss: tuple[float, float] | None
    enter: float
    leave: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A key whose value needs a package (`module` as imported, `install` as a person types it)."""

    key: str
    module: str
    install: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A folder that a run reads or writes. `needs`: bytes it will take; `mapped`: its files are memory-mapped."""

    key: str
    path: Path
    needs: int = 0
    mapped: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """A configuration that this one stands for or beside, and how they differ beyond what a trial run may change."""

    path: Path
    differences: tuple[Objection, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Corner:
    """The loss at an extreme of its declared options and of the logits: value and largest gradient."""

    name: str
    loss: float
    gradient: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConfigFacts:
    """One configuration. With `objections` that are more than unread keys it is refused, and the rest is empty."""

    path: Path
    lines: Mapping[str, int]
    objections: tuple[Objection, ...] = ()
    unread: tuple[Objection, ...] = ()
    device: str = "auto"
    precision: str = "float32"
    workers: int = 0
    purpose: str = "training"
    expects: tuple[str, ...] = ()
    metric: str | None = None
    spaces: tuple[StateSpace, ...] = ()
    kernels: tuple[KernelIndex, ...] = ()
    bounds: Bounds | None = None
    features: tuple[Feature, ...] = ()
    places: tuple[Place, ...] = ()
    twin: Twin | None = None
    siblings: tuple[Twin, ...] = ()
    overrides: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def refused(self) -> bool:
        """Whether nothing can run with it."""
        return bool(self.objections)

    def line(self, key: str) -> int | None:
        """The line of a dotted key, or of the section that it would stand in."""
        while key:
            if key in self.lines:
                return self.lines[key]
            key = key.rpartition(".")[0]
        return None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CachedItem:
    """One recording in a cache. `positives`: labelled events, None where it is unlabelled; `group`: whose it is.

    `clipped`: share of the samples of each channel that were cut off; `largest`: magnitude, in units of scale.
    """

    name: str
    path: Path
    split: str
    group: str
    positives: int | None
    positive_seconds: float
    clipped: Mapping[str, float] = dataclasses.field(default_factory=dict)
    largest: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """What keeps a cache from being used: `kind` as in the ids of the checks, the file, and a sentence."""

    kind: str
    path: Path
    message: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChannelFault:
    """Channels of a recording that carry no signal of their own, from second to second."""

    recording: str
    path: Path
    kind: str
    channels: tuple[str, ...]
    start_s: float
    stop_s: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CacheFacts:
    """One cache. `foreign`: made by another program; `rebuild`: the command that makes it anew.

    `sources`: events and their seconds in the label files that it was made from, by split, where those are at hand.
    """

    path: Path
    foreign: bool
    rebuild: str
    items: tuple[CachedItem, ...] = ()
    damage: tuple[Damage, ...] = ()
    sources: Mapping[str, tuple[int, float]] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """A parameter that no step of a rehearsal moved; `reached`: a gradient came, and was zero throughout."""

    name: str
    elements: int
    reached: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A weight that the first forward pass computed anew from others; `change` of its norm, relative."""

    name: str
    change: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Differentiated:
    """A decomposition through whose vectors a gradient came back: operation, module, path:line."""

    op: str
    site: str
    location: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ordeal:
    """Forward and backward of one kind of input in one precision; `failed` says how, None: it did not."""

    input: str
    precision: str
    failed: str | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A component that can be computed in several ways: which one `key` asks for, and which one runs."""

    key: str
    asked: str
    used: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of a training step of `batch_size` samples by what they are; `key` sets the batch size.

    `at_most`: measured with kernels that keep more than those that will run.
    """

    key: str
    batch_size: int
    device: str
    bytes: Mapping[str, int]
    at_most: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class RehearsalFacts:
    """What a few watched steps and hostile inputs showed of a model. `input_rms`: of the ordinary batch."""

    readings: tuple[Reading, ...]
    input_rms: float = 1.0
    idle: tuple[Idle, ...] = ()
    derived: tuple[Derived, ...] = ()
    differentiated: tuple[Differentiated, ...] = ()
    ordeals: tuple[Ordeal, ...] = ()
    kernels: tuple[Kernel, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Growing:
    """Live tensor bytes behind successive batches of one evaluation, and the bytes of one output."""

    module: str
    live: tuple[int, ...]
    output: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmokeFacts:
    """What a user's short command did: files it wrote with their bytes, temporary ones it left, keys it never read.

    `code` and `said`: how it ended. `unread`: file and dotted key of YAML that it loaded.
    """

    command: str
    code: int
    said: str
    here: Path
    written: Mapping[Path, int]
    left: tuple[Path, ...] = ()
    growing: tuple[Growing, ...] = ()
    unread: tuple[tuple[str, str], ...] = ()
