from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from brainbrr.config import Config, ConfigError
from brainbrr.configure import build_config, known_keys, load_config, with_values

ROOT = Path(__file__).parent.parent
CONFIGS = sorted(ROOT.glob("configs/*/*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_shipped_configuration_is_valid(path: Path) -> None:
    assert load_config(path).experiment.name


def test_an_unknown_key_names_the_nearest_one() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown key model\.graph\.edge_topk; did you mean model\.graph\.edge_top_k\?"
    ):
        build_config({"model": {"graph": {"edge_topk": 3}}})


def test_a_key_in_the_wrong_section_is_pointed_to_its_own() -> None:
    with pytest.raises(ConfigError, match=r"unknown key training\.edge_top_k; did you mean model\.graph\.edge_top_k\?"):
        build_config({"training": {"edge_top_k": 3}})


def test_a_key_like_no_other_lists_what_the_section_knows() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown key evaluation\.zzz; evaluation knows batch_size, fa_rates, stride"
    ):
        build_config({"evaluation": {"zzz": 1}})


def test_every_objection_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        build_config({"training": {"epochs": 0, "loss": "mse"}, "data": {"stride": -1}})
    assert str(caught.value).count("\n") == 2
    assert "training.epochs: Input should be greater than or equal to 1 (found 0)" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "key", "wanted"),
    [
        ({"model": {"graph": {"use_pyg": True}}}, lambda c: c.model.graph.backend, "pyg"),
        ({"model": {"graph": {"use_pyg": False}}}, lambda c: c.model.graph.backend, "dense"),
        ({"device": "cpu"}, lambda c: c.experiment.device, "cpu"),
        ({"training": {"mixed_precision": True}}, lambda c: c.training.mixed_precision, "fp16"),
        ({"training": {"mixed_precision": False}}, lambda c: c.training.mixed_precision, False),
        ({"model": {"graph": {"edge_mamba_layers": 0}}}, lambda c: c.model.graph.edge_mamba_layers, 0),
        ({"model": {"architecture": "tcn", "mamba": {"enabled": False}}}, lambda c: c.model.architecture, "tcn"),
    ],
)
def test_names_and_values_that_users_of_the_original_write(values, key, wanted) -> None:
    assert key(build_config(values)) == wanted


def test_overrides_reach_into_sections(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("training: {epochs: 3}\n")
    config = load_config(path, ["training.batch_size=7", "model.graph.enabled=false", "data.data_dir=/x y"])
    assert (config.training.epochs, config.training.batch_size, config.model.graph.enabled) == (3, 7, False)
    assert str(config.data.data_dir) == "/x y"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "holds a list; expected a mapping of sections"),
        ("a: [\n", "not YAML"),
        ("", "holds a NoneType; expected a mapping of sections"),
    ],
)
def test_files_that_are_no_configuration(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_missing_file_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory; expected a YAML file such as"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("override", ["x", "=3", "training.epochs=["])
def test_a_malformed_override_is_named(tmp_path: Path, override: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("{}")
    with pytest.raises(ConfigError, match="--set"):
        load_config(path, [override])


def test_values_round_trip_through_yaml() -> None:
    config = with_values(Config(), {"data.synthetic": {"patients": 3}, "model.clamp": [-5, 5]})
    assert build_config(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))) == config


def test_known_keys_are_dotted_and_unique() -> None:
    keys = known_keys()
    assert len(keys) == len(set(keys))
    assert {"model.graph.pe_gradient", "data.synthetic.seed", "postprocessing.hysteresis.tau_on"} <= set(keys)


def test_the_platforms_differ_in_what_is_known_to_differ() -> None:
    local, modal = (load_config(ROOT / f"configs/{place}/train.yaml") for place in ("local", "modal"))
    assert (local.training.batch_size, modal.training.batch_size) == (8, 48)
    assert (local.data.num_workers, modal.data.num_workers) == (0, 8)
    assert (local.training.mixed_precision, modal.training.mixed_precision) == (False, "bf16")
    for config in (local, modal):
        post = config.postprocessing
        assert (post.morphology.opening, post.morphology.closing) == (11, 31)
        assert (post.hysteresis.tau_on, post.hysteresis.tau_off) == (0.86, 0.78)
        assert (post.duration.min, post.duration.max) == (3, 600)
        assert config.training.early_stopping.patience == 5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": {"window_size": 10}}, r"evaluation\.stride is 30 s and data\.window_size 10 s"),
        (
            {"evaluation": {"fa_rates": [5]}, "training": {"early_stopping": {"metric": "sensitivity_at_10fa"}}},
            "never computed",
        ),
        ({"postprocessing": {"duration": {"min": 5, "max": 5}}}, "expected min < max"),
        ({"postprocessing": {"hysteresis": {"tau_on": 0.5, "tau_off": 0.6}}}, "expected tau_off <= tau_on"),
        ({"preprocessing": {"bandpass": [1, 128]}}, "expected 0 < low < high < 128"),
        ({"model": {"tcn": {"kernel_size": 4}}}, "expected an odd number"),
    ],
)
def test_sections_that_do_not_agree_say_what_to_change(values, message) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(values)
