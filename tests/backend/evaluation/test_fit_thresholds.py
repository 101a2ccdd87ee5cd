"""The command: on the live catalogue, on a folder against the generation's gallery and against its own."""

import hashlib
import io
import shutil
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from backend.catalogue.services import add_reference_image
from backend.gallery import services
from backend.gallery.enrolment import enrol
from backend.gallery.loading import get_gallery
from backend.gallery.models import ThresholdSet
from backend.gallery.selectors import get_active_generation
from backend.gallery.thresholds import was_fitted_on
from recognition import images
from tests.backend.factories import make_product
from tests.recognition.toy_models import embedder_card, embedder_model, write_folder

N_PRODUCTS, SHOTS = 10, 4


def picture_of(product: int, shot: int) -> bytes:
    colours = np.random.default_rng(product).integers(0, 256, (5, 7, 3))
    noise = np.random.default_rng(1_000 + 100 * product + shot).integers(-25, 25, (5, 7, 3))
    pixels = np.clip(colours + noise, 0, 255).astype(np.uint8)
    return images.encode_jpeg(
        images.resize(pixels, 72, 60, interpolation="bilinear", antialias=True), quality=90
    )


@pytest.fixture
def catalogue(db, settings, tmp_path: Path):
    """Ten products with four pictures each, embedded by a small model; one with one picture, one with none."""
    settings.MEDIA_ROOT, settings.MODELS_ROOT = tmp_path / "media", tmp_path / "models"
    write_folder(tmp_path / "toy", embedder_model(), embedder_card(version=uuid4().hex[:8]))
    services.activate_model(services.install_model(tmp_path / "toy"))
    for number in range(N_PRODUCTS):
        product = make_product(f"P{number}")
        for shot in range(SHOTS):
            add_reference_image(product=product, data=picture_of(number, shot))
    add_reference_image(product=make_product("ALONE"), data=picture_of(50, 0))
    make_product("BARE")
    generation = get_active_generation()
    enrol(generation)
    yield generation
    get_gallery(generation).drop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Other pictures of the ten, two that the catalogue has itself, three of products that it lacks, and bad rows."""
    folder = tmp_path / "till"
    folder.mkdir()
    rows = []
    for number in range(N_PRODUCTS):
        for shot in range(3):
            (folder / f"q{number}-{shot}.jpg").write_bytes(picture_of(number, 50 + shot))
            rows.append(f"q{number}-{shot}.jpg,P{number}")
    for number in range(2):
        (folder / f"own{number}.jpg").write_bytes(picture_of(number, 0))
        rows.append(f"own{number}.jpg,P{number}")
    for number in range(3):
        (folder / f"stranger{number}.jpg").write_bytes(picture_of(70 + number, 0))
        rows.append(f"stranger{number}.jpg,FOREIGN{number}")
    (folder / "bare.jpg").write_bytes(picture_of(90, 0))
    (folder / "text.jpg").write_text("no picture")
    rows += ["bare.jpg,BARE", "text.jpg,P1", "gone.jpg,P1"]
    (folder / "query.csv").write_text("\n".join(["image,sku", *rows]) + "\n")
    gallery = []
    for number in range(N_PRODUCTS):
        for shot in range(SHOTS):
            (folder / f"g{number}-{shot}.jpg").write_bytes(picture_of(number, shot))
            gallery.append(f"g{number}-{shot}.jpg,P{number}")
    (folder / "gallery.csv").write_text("\n".join(["image,sku", *gallery]) + "\n")
    return folder


def fit(*arguments: object) -> tuple[ThresholdSet, str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command("fit_thresholds", *map(str, arguments), stdout=out, stderr=err)
    return ThresholdSet.objects.first(), out.getvalue(), err.getvalue()


def test_the_live_catalogue_and_a_folder_against_either_gallery(catalogue, folder):
    live, said, _ = fit("--false-accepts", 0.05)
    assert [live.fit[key] for key in ("n_queries", "n_strangers", "n_alone", "n_without_pictures")] == [
        40,
        41,
        1,
        1,
    ]
    assert live.fit["queries"] == "live catalogue"
    assert "1 queries are the only picture of their product" in said
    assert "1 products have no picture in the gallery" in said
    assert "no confidence: it takes a hundred queries" in said

    ours, said, errors = fit("--false-accepts", 0.05, "--folder", folder)
    assert (ours.version, ours.fit["queries"], ours.fit["gallery"]) == (
        2,
        "till/query.csv",
        "the generation's",
    )
    # 30 others of the ten and the two own ones; four that the gallery lacks are strangers, and so is each other.
    assert [ours.fit[key] for key in ("n_queries", "n_strangers", "n_of_unknown_sku")] == [32, 36, 4]
    assert "4 queries of a SKU that the gallery lacks, which count as unknown" in said
    assert "text.jpg" in errors
    assert "gone.jpg: cannot be read" in errors

    # Whatever a folder or its list is called: by what was fitted on its pictures it is not judged.
    digest_of = {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in folder.iterdir()}
    assert was_fitted_on(ours, [digest_of["q0-0.jpg"], "another"])
    assert not was_fitted_on(ours, [digest_of["g0-1.jpg"]])
    assert was_fitted_on(live, [digest_of["g0-1.jpg"]])
    assert not was_fitted_on(live, [digest_of["q0-0.jpg"]])

    shutil.copy(folder / "query.csv", folder / "photos.csv")
    their, _, _ = fit(
        "--false-accepts", 0.05, "--folder", folder, "--gallery", "gallery.csv", "--query", "photos.csv"
    )
    assert (their.fit["queries"], their.fit["gallery"]) == ("till/photos.csv", "till/gallery.csv")
    assert [their.fit[key] for key in ("n_queries", "n_strangers", "n_of_unknown_sku")] == [32, 36, 4]
    # BARE, and ALONE, whose picture is not in this gallery.
    assert their.fit["n_without_pictures"] == 2
    # The same pictures are searched, so that the same comes out; the catalogue's were stored anew as JPEG.
    assert their.recognised == pytest.approx(ours.recognised, abs=0.02)
    for strategy in ("hash", "hash_rerank"):
        hashed, _, _ = fit(
            "--false-accepts", 0.05, "--folder", folder, "--gallery", "gallery.csv", "--strategy", strategy
        )
        assert (hashed.strategy, hashed.version) == (strategy, 1)


@pytest.mark.django_db
def test_without_a_generation(tmp_path):
    with pytest.raises(CommandError, match="no generation is active"):
        fit()


def test_what_cannot_be_fitted_is_said(catalogue, folder):
    for arguments, reason in [
        ([], "a rate of 0.01 takes 99 of each. Missing: 59 more pictures of products"),
        (["--false-accepts", 0], "false accepts is 0; wanted more than 0 and less than 1"),
        (["--unknown-share", 1], "unknown share is 1; wanted more than 0 and less than 1"),
        (["--generation", 9999], "there is no live generation 9999"),
        (["--gallery", "gallery.csv"], "--gallery names a file of --folder"),
        (["--folder", folder, "--query", "other.csv"], "there is no .*other.csv"),
        (["--folder", folder], "found 32 known queries of 10 products and 36 strangers"),
    ]:
        with pytest.raises(CommandError, match=reason):
            fit(*arguments)
    (folder / "empty.csv").write_text("image,sku\n")
    with pytest.raises(CommandError, match="no query could be embedded"):
        fit("--folder", folder, "--query", "empty.csv")
    assert not ThresholdSet.objects.exists()
