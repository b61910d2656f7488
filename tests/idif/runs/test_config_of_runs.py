"""The config of a run that an earlier version made."""

from pathlib import Path

import pytest

from idif.config.loader import load_config
from idif.methods.idif.config import IDIFConfig
from idif.methods.memory.config import PatchCoreConfig
from idif.runs.files import CONFIG_FILE, read_config


@pytest.mark.parametrize(
    ("recorded", "override", "border"),
    [
        ("", [], "inside"),
        (", border: zeros", [], "zeros"),
        (", border: inside", [], "inside"),
        ("", ["method.border=zeros"], "zeros"),
    ],
)
def test_a_key_that_a_run_does_not_record_has_the_value_of_the_version_that_made_it(
    tmp_path: Path, recorded: str, override: list[str], border: str
) -> None:
    (tmp_path / CONFIG_FILE).write_text("method: {name: patchcore" + recorded + "}\n")
    method = read_config(tmp_path, override).method
    assert isinstance(method, PatchCoreConfig)
    assert method.border == border


def test_a_segmentation_head_of_an_earlier_version_keeps_its_pyramid(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text("method: {head: segmentation}\n")
    earlier, present = read_config(tmp_path).method, load_config({"method": {"name": "idif"}}).method
    assert isinstance(earlier, IDIFConfig)
    assert isinstance(present, IDIFConfig)
    assert (earlier.pyramid, present.pyramid) == ("deeplab", "destseg")


def test_a_weld_run_keeps_the_rule_of_its_threshold(tmp_path: Path) -> None:
    present = load_config({"method": {"name": "causal-film"}})
    assert present.eval.threshold == "validation-youden"
    eval_of_before = present.eval.model_copy(update={"threshold": "validation"})
    recorded = present.model_copy(update={"eval": eval_of_before}).to_yaml()
    (tmp_path / CONFIG_FILE).write_text(recorded)
    assert read_config(tmp_path).eval.threshold == "validation", "greatest F1, the default of that version"


def test_a_new_config_has_the_present_default() -> None:
    method = load_config({"method": {"name": "patchcore"}}).method
    assert isinstance(method, PatchCoreConfig)
    assert method.border == "zeros"
