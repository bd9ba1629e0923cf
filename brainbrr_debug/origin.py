"""Names the operation in which a training failure was born, the line that called it, and why; and proves it.

Steps run untraced until something harmful happens. Then the very step is re-enacted from the state it started from,
under a tracer, and once more for each suspect with only that suspect's bad elements made finite: what heals is the
cause, what does not is acquitted.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from brainbrr_debug.investigation import Diagnosis, investigate, not_reproduced, not_traced, without_proof
from brainbrr_debug.records import Origin
from brainbrr_debug.subject import Batch, Run, Step, step_of
from brainbrr_debug.tracing import foreign, harm
from brainbrr_debug.tracing.births import tensors_in
from brainbrr_debug.tracing.finiteness import kinds
from brainbrr_debug.tracing.harm import Symptom
from brainbrr_debug.tracing.history import BATCH_ROOT, History, Moment
from brainbrr_debug.tracing.memento import Memento, Path
from brainbrr_debug.tracing.reenactment import Reenactment, Scope, Stage, Unobserved


def diagnose(
    model: Any,
    batches: Iterable[Any],
    loss_fn: Callable[[Any, Any], torch.Tensor],
    optimizer: Any,
    *,
    max_steps: int | None = None,
    in_place: bool = False,
) -> Origin:
    """Train on `batches` until something harmful happens, and return where it was born.

    A batch is `(inputs, target)`, inputs a tuple; a step is zero_grad, `model(*inputs)`, `loss_fn(output, target)`,
    backward, `optimizer.step()`. At most `max_steps` batches are drawn. Model, optimizer, batches and the global random
    generators are left as they were found, unless `in_place`: then as the training would have left them.

    Raises whatever the program raises, unless a non-finite value caused it.
    """
    entry = Memento([model, optimizer, loss_fn])
    session = _Session(model, loss_fn, optimizer)
    try:
        for number, batch in enumerate(itertools.islice(batches, max_steps)):
            origin = session.step(number, _as_batch(batch))
            if origin is not None:
                return origin
        return Origin(healthy=True)
    finally:
        if not in_place:
            session.restore_batches()
            entry.restore()


def trace_step(
    run: Run,
    micro_batches: Sequence[Batch],
    step_fn: Step | None = None,
    *,
    number: int = 0,
    strict: bool | None = None,
) -> Origin:
    """The origin of a failure in one step of `run`, which stands at the start of that step.

    `step_fn` is the program's step (default: `run.step`, else the plain one). With `strict`, a non-finite output or
    gradient that the step shows its gate counts as harmful, even if the program goes on to clean it; the default is
    strict unless the run scales its loss. `number` is what `Origin.step` will say. The run is left as it was found.

    Raises whatever the step raises, unless a non-finite value caused it.
    """
    step = step_fn or step_of(run)
    if strict is None:
        strict = not any(hasattr(thing, "get_scale") for thing in run.extra_state.values())
    start = Memento([run.model, run.optimizer, run.loss_fn, run.extra_state, micro_batches, step])

    def play(scope: Scope) -> list[Symptom]:
        gate = _Gate(run, scope, strict=strict)
        with gate.listening():
            step(micro_batches, gate)
        return gate.symptoms

    stage = Stage(model=run.model, optimizer=run.optimizer, batches=micro_batches, play=play, start=start)
    try:
        diagnosis = investigate(stage)
        return Origin(healthy=True) if diagnosis is None else diagnosis.origin(number)
    finally:
        start.restore()


class _Session:
    """The steps of one `diagnose`."""

    def __init__(self, model: Any, loss_fn: Callable[[Any, Any], torch.Tensor], optimizer: Any) -> None:
        self._model = model
        self._loss_fn = loss_fn
        self._optimizer = optimizer
        self._history = History()
        self._undo_data: dict[int, Callable[[], object]] = {}

    def step(self, number: int, batch: Batch) -> Origin | None:
        """Run one step cheaply; the origin if it did harm."""
        moment = Moment(step=number, batch=batch, start=Memento(self._roots(batch)))
        known = harm.nan_floats(self._model, self._optimizer)
        error: Exception | None = None
        symptoms: list[Symptom] = []
        with torch.no_grad():
            self._history.begin(moment)
        if not moment.start.complete:
            return self._step_under_trace(moment, known)
        try:
            symptoms = self._play(batch, Unobserved())
        except Exception as caught:  # noqa: BLE001 - raised again below unless a non-finite value caused it
            error = caught
        with torch.no_grad():
            symptoms += harm.symptoms_of_state(self._model, self._optimizer, moment.start, known)
            self._note_changed_data(moment)
        if not symptoms and error is None:
            return None
        after = Memento(self._roots(batch))
        try:
            origin = self._trace(moment, known)
        except Exception as untraceable:
            if error is not None:
                raise
            return not_traced(number, symptoms, untraceable)
        finally:
            after.restore()
        if origin is None and error is not None:
            raise error
        if origin is None and any(symptom.what != "buffer" for symptom in symptoms):
            return not_reproduced(number, symptoms)
        return origin

    def _step_under_trace(self, moment: Moment, known: frozenset[str]) -> Origin | None:
        """A step that may not be repeatable (a generator is part of its state): traced at its first run."""
        stage = self._stage(moment, known)
        reenactment = Reenactment(stage)
        first = reenactment.replay(restore=False)
        if first.healthy:
            return None
        after = Memento(self._roots(moment.batch))
        try:
            if not reenactment.replay().healthy:
                return self._trace(moment, known)
        finally:
            after.restore()
        diagnosis = without_proof(reenactment, first)
        if diagnosis is None and first.error is not None:
            raise first.error
        return not_reproduced(moment.step, first.symptoms) if diagnosis is None else diagnosis.origin(moment.step)

    def _trace(self, moment: Moment, known: frozenset[str]) -> Origin | None:
        """The origin of the harm in a step, in that step or in an earlier one that it goes back to."""
        for module in foreign.bad_parts(moment.batch):
            if self._healthy_without(moment, known, module):
                return foreign.arrival(moment.batch, module, moment.step)
        found = self._chase(moment, known, born=self._history.born)
        if found is not None and found[0].conviction.event.deliberate:  # a sentinel, say: look for who misused it
            found = self._chase(moment, known, born=frozenset()) or found
        return None if found is None else found[0].origin(found[1].step)

    def _healthy_without(self, moment: Moment, known: frozenset[str], module: str) -> bool:
        """Whether the step does no harm when the foreign numbers in one part of its batch are made finite."""
        inputs, target = moment.batch
        batch = (foreign.made_finite(inputs), target) if module == "<input>" else (inputs, foreign.made_finite(target))
        moment.start.restore()
        try:
            symptoms = self._play(batch, Unobserved())
        except Exception:  # noqa: BLE001 - whatever it is, the step is not healthy
            return False
        with torch.no_grad():
            return not symptoms + harm.symptoms_of_state(self._model, self._optimizer, moment.start, known)

    def _chase(self, moment: Moment, known: frozenset[str], born: frozenset[int]) -> tuple[Diagnosis, Moment] | None:
        """The culprit of the harm and the moment of its birth; memories in `born` are suspected from the start."""
        found = investigate(self._stage(moment, known, born=born))
        while found is not None and (arrival := found.conviction.event.arrival) is not None:
            birthday = self._history.birthday(arrival)
            if birthday is None or birthday.moment.step >= moment.step:
                break
            earlier = investigate(self._stage(birthday.moment, known, path=birthday.path, born=born))
            if earlier is None:
                break
            found, moment = earlier, birthday.moment
        return None if found is None else (found, moment)

    def _stage(
        self, moment: Moment, known: frozenset[str], path: Path | None = None, born: frozenset[int] = frozenset()
    ) -> Stage:
        return Stage(
            model=self._model,
            optimizer=self._optimizer,
            batches=[moment.batch],
            play=lambda scope: self._play(moment.batch, scope),
            start=moment.start,
            known=known,
            roots=self._roots(moment.batch),
            path=path,
            born=born,
        )

    def _roots(self, batch: Batch) -> list[object]:
        return [self._model, self._optimizer, self._loss_fn, batch]

    def restore_batches(self) -> None:
        """Undo what the program did to the tensors of the batches."""
        for undo in self._undo_data.values():
            undo()

    def _note_changed_data(self, moment: Moment) -> None:
        for key, undo in moment.start.undo_of_changes((BATCH_ROOT,)):
            self._undo_data.setdefault(key, undo)

    def _play(self, batch: Batch, scope: Scope) -> list[Symptom]:
        inputs, target = batch
        self._optimizer.zero_grad()
        scope.enter("forward")
        output = self._model(**inputs) if isinstance(inputs, Mapping) else self._model(*inputs)
        scope.enter("loss")
        loss = self._loss_fn(output, target)
        symptoms = _loss_symptoms(loss)
        scope.found(symptoms)
        scope.enter("backward")
        loss.backward()  # type: ignore[no-untyped-call]
        scope.enter("optimizer")
        self._optimizer.step()
        return symptoms


def _loss_symptoms(loss: Any) -> list[Symptom]:
    with torch.no_grad():
        found = kinds(loss) if isinstance(loss, torch.Tensor) else 0
    return [Symptom(what="loss", name="", found=found, tensor=loss)] if found else []


def _as_batch(batch: Any) -> Batch:
    inputs, target = batch
    return (inputs if isinstance(inputs, (tuple, list, Mapping)) else (inputs,)), target  # type: ignore[return-value]


class _Gate:
    """The gate of a step that is being re-enacted: lets everything pass, and notes what was bad."""

    def __init__(self, run: Run, scope: Scope, *, strict: bool) -> None:
        self.symptoms: list[Symptom] = []
        self._run = run
        self._scope = scope
        self._strict = strict

    def forward(self, output: Any, loss: torch.Tensor) -> None:
        """Note a bad loss, and a bad output where that counts."""
        self.symptoms += _loss_symptoms(loss)
        self._scope.found(self.symptoms)
        if self._strict:
            with torch.no_grad():
                for tensor in tensors_in(output):
                    if found := kinds(tensor):
                        self.symptoms.append(Symptom(what="output", name="output", found=found, tensor=tensor))
        self._scope.enter("backward")

    def gradients(self, norm: torch.Tensor | None = None) -> bool:
        """Note bad gradients where they count; the update goes on."""
        if self._strict:
            with torch.no_grad():
                for name, parameter in self._run.model.named_parameters():
                    if parameter.grad is not None and (found := kinds(parameter.grad)):
                        self.symptoms.append(Symptom(what="gradient", name=name, found=found, tensor=parameter.grad))
        self._scope.enter("optimizer")
        return True

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """While inside, the scope hears when the model's forward pass begins."""

        def enter(module: torch.nn.Module, inputs: Any) -> None:
            self._scope.enter("loss")  # inside the model the module on the stack decides

        handle = self._run.model.register_forward_pre_hook(enter)
        try:
            yield
        finally:
            handle.remove()
