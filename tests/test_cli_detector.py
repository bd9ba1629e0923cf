"""Every command of `brainbrr`: what it leaves, what it says where the input is wrong, and its exit code."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from brainbrr.cli import cli
from brainbrr.data.synthetic import write_corpus
from brainbrr.training.checkpoint import load_checkpoint
from brainbrr.training.loop import Trainer
from brainbrr_debug.capture import read_capture
from brainbrr_debug.main import exit_code
from brainbrr_debug.quantities import GRADIENT_NORM, OUTPUT_SUM
from brainbrr_debug.rundir import RunDir

ROOT = Path(__file__).parent.parent


class Result:
    """What a command left: exit code, stdout, stderr."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""

        def refuse(literal: str) -> None:
            raise AssertionError(f"{literal} is no JSON")

        return json.loads(self.out, parse_constant=refuse)

    @property
    def error(self) -> str:
        """The one line that says what is wrong."""
        assert "Traceback" not in self.err
        (line,) = [line for line in self.err.splitlines() if line.lower().startswith("error: ")]
        return line


Run = Callable[..., Result]


@pytest.fixture
def brainbrr(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> Result:
        capsys.readouterr()
        code = exit_code(cli, [str(argument) for argument in arguments])
        return Result(code, *capsys.readouterr())

    return run


def tiny(place: Path) -> dict[str, Any]:
    """The smallest thing that trains: two layers, windows of 10 s, six steps an epoch."""
    return {
        "data": {
            "data_dir": str(place / "corpus"),
            "cache_dir": str(place / "cache"),
            "window_size": 10,
            "stride": 10,
            "use_balanced_sampling": False,
        },
        "model": {"architecture": "tcn", "tcn": {"num_layers": 1, "channels": [4], "stride_down": 512}},
        "training": {"batch_size": 2, "log_every": 1},
        "evaluation": {"stride": 10},
        "experiment": {"output_dir": str(place / "runs")},
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus and a configuration of it; a test that changes the corpus makes one of its own."""
    place = tmp_path_factory.mktemp("cli")
    write_corpus(place / "corpus", patients=1, minutes=1, seizures=1, lookalikes=0, seed=3, splits=("train", "dev"))
    (place / "tiny.yaml").write_text(yaml.safe_dump(tiny(place)))
    return place


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    """The run directory of a finished run."""
    sets = ["--set", "experiment.name=trained"]
    assert exit_code(cli, ["train", str(place / "tiny.yaml"), *sets]) == 0
    (path,) = (place / "runs").glob("*-trained")
    return path


@pytest.fixture(scope="module")
def state_dict(trained: Path) -> Iterator[Path]:
    """Weights alone, as another program would save them."""
    path = trained.parent / "weights.pt"
    torch.save(load_checkpoint(trained / "checkpoints/last.pt").state["model"], path)
    yield path
    path.unlink()


# Help


@pytest.mark.parametrize("command", [None, *sorted(cli.commands)])
def test_help(command: str | None, brainbrr: Run) -> None:
    result = brainbrr(*([command] if command else []), "--help")
    assert result.code == 0
    assert result.out.startswith("Usage: ")
    if command:
        for option in ("--format [text|json]", "--output PATH", "--force"):
            assert option in result.out


# Wrong input: one line on stderr, nothing on stdout, the right code


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("train {place}/none.yaml", r"none.yaml: No such file or directory; expected a YAML file such as configs/"),
        ("train {place}", r"Is a directory; expected a YAML file"),
        ("train {config} --set training.epoch=3", "unknown key training.epoch; did you mean training.epochs?"),
        ("train {config} --set training.epochs=0", "training.epochs: Input should be greater than or equal to 1"),
        ("train {config} --set training.weight_decay=.inf", "weight_decay: Input should be a finite number"),
        ("train {config} --set training=3", "training: Input should be a valid dictionary"),
        ("train {config} --set experiment.name.first=x --set experiment.name=y --set experiment.name.z=1",
         "experiment.name.z: name is 'y'; expected a section that can hold a key"),
        ("train {config} --set model.clamp=[3,1]", "model: clamp is 3 to 1; expected a lower and a higher bound"),
        ("train {config} --set data.stride=0.001", "data.stride: Input should be greater than or equal to 0.0039"),
        ("train {config} --set experiment.seed=-1", "experiment.seed: Input should be greater than or equal to 0"),
        ("train {config} --device cuda", "experiment.device is cuda and torch finds no CUDA device"),
        ("train {config} --set model.architecture=v3 --set model.mamba.headdim=5",
         "model: headdim is 5, which does not divide"),
        ("train {config} --set data.data_dir={place}/none", "none: no such folder; expected one of rec"),
        ("train {config} --set data.data_dir={empty}", "empty holds no .edf file; expected recordings below it"),
        ("train {config} --resume {place}/none", "last.pt: no such file; expected a checkpoint"),
        ("train {config} --set model.mamba.backend=mamba_ssm --set model.architecture=v3",
         "mamba.backend is mamba_ssm on cpu; expected a CUDA device; set model.mamba.backend to torch"),
        ("build-cache --data-dir {place}/none --cache-dir {place}/c", "none: no such folder; expected one of rec"),
        ("build-cache --data-dir {empty} --cache-dir {place}/c", "holds no .edf file"),
        ("build-cache --data-dir {place}/corpus --cache-dir {place}/c --config {place}/none", "none: No such"),
        ("build-cache --data-dir {place}/corpus --cache-dir {place}/c --set preprocessing.notch=50",
         "--set: unknown key preprocessing.notch; did you mean preprocessing.notch_freq?"),
        ("scan-cache --cache-dir {place}/none", "none holds no cache; expected train.json"),
        ("scan-cache --cache-dir {empty}", "holds no cache"),
        ("synthesize {place}/new --artefact flatt", "artefact 'flatt' is unknown; expected one of flat"),
        ("synthesize {config}", "tiny.yaml is a file; expected a folder to write the corpus into"),
        ("synthesize {place}/corpus", "--force"),
        ("evaluate {place}/none.pt {place}/corpus", "none.pt: no such file; expected a checkpoint"),
        ("evaluate {config} {place}/corpus", "truncated, or no PyTorch checkpoint"),
        ("evaluate {last} {place}/none", "none: no such folder; expected one of rec"),
        ("evaluate {last} {empty} --split train", "holds no .edf file"),
        ("evaluate {last} {place}/corpus --set model.tcn.num_layers=2", "its weights are of another model (missing"),
        ("evaluate {last} {place}/corpus --set evaluation.stirde=1", "did you mean evaluation.stride?"),
        ("evaluate {weights} {place}/corpus --split dev",
         "a checkpoint without configuration; give the one it was trained with by --config"),
        ("evaluate {last} {place}/corpus --config {other}", "trained with another `model` section than --config has"),
        ("info {place}/none.yaml", "none.yaml: No such file"),
        ("info {config} --set model.tcn.kernel=3", "did you mean model.tcn.kernel_size?"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_and_exit_code_2(
    arguments: str, line: str, brainbrr: Run, place: Path, trained: Path, state_dict: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty/edf/train").mkdir(parents=True)
    other = tiny(place)
    other["model"]["tcn"]["channels"] = [5]
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    names = {"place": place, "config": place / "tiny.yaml", "empty": tmp_path / "empty", "weights": state_dict}
    names |= {"last": trained / "checkpoints/last.pt", "other": tmp_path / "other.yaml"}
    before = sorted((place / "runs").iterdir())
    result = brainbrr(*arguments.format(**names).split(" "))
    assert line in result.error
    assert (result.code, result.out) == (2, "")
    assert sorted((place / "runs").iterdir()) == before  # nor is an empty run left behind


@pytest.mark.parametrize("arguments", ["train", "info --bogus", "nonsense", "evaluate x", "train c --format xml"])
def test_wrong_usage_is_exit_code_2(arguments: str, brainbrr: Run) -> None:
    result = brainbrr(*arguments.split())
    assert "Error: " in result.error
    assert (result.code, result.out) == (2, "")


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_no_command_overwrites_its_output_without_force(
    name: str, brainbrr: Run, place: Path, trained: Path, tmp_path: Path
) -> None:
    labels = next((place / "corpus").rglob("*.csv_bi"))
    last = trained / "checkpoints/last.pt"
    arguments = {
        "train": ["train", place / "tiny.yaml", "--set", "training.max_steps=1"],
        "build-cache": ["build-cache", "--data-dir", place / "corpus", "--cache-dir", tmp_path / "cache"],
        "scan-cache": ["scan-cache", "--cache-dir", place / "cache"],
        "synthesize": ["synthesize", tmp_path / "new", "--patients", 1, "--minutes", 1, "--split", "train"],
        "evaluate": ["evaluate", last, place / "corpus", "--split", "dev"],
        "info": ["info", place / "tiny.yaml"],
        "predict": ["predict", labels.with_suffix(".edf"), tmp_path / "a.csv_bi", "--checkpoint", last],
        "inspect": ["inspect", labels.with_suffix(".edf")],
        "score": ["score", labels, labels],
        "convert": ["convert", labels, tmp_path / "a_events.tsv"],
    }[name]
    if name == "evaluate":
        arguments += ["--cache-dir", place / "cache"]
    output = tmp_path / "result.json"
    output.write_text("precious")
    refused = brainbrr(*arguments, "--format", "json", "--output", output)
    assert refused.code == 2 and "exists; give another --output, or --force to overwrite it" in refused.error
    assert output.read_text() == "precious"
    written = brainbrr(*arguments, "--format", "json", "--output", output, "--force")
    assert (written.code, written.out) == (0, "")
    assert Result(0, output.read_text(), "").document
    assert f"Wrote {output}" in written.err


# train


def test_a_run_leaves_what_later_commands_read(brainbrr: Run, place: Path, trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} >= {"config.yaml", "environment.json", "readings.jsonl"}
    assert {path.name for path in (trained / "checkpoints").iterdir()} == {"last.pt", "best.pt"}
    assert load_checkpoint(trained / "checkpoints/last.pt").step == 3
    again = brainbrr("train", trained / "config.yaml", "--format", "json")
    document = again.document
    assert (again.code, document["stopped"], document["steps"]) == (0, False, 3)
    assert document["watch"]["steps"] == 3 and document["watch"]["incidents"] == 0
    assert document["run"] != str(trained)
    lines = again.err.splitlines()
    assert [line.split()[0] for line in lines if "cache" not in line[:6]][:5] == [
        "device", "precision", "detector", "backend", "run",
    ]  # fmt: skip
    same = (load_checkpoint(Path(run) / "checkpoints/last.pt").state["model"] for run in (trained, document["run"]))
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in same), strict=True))


def test_text_names_the_checkpoint_and_what_was_altered(brainbrr: Run, place: Path) -> None:
    result = brainbrr("train", place / "tiny.yaml", "--set", "training.max_steps=1")
    first, second = result.out.splitlines()
    assert first.startswith("finished 1 steps in ") and first.endswith("; nothing skipped or altered")
    assert Path(second).name == "last.pt" and Path(second).is_file()


def test_device_and_overrides_are_recorded(brainbrr: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BGB_SMOKE_TEST", "1")
    result = brainbrr("train", place / "tiny.yaml", "--device", "cpu", "--set", "device=auto", "--format", "json")
    run = RunDir.open(result.document["run"])
    assert run.environment()["overrides"]["BGB_SMOKE_TEST"]["changes"]["data.limit_files"] == 3
    assert run.config()["experiment"]["device"] == "cpu"  # the option is stronger than --set
    assert "override    BGB_SMOKE_TEST=1 sets data.limit_files=3" in result.err


@pytest.mark.parametrize("watched", [True, False])
def test_an_interrupted_run_prints_the_command_that_resumes_it_exactly(
    watched: bool, brainbrr: Run, place: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Trainer._train_step

    def interrupted(self: Trainer, windows: Any) -> None:
        if self.step == 2:
            raise KeyboardInterrupt
        real(self, windows)

    sets = ["--set", f"watch.enabled={watched}"]
    monkeypatch.setattr(Trainer, "_train_step", interrupted)
    stopped = brainbrr("train", place / "tiny.yaml", *sets)
    assert (stopped.code, stopped.out) == (130, "")
    (line,) = [line for line in stopped.err.splitlines() if "to go on: " in line]
    assert line.startswith("interrupted in step 2, the state before step 2 is saved; to go on: brainbrr train ")
    monkeypatch.undo()
    arguments = line.partition("to go on: brainbrr ")[2].split()
    resumed = brainbrr(*arguments, "--format", "json")
    assert (resumed.code, resumed.document["steps"]) == (0, 3)
    assert resumed.document["run"] == arguments[-1]
    straight = load_checkpoint(trained / "checkpoints/last.pt")
    for other in (load_checkpoint(Path(arguments[-1]) / "checkpoints/last.pt"),):
        assert torch.equal(other.rng["cpu"], straight.rng["cpu"])
        for name, tensor in straight.state["model"].items():
            assert torch.equal(tensor, other.state["model"][name])


def test_an_interruption_before_anything_is_saved_says_so(
    brainbrr: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(self: Trainer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "train", torn)
    result = brainbrr("train", place / "tiny.yaml")
    assert result.code == 130
    assert "interrupted in step 0, before anything was saved" in result.err


def test_a_longer_run_resumes_from_a_shorter_one_and_another_configuration_is_refused(
    brainbrr: Run, place: Path, trained: Path
) -> None:
    run = shutil.copytree(trained, trained.parent / "copy")
    longer = brainbrr("train", run / "config.yaml", "--resume", run, "--set", "training.epochs=2", "--format", "json")
    assert (longer.code, longer.document["steps"], longer.document["run"]) == (0, 6, str(run))
    assert RunDir.open(run).config()["training"]["epochs"] == 2
    other = brainbrr("train", run / "config.yaml", "--resume", run, "--set", "training.learning_rate=1")
    assert other.code == 2
    assert "was started with another configuration: training.learning_rate: 0.0003, now 1.0; give" in other.error
    shutil.rmtree(run)


def test_a_run_whose_last_checkpoint_is_broken_or_foreign_cannot_go_on(
    brainbrr: Run, place: Path, trained: Path, state_dict: Path
) -> None:
    run = shutil.copytree(trained, trained.parent / "broken")
    last = run / "checkpoints/last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    truncated = brainbrr("train", run / "config.yaml", "--resume", run)
    assert truncated.code == 2 and "last.pt: truncated" in truncated.error
    shutil.copy(state_dict, last)
    foreign = brainbrr("train", run / "config.yaml", "--resume", run)
    assert foreign.code == 2 and "last.pt: weights alone, which a run cannot go on from" in foreign.error
    shutil.rmtree(run)


def test_tensorboard_writes_beside_the_run(brainbrr: Run, place: Path) -> None:
    pytest.importorskip("tensorboard")
    with_log = brainbrr("train", place / "tiny.yaml", "--format", "json", "--set", "experiment.tensorboard=true")
    assert list((Path(with_log.document["run"]) / "tensorboard").iterdir())


def test_no_seizure_to_learn_from_is_exit_code_1_with_the_counts(brainbrr: Run, place: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "c", patients=2, minutes=0.5, seizures=0, lookalikes=0, seed=3, splits=("train",))
    sets = ["--set", f"data.data_dir={tmp_path / 'c'}", "--set", f"data.cache_dir={tmp_path / 'cache'}"]
    result = brainbrr("train", place / "tiny.yaml", *sets)
    assert (result.code, result.out) == (1, "")
    assert "0 seizures in 2 training recordings (0 without labels); expected at least one" in result.error


def truncate_a_recording(corpus: Path, split: str) -> str:
    """Cut the first recording of a split in the middle of its header; returns its name."""
    path = sorted((corpus / "edf" / split).rglob("*.edf"))[0]
    path.write_bytes(path.read_bytes()[:1000])
    return path.stem


def test_a_truncated_recording_is_named_and_the_rest_is_trained_on(brainbrr: Run, place: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "c", patients=2, minutes=1, seizures=1, lookalikes=0, seed=3, splits=("train",))
    name = truncate_a_recording(tmp_path / "c", "train")
    sets = ["--set", f"data.data_dir={tmp_path / 'c'}", "--set", f"data.cache_dir={tmp_path / 'cache'}"]
    result = brainbrr("train", place / "tiny.yaml", *sets)
    assert result.code == 0
    (line,) = [line for line in result.err.splitlines() if line.startswith("left out ")]
    assert name in line and "header" in line
    built = brainbrr("build-cache", "--data-dir", tmp_path / "c", "--cache-dir", tmp_path / "cache", "--format", "json")
    assert built.code == 1
    assert [failure["name"] for failure in built.document["failed"]] == [name]


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_nothing_but_a_truncated_recording_is_one_line(
    command: str, brainbrr: Run, place: Path, trained: Path, tmp_path: Path
) -> None:
    write_corpus(tmp_path / "c", patients=1, minutes=1, seizures=1, lookalikes=0, seed=3, splits=("train",))
    name = truncate_a_recording(tmp_path / "c", "train")
    if command == "train":
        sets = ["--set", f"data.data_dir={tmp_path / 'c'}", "--set", f"data.cache_dir={tmp_path / 'cache'}"]
        result = brainbrr("train", place / "tiny.yaml", *sets)
    else:
        options = ["--split", "train", "--cache-dir", tmp_path / "cache"]
        result = brainbrr("evaluate", trained / "checkpoints/last.pt", tmp_path / "c", *options)
    assert (result.code, result.out) == (2, "")
    assert name in result.error


# The incident, small


@pytest.fixture(scope="module")
def incident(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """configs/local/batch7.yaml with fewer patients, shorter windows and narrower layers."""
    place = tmp_path_factory.mktemp("incident")
    config = yaml.safe_load((ROOT / "configs/local/batch7.yaml").read_text())
    corpus = {"patients": 2, "minutes": 3, "seizures": 1, "lookalikes": 0, "artefacts": ["flat"], "seed": 42}
    config["data"] |= {"data_dir": str(place / "corpus"), "cache_dir": str(place / "cache"), "synthetic": corpus}
    config["data"] |= {"window_size": 10, "stride": 20}
    config["model"]["tcn"] |= {"num_layers": 1, "channels": [8]}
    config["model"]["mamba"] |= {"d_model": 8, "d_state": 4, "headdim": 4, "chunk_size": 4}
    config["model"]["graph"] |= {"edge_mamba_d_model": 4, "n_layers": 1}
    config["training"] |= {"batch_size": 2, "checkpoint_interval": 1}
    config["evaluation"] = {"stride": 10}
    config["experiment"] |= {"output_dir": str(place / "runs"), "seed": 42}
    (place / "incident.yaml").write_text(yaml.safe_dump(config))
    return place


def last_weights(run: str) -> torch.Tensor:
    state = load_checkpoint(Path(run) / "checkpoints/last.pt").state["model"]
    return torch.cat([tensor.flatten() for tensor in state.values()])


def test_stop_captures_the_step_and_leaves_healthy_weights(brainbrr: Run, incident: Path) -> None:
    result = brainbrr("train", incident / "incident.yaml", "--format", "json")
    document = result.document
    assert (result.code, document["stopped"]) == (1, True)
    capture = read_capture(Path(document["capture"]))
    assert capture.step == document["step"] == document["finding"]["step"]
    assert all(torch.isfinite(tensor).all() for tensor in capture.model_state.values())
    assert torch.isfinite(last_weights(document["run"])).all()
    assert load_checkpoint(Path(document["run"]) / "checkpoints/last.pt").step == document["step"]
    (artefact,) = json.loads((incident / "corpus/artefacts.json").read_text())
    assert artefact["recording"] in {sample["recording"] for batch in capture.identities for sample in batch}
    text = brainbrr("train", incident / "incident.yaml")
    assert text.code == 1
    assert text.out.startswith(f"stopped: step {document['step']}: the gradient is not finite")
    assert "brainbrr-debug bisect " in text.out


def test_skip_drops_the_step_counts_it_and_goes_on(brainbrr: Run, incident: Path) -> None:
    arguments = ["train", incident / "incident.yaml", "--set", "training.on_nonfinite=skip"]
    result = brainbrr(*arguments, "--format", "json")
    document = result.document
    assert (result.code, document["stopped"]) == (0, False)
    assert document["watch"]["skipped"] == document["watch"]["incidents"] > 0
    assert torch.isfinite(last_weights(document["run"])).all()
    assert result.err.count("! not updated") == document["watch"]["skipped"]
    assert f"{document['watch']['skipped']} skipped" in brainbrr(*arguments).out
    limited = brainbrr(*arguments, "--set", "training.max_skipped_steps=0", "--format", "json")
    assert (limited.code, limited.document["stopped"]) == (1, True)


def test_sanitize_shows_the_historical_symptom_and_says_what_it_altered(brainbrr: Run, incident: Path) -> None:
    arguments = ["train", incident / "incident.yaml", "--set", "training.on_nonfinite=sanitize"]
    result = brainbrr(*arguments, "--format", "json")
    document = result.document
    assert (result.code, document["stopped"]) == (0, False)
    steps = [line for line in result.err.splitlines() if line.startswith("step ")]
    losses = [float(line.split()[line.split().index("loss") + 1]) for line in steps]
    assert all(0 < loss < 1 for loss in losses)  # plausible to the end
    assert not torch.isfinite(last_weights(document["run"])).all()
    readings = RunDir.open(document["run"]).readings().items
    sums = {reading.step: reading.value for reading in readings if reading.quantity == OUTPUT_SUM}
    norms = {reading.step: reading.value for reading in readings if reading.quantity == GRADIENT_NORM}
    cause = min(step for step, norm in norms.items() if math.isnan(norm))
    assert [step for step, total in sums.items() if math.isnan(total)] == list(range(cause + 1, len(steps)))
    assert document["altered"]["logits"] == 2 * 2560 * (len(steps) - cause - 1)  # all of them, and nothing before
    assert document["metrics"]["auroc"] == "nan" and document["best"] is None
    assert "validation  not possible" in result.err
    assert f"{document['altered']['logits']} logits sanitised" in brainbrr(*arguments).out


def test_a_detector_whose_output_is_not_finite_is_exit_code_1(brainbrr: Run, incident: Path) -> None:
    sets = ["--set", "training.on_nonfinite=record"]
    run = Path(brainbrr("train", incident / "incident.yaml", "--format", "json", *sets).document["run"])
    options = ["--split", "dev", "--cache-dir", incident / "cache"]
    result = brainbrr("evaluate", run / "checkpoints/last.pt", incident / "corpus", *options, "--format", "json")
    assert (result.code, result.document["stopped"]) == (1, True)
    assert "logits are not finite" in result.document["message"]


# evaluate


def test_evaluate_scores_every_recording(brainbrr: Run, place: Path, trained: Path) -> None:
    arguments = ["evaluate", trained / "checkpoints/best.pt", place / "corpus", "--cache-dir", place / "cache"]
    result = brainbrr(*arguments, "--split", "dev", "--thresholds-from", "train", "--format", "json")
    document = result.document
    assert (result.code, document["stopped"], document["failed"]) == (0, False, [])
    assert len(document["recordings"]) == 1 and document["pooled"]["threshold_source"] == "train"
    assert "thresholds  chosen on train" in result.err
    text = brainbrr(*arguments, "--split", "dev")
    assert text.out.splitlines()[0].split()[:4] == ["recording", "patient", "hours", "AUROC"]


def test_evaluate_draws_into_a_folder_and_one_page(brainbrr: Run, place: Path, trained: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", trained / "checkpoints/last.pt", place / "corpus", "--cache-dir", place / "cache"]
    arguments += ["--split", "dev", "--figures", tmp_path / "figures", "--html", tmp_path / "page.html"]
    result = brainbrr(*arguments)
    assert result.code == 0 and f"Wrote {tmp_path / 'page.html'}" in result.err
    assert "last.pt on corpus, dev" in (tmp_path / "page.html").read_text()
    assert (tmp_path / "figures/reliability.png").is_file()
    refused = brainbrr(*arguments)
    assert refused.code == 2 and "--force to overwrite" in refused.error


def test_evaluate_chooses_thresholds_on_dev_where_there_is_one(brainbrr: Run, trained: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "c", patients=1, minutes=1, seizures=1, lookalikes=0, seed=3, splits=("dev", "eval"))
    options = ["--cache-dir", tmp_path / "k", "--format", "json"]
    arguments = ["evaluate", trained / "checkpoints/last.pt", tmp_path / "c", *options]
    assert brainbrr(*arguments).document["pooled"]["threshold_source"] == "dev"
    itself = brainbrr(*arguments, "--thresholds-from", "eval").document
    assert itself["pooled"]["threshold_source"] == "these recordings"
    for labels in (tmp_path / "c/edf/dev").rglob("*.csv_bi"):
        labels.unlink()
    unlabelled = brainbrr(*arguments)
    assert unlabelled.document["pooled"]["threshold_source"] == "these recordings"
    assert "thresholds  chosen on eval itself: dev has no labels" in unlabelled.err


def test_evaluate_names_what_it_could_not_read(brainbrr: Run, trained: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "c", patients=2, minutes=1, seizures=1, lookalikes=0, seed=3, splits=("eval",))
    name = truncate_a_recording(tmp_path / "c", "eval")
    options = ["--cache-dir", tmp_path / "k", "--format", "json"]
    result = brainbrr("evaluate", trained / "checkpoints/last.pt", tmp_path / "c", *options)
    assert result.code == 0 and len(result.document["recordings"]) == 1
    assert [failure["name"] for failure in result.document["failed"]] == [name]
    assert f"left out    {name}: " in result.err


def test_evaluate_takes_weights_alone_with_their_configuration(
    brainbrr: Run, place: Path, trained: Path, state_dict: Path
) -> None:
    options = ["--split", "dev", "--cache-dir", place / "cache", "--format", "json"]
    own = brainbrr("evaluate", trained / "checkpoints/last.pt", place / "corpus", *options)
    foreign = brainbrr("evaluate", state_dict, place / "corpus", *options, "--config", place / "tiny.yaml")
    assert foreign.code == 0 and foreign.document["pooled"] == own.document["pooled"]


def test_evaluate_obeys_what_is_set(brainbrr: Run, place: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["evaluate", trained / "checkpoints/last.pt", place / "corpus", "--split", "dev", "--format", "json"]
    arguments += ["--cache-dir", place / "cache"]
    plain = brainbrr(*arguments).document
    clamped = brainbrr(*arguments, "--set", "model.clamp=[-0.001,0.001]").document
    assert clamped["pooled"]["loss"] != plain["pooled"]["loss"]
    rates = brainbrr(*arguments, "--set", "evaluation.fa_rates=[3]", "--set", "training.early_stopping.metric=loss")
    assert "sensitivity_at_3fa" in rates.document["pooled"]
    cuda = brainbrr(*arguments, "--set", "experiment.device=cuda")
    assert cuda.code == 2 and "experiment.device is cuda" in cuda.error
    monkeypatch.setenv("BGB_SAFE_CLAMP", "1")
    monkeypatch.setenv("BGB_SAFE_CLAMP_MIN", "-0.001")
    monkeypatch.setenv("BGB_SAFE_CLAMP_MAX", "0.001")
    assert brainbrr(*arguments).document["pooled"]["loss"] == clamped["pooled"]["loss"]


def test_the_default_cache_of_an_evaluation(
    brainbrr: Run, place: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert brainbrr("evaluate", trained / "checkpoints/last.pt", place / "corpus", "--split", "dev").code == 0
    assert (tmp_path / "cache/evaluate-corpus/dev.json").is_file()


# info


@pytest.mark.parametrize(
    "name", ["local/smoke", "local/batch7", "local/train", pytest.param("modal/train", marks=pytest.mark.slow)]
)
def test_info_describes_every_configuration(name: str, brainbrr: Run) -> None:
    path = ROOT / f"configs/{name}.yaml"
    document = brainbrr("info", path, "--format", "json").document
    assert [stage["name"] for stage in document["stages"]] == [
        "tcn", "to_electrodes", "nodes", "graph", "from_electrodes", "head",
    ]  # fmt: skip
    assert sum(stage["parameters"] for stage in document["stages"]) == document["parameters"]
    memory = document["memory"]
    assert memory["step_bytes"] == sum(value for name, value in memory.items() if name != "step_bytes")
    assert document["samples"] == 15360 and document["stages"][-1]["shape"] == [15360]


def test_info_says_what_cannot_run_here(brainbrr: Run, incident: Path) -> None:
    sets = ["--set", "model.mamba.backend=mamba_ssm", "--device", "cuda"]
    result = brainbrr("info", incident / "incident.yaml", *sets)
    assert result.code == 0
    assert "note        activations are those of the torch scan; fused kernels keep less" in result.out
    assert "note        experiment.device is cuda and torch finds no CUDA device" in result.out
    assert "note        cannot run here: mamba.backend is mamba_ssm on cpu" in result.out


def test_info_is_a_table_and_facts(brainbrr: Run, place: Path) -> None:
    lines = brainbrr("info", place / "tiny.yaml").out.splitlines()
    assert lines[0].split() == ["stage", "output", "parameters", "kept", "for", "backward"]
    assert [line.split()[0] for line in lines if line] == [
        "stage", "tcn", "head", "all", "input", "memory", "precision", "backend",
    ]  # fmt: skip


# Corpus and cache


def test_a_corpus_is_written_cached_and_scanned(brainbrr: Run, tmp_path: Path) -> None:
    corpus, cache = tmp_path / "corpus", tmp_path / "cache"
    options = ["--patients", 2, "--minutes", 1, "--lookalikes", 0, "--seed", 5, "--split", "train", "--format", "json"]
    written = brainbrr("synthesize", corpus, *options)
    assert (written.code, written.document["recordings"]) == (0, 2)
    assert (corpus / "artefacts.json").is_file()
    again = brainbrr("synthesize", corpus, *options, "--force")
    assert again.code == 0
    arguments = ["build-cache", "--data-dir", corpus, "--cache-dir", cache, "--format", "json"]
    limited = brainbrr(*arguments, "--limit-files", 1).document
    assert (limited["recordings"], limited["built"]) == (1, 1)
    whole = brainbrr(*arguments)
    assert (whole.code, whole.document["built"], whole.document["reused"]) == (0, 1, 1)
    assert whole.err.startswith("1/2 recordings  ")
    scanned = brainbrr("scan-cache", "--cache-dir", cache, "--format", "json")
    assert scanned.code == 0 and scanned.document


def test_the_cache_takes_its_preprocessing_from_a_configuration(brainbrr: Run, place: Path, tmp_path: Path) -> None:
    arguments = ["build-cache", "--data-dir", place / "corpus", "--format", "json", "--split", "dev", "--cache-dir"]
    by_file = tiny(place) | {"preprocessing": {"notch_freq": None}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(by_file))
    built = {
        "file": brainbrr(*arguments, tmp_path / "a", "--config", tmp_path / "c.yaml"),
        "set": brainbrr(*arguments, tmp_path / "b", "--set", "preprocessing.notch_freq=null"),
        "plain": brainbrr(*arguments, tmp_path / "c"),
    }
    assert {result.code for result in built.values()} == {0}
    a, b, c = (np.load(next((tmp_path / name / "dev").glob("*.npy"))) for name in "abc")
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_limits_from_the_environment_reach_the_cache(
    brainbrr: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus(tmp_path / "c", patients=2, minutes=1, seizures=1, lookalikes=0, seed=3, splits=("train",))
    monkeypatch.setenv("BGB_LIMIT_FILES", "1")
    arguments = ["build-cache", "--data-dir", tmp_path / "c", "--cache-dir", tmp_path / "k", "--format", "json"]
    assert brainbrr(*arguments).document["recordings"] == 1


def test_a_cache_without_a_seizure_in_its_training_split_is_exit_code_1(brainbrr: Run, tmp_path: Path) -> None:
    write_corpus(tmp_path / "c", patients=1, minutes=0.5, seizures=0, lookalikes=0, seed=3, splits=("train", "dev"))
    arguments = ["build-cache", "--data-dir", tmp_path / "c", "--cache-dir", tmp_path / "k"]
    built = brainbrr(*arguments)
    assert built.code == 1 and "no seizure in 1 recordings (0 without labels)" in built.out
    assert brainbrr(*arguments, "--split", "dev").code == 0
    scanned = brainbrr("scan-cache", "--cache-dir", tmp_path / "k", "--format", "json")
    (finding,) = scanned.document["findings"]
    assert scanned.code == 1 and (finding["check"], finding["severity"]) == ("cache.labels", "P0")
    text = brainbrr("scan-cache", "--cache-dir", tmp_path / "k").out
    assert f"{tmp_path}/k/train.json: cache.labels P0 train: no seizure in 1 recordings" in text
