"""A verdict or a run as one JSON document. Imports no torch."""

from __future__ import annotations

from typing import Any

from brainbrr_debug.records import SCHEMA, to_json
from brainbrr_debug.report.material import Material


def document(material: Material) -> dict[str, Any]:
    """Everything a report shows, as plain JSON types."""
    plain: dict[str, Any] = to_json(
        {
            "schema": SCHEMA,
            "run": material.name,
            "steps": material.steps,
            "verdicts": material.verdicts,
            "findings": material.findings,
            "environment": material.environment,
            "curves": material.curves,
            "first_abnormal": material.first_abnormal,
            "captures": material.captures,
            "damaged_lines": material.damaged,
        }
    )
    return plain
