"""Where jobs are done: in this process, in processes forked for them, or wherever an executor does its work.

Here       a Subject that only this process knows, as an object: it may live in a notebook, hold a GPU or threads,
           and then it cannot be forked. A crash is the end of the caller, and nothing stops a hang.
Apart      a Subject that the capture names: each job in a process of its own, see `forkserver`.
Elsewhere  the same in every process of an executor, so that a trial that crashes breaks no pool.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from brainbrr_debug.capture import CaptureContent, write_capture
from brainbrr_debug.errors import CannotRunHere
from brainbrr_debug.forkserver import Forkserver
from brainbrr_debug.jobs import Answer, Job, perform
from brainbrr_debug.subject import Subject
from brainbrr_debug.trial import one_line

Pending = Callable[[], Answer]
"""To be called for the answer; waits for it."""


class Runner(Protocol):
    """Does jobs, `width` at a time."""

    width: int

    def submit(self, job: Job, timeout_s: float) -> Pending:
        """Begin the job; it is skipped when it is not done after `timeout_s` seconds."""


class Here:
    """In this process, one after the other."""

    width = 1

    def __init__(self, content: CaptureContent, subject: Subject) -> None:
        self._content, self._subject = content, subject

    def submit(self, job: Job, timeout_s: float) -> Pending:
        """Do the job at once; no time limit."""
        answer = perform(job, self._content, self._subject)
        return lambda: answer


class Apart:
    """Each job in a process of its own on this machine, over the capture at `path`."""

    def __init__(self, path: Path, *, jobs: int = 1) -> None:
        self.width = jobs
        self._server = Forkserver(path)
        self._threads = ThreadPoolExecutor(jobs)

    def submit(self, job: Job, timeout_s: float) -> Pending:
        """Have a process forked for the job."""
        return self._threads.submit(self._server.ask, job, timeout_s).result

    def close(self) -> None:
        """End what runs, and the processes."""
        self._server.close()
        self._threads.shutdown()


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """A capture for other processes: a path that no other file has, and its bytes for those that cannot see it."""

    path: str
    data: bytes | None = dataclasses.field(default=None, repr=False)


class Elsewhere:
    """Each job in a process of its own wherever `executor` works. It stays the caller's to shut down."""

    width = sys.maxsize

    def __init__(self, executor: Executor, path: Path) -> None:
        self._executor, self._path = executor, path
        self._data: bytes | None = None

    def submit(self, job: Job, timeout_s: float) -> Pending:
        """Hand the job to the executor."""
        return functools.partial(self._answer, self._send(job, timeout_s), job, timeout_s)

    def close(self) -> None:
        """End what was forked in this very process; the processes of others end when they have been idle for long."""
        let_go(str(self._path))

    def _send(self, job: Job, timeout_s: float) -> Future[Answer | None]:
        try:
            return self._executor.submit(ask_there, Source(str(self._path), self._data), job, timeout_s)
        except RuntimeError as error:  # BrokenExecutor is one, and so is what an executor says that was shut down
            raise _broken(error) from error

    def _answer(self, sent: Future[Answer | None], job: Job, timeout_s: float) -> Answer:
        try:
            answer = sent.result()
        except BrokenExecutor as error:
            raise _broken(error) from error
        except Exception as error:  # noqa: BLE001 - the seam: what an executor says of a lost worker is an outcome
            return Answer(skipped=one_line(error))
        if answer is None:
            self._data = self._path.read_bytes()
            return self._answer(self._send(job, timeout_s), job, timeout_s)
        return answer


def _broken(error: RuntimeError) -> CannotRunHere:
    return CannotRunHere(
        f"the executor does no more work ({one_line(error)}): give one that works; with --resume no trial is lost"
    )


@contextlib.contextmanager
def working(
    content: CaptureContent, *, subject: Subject | None = None, jobs: int = 1, executor: Executor | None = None
) -> Iterator[Runner]:
    """Who does the jobs over `content`; closed at the end, however that comes.

    `jobs` processes here, or as many as `executor` takes; with a `subject`, which only this process may know, itself.
    """
    if subject is not None:
        yield Here(content, subject)
        return
    with tempfile.TemporaryDirectory(prefix="brainbrr-debug-") as place:
        path = write_capture(Path(place) / "capture.h5", content)
        runner = Apart(path, jobs=jobs) if executor is None else Elsewhere(executor, path)
        try:
            yield runner
        finally:
            runner.close()


# In the processes of an executor -------------------------------------------------------------------------------------

_servers: dict[str, tuple[Forkserver, Path | None]] = {}
_lock = threading.Lock()


def ask_there(source: Source, job: Job, timeout_s: float) -> Answer | None:
    """Do the job in a process forked here; None when the capture cannot be seen from here and no bytes came."""
    with _lock:
        if source.path not in _servers:
            copy = None
            if not Path(source.path).exists():
                if source.data is None:
                    return None
                copy = Path(tempfile.mkdtemp(prefix="brainbrr-debug-")) / "capture.h5"
                copy.write_bytes(source.data)
            _servers[source.path] = Forkserver(copy or Path(source.path)), copy
        server, _ = _servers[source.path]
    return server.ask(job, timeout_s)


def let_go(path: str) -> None:
    """End the processes that were forked here for the capture at `path`."""
    server, copy = _servers.pop(path, (None, None))
    if server is not None:
        server.close()
    if copy is not None:
        shutil.rmtree(copy.parent, ignore_errors=True)


@atexit.register
def _let_go_of_all() -> None:
    for path in list(_servers):
        let_go(path)
