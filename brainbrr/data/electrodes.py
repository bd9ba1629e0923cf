"""Which electrode a signal's label names: prefixes, references, case and the two nomenclatures.

Recordings call the same electrode `EEG FP1-REF`, `EEG FP1-LE`, `Fp1-Avg` or `fp1`, and T3 also `T7`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from brainbrr.config import ELECTRODES

_ALIASES = {"T7": "T3", "T8": "T4", "P7": "T5", "P8": "T6"}
_ELECTRODES = {name.upper(): name for name in ELECTRODES} | _ALIASES
# What may stand behind the dash without making the signal a bipolar derivation: a common reference.
_REFERENCES = {"REF", "LE", "AR", "AVG", "AV", "CAR", "AA", "A1", "A2", "A1A2", "A1+A2", "M1", "M2", "M1M2", "M1+M2"}
_SITE = re.compile(r"(FP|AF|FT|FC|TP|CP|PO|SP|F|T|C|P|O|A|M)(Z|\d{1,2})")
_DASH = re.compile("[\u2010-\u2015\u2212]")
_NOTHING = re.compile(r"[\s\ufeff\ufffd]+")  # spaces of any kind, a byte-order mark, a character that was lost
_SHOWN = 40


def electrode_of(label: str) -> str | None:
    """The electrode (a name of `config.ELECTRODES`) that a referential signal's label names, else None."""
    site, reference = _split(label)
    return _ELECTRODES.get(site) if reference in _REFERENCES or not reference else None


def reference_of(label: str) -> str:
    """What stands behind the dash, upper case; empty for a bare label."""
    return _split(label)[1]


def is_bipolar(label: str) -> bool:
    """Whether a label names the difference of two electrodes, as `FP1-F7` does."""
    return derivation_of(label) is not None


def derivation_of(label: str) -> tuple[str, str] | None:
    """The two sites whose difference a label names (of the 19 electrodes by their name here), else None.

    `T8-P8-0` and `T8-P8-1` are what readers make of a montage that holds `T8-P8` twice.
    """
    site, reference = _split(re.sub(r"-[01]$", "", label) if label.count("-") == 2 else label)
    if reference in _REFERENCES or not (_SITE.fullmatch(site) and _SITE.fullmatch(reference)):
        return None
    return _ELECTRODES.get(site, site), _ELECTRODES.get(reference, reference)


def describe_lack(missing: Sequence[str], found: Sequence[str]) -> str:
    """One sentence for a recording in which the `missing` electrodes are not among the labels `found`."""
    bipolar = [label for label in found if is_bipolar(label)]
    shown = ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
    if len(bipolar) > len(found) / 2:
        return (
            f"a bipolar montage ({shown}), in which no electrode can be told from its neighbour; expected the "
            f"{len(ELECTRODES)} electrodes against a common reference: export the recording referentially"
        )
    return (
        f"no signal for {', '.join(missing)} among {shown or 'no signals at all'}; expected the {len(ELECTRODES)} "
        "electrodes of the 10-20 system (Fz and Pz alone can be interpolated): rename the signals or leave the file out"
    )


def _split(label: str) -> tuple[str, str]:
    text = _NOTHING.sub("", _DASH.sub("-", _unmangled(label)).upper()).removeprefix("EEG").rstrip(".")
    site, _, reference = text.partition("-")
    return site, reference


def _unmangled(label: str) -> str:
    """The label with what was UTF-8 (a no-break space, a typographic dash) read as such; headers are Latin-1."""
    try:
        return label.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return label
