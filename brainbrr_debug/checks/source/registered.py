"""The checks over source, as triage knows them. Imports no torch.

All of them advise: on repositories at which they look for the first time none is right in 95 of 100 findings (README,
static checks of triage). `--strict` lets them fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from brainbrr_debug.checks.registry import Given, check
from brainbrr_debug.checks.source import dependencies, docs_cli, docs_numbers, docs_paths, unread, unread_yaml
from brainbrr_debug.checks.source.call_drift import call_drift
from brainbrr_debug.checks.source.claims import claims, read_claims
from brainbrr_debug.checks.source.env_at_import import env_at_import
from brainbrr_debug.checks.source.eval_growth import eval_growth
from brainbrr_debug.checks.source.index import Source
from brainbrr_debug.checks.source.sanitisers import uncounted_sanitiser
from brainbrr_debug.checks.source.swallow import swallow
from brainbrr_debug.checks.source.tempfiles import tempfiles
from brainbrr_debug.records import Finding, Severity
from brainbrr_debug.triage.shipped import shipped

Judge = Callable[[Source], Iterable[Finding]]
P1, P2, P3 = Severity.P1, Severity.P2, Severity.P3


def _register(id: str, severity: Severity, summary: str, judge: Judge) -> None:
    @check(id, severity, needs="source", summary=summary, advises=True)
    def look(given: Given) -> Iterator[Finding]:
        for path, reason in given.sources.unparsed:
            given.note(f"not judged, it does not parse: {path} ({reason})")
        yield from judge(given.sources)


def _claims(source: Source) -> Iterator[Finding]:
    """The claims that are shipped, and those of the repository's own `triage/claims.yaml`."""
    own = source.root / "triage" / "claims.yaml"
    known = {
        claim.term: claim for path in (shipped("claims.yaml"), own) if path.is_file() for claim in read_claims(path)
    }
    yield from claims(source, tuple(known.values()))


def _unread(source: Source) -> Iterator[Finding]:
    yield from unread.unread_fields(source)
    yield from unread_yaml.unread_keys(source)


_register("config.unread", P2, "a key that no code reads", _unread)
_register("deps.undeclared", P2, "a module is imported that no requirement gives", dependencies.undeclared)
_register("deps.unused", P3, "a requirement that nothing imports", dependencies.unused)
_register("docs.cli", P2, "a documented command that the program would refuse", docs_cli.docs_cli)
_register("docs.numbers", P3, "a documented default that is not the default", docs_numbers.docs_numbers)
_register("docs.paths", P3, "a cache that no document names, or a link that leads nowhere", docs_paths.docs_paths)
_register("source.call_drift", P2, "a cache, seed or device passed here and left out there", call_drift)
_register("source.claims", P2, "a method is called by the name of another", _claims)
_register("source.env_at_import", P2, "the environment is read when a module is imported", env_at_import)
_register("source.eval_growth", P2, "an evaluation keeps the tensors of every batch", eval_growth)
_register("source.swallow", P1, "a broad except hides the error", swallow)
_register("source.tempfiles", P2, "a temporary file that nobody removes", tempfiles)
_register("source.uncounted_sanitiser", P2, "NaNs are made into numbers and not counted", uncounted_sanitiser)
