"""Models: what does not fit is refused at the door, with what to do."""

import json
import shutil
from pathlib import Path

import pytest

from backend.common.problems import Problem
from backend.gallery.models import InstalledModel
from backend.gallery.selectors import find_model, get_active_detector, get_active_generation
from backend.gallery.services import activate_model, install_model
from recognition.errors import ModelRefused

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def models_root(settings, tmp_path):
    settings.MODELS_ROOT = tmp_path / "models"
    return settings.MODELS_ROOT


@pytest.fixture
def folder(embedder_folder: Path, tmp_path: Path) -> Path:
    """A copy of the shipped embedder's folder, to be spoilt."""
    return Path(shutil.copytree(embedder_folder, tmp_path / "folder"))


def change_card(folder: Path, **changes) -> None:
    path = folder / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_model_is_copied_and_the_second_time_changes_nothing(folder, models_root):
    model = install_model(folder)
    assert (model.folder / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()
    assert install_model(folder).pk == model.pk
    assert len(list(models_root.iterdir())) == 1
    assert find_model(model.name) == find_model(f"{model.name}:{model.version}") == model
    assert find_model(f"{model.name}:99") is None


def test_a_file_that_is_not_its_cards_is_refused(folder, models_root):
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ModelRefused, match=r"(?i)sha"):
        install_model(folder)
    assert not InstalledModel.objects.exists()
    assert not models_root.exists() or not list(models_root.iterdir())


def test_a_card_that_promises_another_dimension_is_refused(folder, models_root):
    change_card(folder, dimension=256, hash_bits=256)
    with pytest.raises(ModelRefused, match="256"):
        install_model(folder)
    assert not InstalledModel.objects.exists()
    assert not list(models_root.iterdir())


@pytest.mark.parametrize("changes", [{"task": "oracle"}, {"surprise": 1}, {"dimension": "many"}])
def test_a_card_with_a_wrong_key_is_refused_by_name(folder, changes):
    change_card(folder, **changes)
    with pytest.raises(ModelRefused, match=next(iter(changes))):
        install_model(folder)


def test_another_model_under_a_taken_name_and_version_is_refused(folder):
    install_model(folder)
    change_card(folder, accuracy="better")
    with pytest.raises(Problem, match="version of its own") as refused:
        install_model(folder)
    assert refused.value.status == 409


def test_an_embedder_opens_the_first_generation_and_another_does_not_replace_it(generation, folder):
    change_card(folder, version="another")
    other = install_model(folder)
    with pytest.raises(Problem, match="answers now") as refused:
        activate_model(other)
    assert refused.value.status == 409
    assert get_active_generation() == generation
    activate_model(generation.embedder)  # once more changes nothing
    assert get_active_generation() == generation
    assert get_active_detector() is None
