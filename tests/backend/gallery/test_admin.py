"""What the gallery shows on products and pictures, and its own read-only pages."""

import pytest
from django.test import Client
from django.urls import reverse

from backend.catalogue.models import Product
from backend.catalogue.services import add_reference_image
from backend.gallery.models import (
    Embedding,
    EmbeddingState,
    Generation,
    GenerationState,
    InstalledModel,
    ThresholdSet,
)
from tests.backend.factories import make_picture, make_product, make_staff

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def media(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path


@pytest.fixture
def generation() -> Generation:
    """Active, and empty: pictures that come get a row of the ledger."""
    embedder = InstalledModel.objects.create(
        name="lite", version="1", task="embedder", sha256="0" * 64, card={}
    )
    generation = Generation.objects.create(
        embedder=embedder, index={"type": "HNSW", "m": 32}, collection="c", state=GenerationState.ACTIVE
    )
    ThresholdSet.objects.create(
        generation=generation, strategy="float", version=1, recognised=0.81234, margin=0.05, unknown=0.3
    )
    return generation


@pytest.fixture
def manager() -> Client:
    return make_staff("manager", "manager")


@pytest.fixture
def product(generation) -> Product:
    """With one picture embedded, one pending, one failed."""
    product = make_product()
    for seed, state in enumerate((EmbeddingState.EMBEDDED, EmbeddingState.PENDING, EmbeddingState.FAILED)):
        image = add_reference_image(product=product, data=make_picture(seed))
        error = "the model ran out of paper" if state == EmbeddingState.FAILED else ""
        Embedding.objects.filter(reference_image_id=image.pk).update(state=state, error=error, attempts=5)
    return product


def page(client: Client, name: str, *args, query: str = "") -> str:
    response = client.get(reverse(f"admin:{name}", args=args) + query)
    assert response.status_code == 200, name
    return response.content.decode()


def test_a_product_shows_the_state_of_each_picture_and_why_one_failed(manager, product):
    shown = page(manager, "catalogue_product_change", product.pk)
    for text in (">embedded<", ">pending<", ">failed<", "the model ran out of paper"):
        assert text in shown, text
    assert manager.get(reverse("admin:catalogue_product_pictures", args=[product.pk])).json()["waiting"] == 1
    failed = Embedding.objects.get(state=EmbeddingState.FAILED).reference_image_id
    assert "the model ran out of paper" in page(manager, "catalogue_referenceimage_change", failed)


def test_products_and_pictures_are_found_by_state(manager, product):
    make_product("OTHER")
    for state in ("pending", "failed", "embedded"):
        for model in ("product", "referenceimage"):
            url = f"{reverse(f'admin:catalogue_{model}_changelist')}?embedding={state}"
            assert manager.get(url).context["cl"].result_count == 1, (model, state)
    assert "1 failed" in page(manager, "catalogue_product_changelist")


def test_failed_pictures_are_tried_again(manager, product):
    act = {"action": "embed_again", "_selected_action": [product.pk]}
    response = manager.post(reverse("admin:catalogue_product_changelist"), act, follow=True)
    assert "Pending again: 1 embedding." in response.content.decode()
    assert not Embedding.objects.filter(state=EmbeddingState.FAILED).exists()
    row = Embedding.objects.get(
        error="", state=EmbeddingState.PENDING, reference_image_id=product.reference_images.last().pk
    )
    assert row.attempts == 0
    response = manager.post(reverse("admin:catalogue_product_changelist"), act, follow=True)
    assert "None of these had failed." in response.content.decode()


def test_an_operator_sees_the_gallery_and_tries_again_in_the_ledger(generation, product):
    operator = make_staff("operator", "operator")
    model = generation.embedder
    Embedding.objects.create(generation=generation, reference_image_id=999_999, state=EmbeddingState.REMOVING)
    assert "1 failed" in page(operator, "gallery_generation_change", generation.pk)
    assert "0.812" in page(operator, "gallery_thresholdset_changelist")
    assert "999999, deleted" in page(operator, "gallery_embedding_changelist")
    for name, *args in (
        ["gallery_generation_changelist"],
        ["gallery_installedmodel_changelist"],
        ["gallery_installedmodel_change", model.pk],
        ["gallery_thresholdset_change", generation.threshold_sets.get().pk],
        ["evaluation_evaluationrun_changelist"],
    ):
        page(operator, name, *args)
    failed = Embedding.objects.get(state=EmbeddingState.FAILED)
    operator.post(
        reverse("admin:gallery_embedding_changelist"),
        {"action": "embed_again", "_selected_action": [failed.pk]},
    )
    failed.refresh_from_db()
    assert failed.state == EmbeddingState.PENDING


def test_nothing_of_the_gallery_is_edited_by_hand(generation):
    operator = make_staff("operator", "operator")
    for model in ("generation", "installedmodel", "thresholdset", "embedding"):
        assert operator.get(reverse(f"admin:gallery_{model}_add")).status_code == 403
    url = reverse("admin:gallery_generation_change", args=[generation.pk])
    assert operator.post(url, {"collection": "other"}).status_code == 403


def test_what_is_stored_as_json_is_read_as_names_and_values(generation):
    operator = make_staff("operator", "operator")
    model = generation.embedder
    model.card = {"embedding_dimension": 512, "input": {"width": 224, "height": 224}, "licence": None}
    model.save()
    fitted = ThresholdSet.objects.create(
        generation=generation, strategy="hash", version=1, recognised=0.8, margin=0.1, unknown=0.3,
        fit={"method": "leave one out", "automatic": True, "rank_1": 0.787234},
    )  # fmt: skip
    for row, told in (
        (model, ["<dt>Embedding dimension</dt><dd>512</dd>", "<dd>width 224, height 224</dd>"]),
        (
            fitted,
            [
                "<dt>Fitted by the sweep</dt><dd>yes</dd>",
                "<dd>0.7872</dd>",
                "too few queries",
                "none: no product",
            ],
        ),
        (generation, ["HNSW, M 32, efConstruction 200"]),
    ):
        page = operator.get(
            reverse(f"admin:gallery_{row._meta.model_name}_change", args=[row.pk])
        ).content.decode()
        assert [text for text in told if text not in page] == []
        assert "nlist" not in page


def test_a_fit_says_how_it_held_and_what_its_confidence_means(generation):
    shares = {
        "recognised": [0.5, 0.4, 0.6],
        "needs_confirmation": [0.49, 0.4, 0.6],
        "unknown": [0.01, 0, 0.02],
    }
    fitted = ThresholdSet.objects.create(
        generation=generation, strategy="float", version=9, recognised=2.0, margin=0.1, unknown=0.3,
        false_accepts=0.01,
        products={"7": {"sku": "COLA-330", "recognised": 0.71, "margin": 0.1, "unknown": 0.4}},
        confidence={"intercept": -1.0, "similarity": 2.0, "lead": 3.0, "unknown_share": 0.1},
        fit={
            "held_out": {"known": shares | {"wrong_accepts": [0.012, 0, 0.03]},
                         "strangers": {one: [0.25, 0.1, 0.4] for one in (*shares, "wrong_accepts")}},
            "calibration": {"error": [0.034, 0.02, 0.06], "bins": [[0.2, 0.1, 0.3], [0.9, 0.95, 0.7]]},
        },
    )  # fmt: skip
    operator = make_staff("operator", "operator")
    shown = page(operator, "gallery_thresholdset_change", fitted.pk)
    for told in ("never", "COLA-330", "0.710", "50.0&nbsp;%", "40.0 to 60.0", "25.0&nbsp;%",
                 "Calibration error of the confidence: 3.4&nbsp;%", "<circle"):  # fmt: skip
        assert told in shown, told


def test_a_manager_reads_generations_and_no_operators_page(manager, generation):
    page(manager, "gallery_generation_change", generation.pk)
    for name in (
        "gallery_embedding",
        "gallery_installedmodel",
        "gallery_thresholdset",
        "access_device",
        "auth_user",
    ):
        assert manager.get(reverse(f"admin:{name}_changelist")).status_code == 403, name


def test_without_a_gallery_pages_say_so(manager):
    image = add_reference_image(product=make_product(), data=make_picture())
    assert "no gallery yet" in page(manager, "catalogue_referenceimage_change", image.pk)
    assert "No embedder is active" in page(manager, "index")
