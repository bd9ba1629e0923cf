"""`config.unread`, over source: fields of configuration classes and keys of YAML files that no expression reads."""

from __future__ import annotations

from collections.abc import Iterable

from brainbrr_debug.checks.source.config_classes import ConfigClasses
from brainbrr_debug.checks.source.config_reads import Reads
from brainbrr_debug.checks.source.found import found
from brainbrr_debug.checks.source.index import Source
from brainbrr_debug.records import Finding, Severity

ID = "config.unread"


def unread_fields(source: Source) -> Iterable[Finding]:
    """Fields that are set, documented and validated, and that nothing reads."""
    classes = ConfigClasses(source)
    reads = Reads(source, classes)
    for owner in classes.classes:
        for field, line in owner.fields.items():
            if not reads.read(owner, field):
                yield found(
                    ID,
                    Severity.P2,
                    owner.file.path,
                    line,
                    f"{owner.name}.{field} is read nowhere",
                    why="whoever sets it believes that it does something",
                    remedy=f"remove {field}, or read it where it belongs",
                )
