"""A run's settings: what is written is what is set, and what nobody knows is named with its nearest."""

from pathlib import Path

import pytest
import torch

from tests.training.runs import DETECTOR
from training.components import DISTILLATION_LOSSES, LOSSES
from training.config import ConfigRefused, read_settings, settings_from_dict, settings_to_dict
from training.networks import build_detector, build_embedder, build_losses, embedder_card
from training.settings import DetectorSettings, EmbedderSettings, GeneratedProducts

CONFIGS = Path(__file__).parents[2] / "training" / "configs"

WRITTEN = """
program = "embedder"
name = "small"
out = "runs/small"
epochs = 2
batch_size = 8
[model]
backbone = { name = "PPLCNet", scale = 0.25 }
neck = { name = "FC", dimension = 64 }
head = { name = "ArcMargin" }
[losses]
CrossEntropy = { label_smoothing = 0.1 }
[optimiser]
learning_rate = 1
reference_batch = 64
[data]
train = [{ kind = "generated", products = 10, views = 4 }]
augmentation = { kind = "shitu_v2" }
[evaluation]
source = { kind = "generated", products = 10 }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(WRITTEN)
    return path


def test_what_is_written_is_set(file: Path) -> None:
    settings = read_settings(file)
    assert isinstance(settings, EmbedderSettings)
    assert settings.model.backbone.name == "PPLCNet"
    assert settings.model.backbone.arguments == {"scale": 0.25}
    assert settings.losses["CrossEntropy"].arguments == {"label_smoothing": 0.1}
    assert settings.out == Path("runs/small")
    assert settings.optimiser.learning_rate == 1.0


def test_an_override_goes_over_the_file_into_tables_and_lists(file: Path) -> None:
    overrides = ["epochs=7", "data.train.0.rate=4", "model.backbone.scale=0.5", "out=runs/else where"]
    settings = read_settings(file, overrides)
    assert isinstance(settings, EmbedderSettings)
    (train,) = settings.data.train
    assert isinstance(train, GeneratedProducts)
    assert (settings.epochs, train.rate, settings.model.backbone.arguments["scale"]) == (7, 4.0, 0.5)
    assert settings.out == Path("runs/else where")


def test_settings_come_back_from_what_a_checkpoint_keeps(file: Path) -> None:
    settings = read_settings(file, ["optimiser.clip_norm=5.0", 'schedule={kind="cosine", warmup_epochs=1}'])
    assert settings_from_dict(settings_to_dict(settings), "a checkpoint") == settings


@pytest.mark.parametrize(
    ("added", "wanted"),
    [
        ("[optimizer]\nlearning_rate = 1", "{file}: unknown key optimizer: did you mean optimiser?"),
        ("[schedule]\nwarmup_epochs = 5", "{file}: schedule: found no kind"),
    ],
)
def test_a_fault_in_the_file_names_the_file(file: Path, added: str, wanted: str) -> None:
    file.write_text(WRITTEN + added)
    with pytest.raises(ConfigRefused) as refused:
        read_settings(file)
    assert wanted.format(file=file) in str(refused.value)


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("epoch=3", "-o epoch=3: unknown key epoch: did you mean epochs?"),
        ("data.train.0.view=3", "data.train.0: unknown key view: did you mean views?"),
        ("data.train.0.views=x", "data.train.0.views: found 'x'. Input should be a valid integer"),
        ("data.train.0.kind=drawn", "data.train.0: unknown kind drawn: known are list, folder, generated"),
        ("data.train.1.views=3", "found '1', wanted 0 to 0"),
        ("data.train=[]", "data.train: found []"),
        ("model.backbone.scal=1", "model.backbone: PPLCNet takes no scal: did you mean scale?"),
        ("model.backbone.scale=big", "PPLCNet's scale is 'big': Input should be a valid number"),
        ("model.backbone.name=PPLCNetV3", "unknown component PPLCNetV3: did you mean PPLCNetV2?"),
        ("model.neck.name=Hash", "HashNeck takes no dimension: known are bits."),
        ("losses.CrossEntropi.weight=1", "unknown loss CrossEntropi: did you mean CrossEntropy?"),
        ("losses.CrossEntropy.smoothing=1", "CrossEntropy takes no smoothing: did you mean label_smoothing?"),
        ("losses={}", "found no loss"),
        ("losses={DCH={}}", "model.head: found ArcMargin, wanted none: DCH would not train it"),
        ("model.head.name=arcmargin", "unknown component arcmargin: did you mean ArcMargin?"),
        ("schedule.kind=piecewise", "schedule.factors: wanted, and not given"),
        ("optimiser.learning_rate=-1", "optimiser.learning_rate: found -1"),
        ("epochs=true", "epochs: found True"),
        ("name=3", "name: found 3"),
        ("program=embeder", "program: found 'embeder', wanted one of embedder, pair, detector"),
        ('program=["embedder"]', "program: found ['embedder'], wanted one of embedder, pair, detector"),
        ("epochs", "-o epochs: wanted key=value"),
        ("=3", "-o =3: wanted key=value"),
        ("name=", "name: found ''"),
        ("batch_size=1", "batch_size: found 1. Input should be greater than or equal to 2."),
        ("seed=99999999999", "seed: found 99999999999. Input should be less than 4294967296."),
        ("model.backbone=PPLCNet", "model.backbone: found 'PPLCNet', wanted a table."),
        ("data.train={}", "data.train: found {}, wanted a list."),
        ("losses.CrossEntropy.weight=-1", "losses.CrossEntropy.weight: found -1. Input should be greater"),
        ("epochs=0", "epochs: found 0. Input should be greater than or equal to 1."),
        ("batch_size=2.5", "batch_size: found 2.5. Input should be a valid integer"),
        ("input.side=16", "input.side: found 16. Input should be greater than or equal to 32."),
        ("data.train.0.rate=-1", "data.train.0.rate: found -1. Input should be greater than 0."),
        ("data.train.views=3", "found 'views', wanted 0 to 0"),
        ("data.train.\u00b2.views=3", "found '\u00b2', wanted 0 to 0"),
        ("evaluation.best_by=recal@1", "evaluation.best_by: found 'recal@1'. Input should be 'recall@1'"),
        ("evaluation.best_by=hash_mAP", "found hash_mAP, wanted recall@1, recall@5 or mAP"),
        (
            "schedule={kind='piecewise', epochs=[5], factors=[-0.1]}",
            "schedule.factors.0: found -0.1. Input should be greater than or equal to 0",
        ),
        ("epochs.more=1", "epochs is 2, which has no keys"),
    ],
)
def test_what_does_not_fit_is_refused_with_key_and_nearest(file: Path, override: str, wanted: str) -> None:
    with pytest.raises(ConfigRefused) as refused:
        read_settings(file, [override])
    assert wanted in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 2


def test_losses_of_logits_want_a_head_also_behind_a_branch_and_in_a_pair(file: Path) -> None:
    headless = WRITTEN.replace('head = { name = "ArcMargin" }', "")
    branch = '[model.hash_branch]\nneck = { name = "Hash", bits = 16 }\nlosses = { DSHSD = {} }\n'
    pair = headless.replace('"embedder"', '"pair"').replace(
        "CrossEntropy = { label_smoothing = 0.1 }", "DML = {}"
    )
    for text, wanted in (
        (headless, "model.head: found none, wanted one: CrossEntropy compares logits"),
        (WRITTEN + branch, "model.hash_branch.head: found none, wanted one: DSHSD compares logits"),
        (pair, "model.head: found none, wanted one: a pair compares logits"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigRefused) as refused:
            read_settings(file)
        assert wanted in str(refused.value)
        assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (None, "found no such file, wanted a configuration in TOML"),
        (b"", "program: found None, wanted one of embedder, pair, detector"),
        (b"epochs = ", "cannot be read as TOML"),
        (b"name = 'K\xe4se'", "cannot be read as TOML"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, content: bytes | None, wanted: str) -> None:
    path = tmp_path / "broken.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigRefused, match=rf"broken\.toml: {wanted}"):
        read_settings(path)


def test_a_detectors_side_and_scenes_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "detector.toml"
    path.write_text(DETECTOR.format(out="run"))
    for override, wanted in (
        ("input.side=100", "input.side: found 100. Input should be a multiple of 64."),
        ("data.train.0.most_items=0", "data.train.0.most_items: found 0"),
        ("data.train.0.fewest_items=3", "data.train.0: found fewest_items 3 and most_items 2"),
    ):
        with pytest.raises(ConfigRefused) as refused:
            read_settings(path, [override])
        assert f"-o {override}: {wanted}" in str(refused.value)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_each_recipe_builds_its_model_and_losses(path: Path) -> None:
    settings = read_settings(path)
    assert path.read_text().startswith("# ")  # what it follows, and what it gave
    assert path.stem.startswith(settings.name.replace("-", "_"))  # one model may be trained in several parts
    with torch.device("meta"):
        if isinstance(settings, DetectorSettings):
            build_detector(settings.model)
            return
        network = build_embedder(settings.model, n_classes=10)
    table = LOSSES if isinstance(settings, EmbedderSettings) else DISTILLATION_LOSSES
    build_losses(settings.losses, table)
    assert embedder_card(settings, network).dimension == network.dimension


def test_the_papers_hash_recipe_is_what_the_paper_says() -> None:
    settings = read_settings(CONFIGS / "general_rec_v1_dshsd.toml")
    assert isinstance(settings, EmbedderSettings)
    assert settings.model.backbone.arguments == {"scale": 2.5}
    assert settings.model.neck is not None
    assert settings.model.neck.arguments == {"bits": 512}
    assert settings.losses["DSHSD"].arguments == {"alpha": 0.05, "margin": 1024.0}
    assert {source.name: source.rate for source in settings.data.train if source.rate != 1} == {
        "VeRI-Wild": 4.0,
        "LogoDet-3K": 4.0,
        "In-shop": 4.0,
    }
