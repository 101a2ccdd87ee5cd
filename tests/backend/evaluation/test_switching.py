"""Two generations compared on the same queries, the gate, the switch and the way back."""

import csv

import numpy as np
import pytest
from auditlog.models import LogEntry
from django.core.management import CommandError, call_command
from django.urls import reverse
from rest_framework.test import APIClient

from backend.catalogue.models import Product
from backend.catalogue.services import add_reference_image
from backend.checkout.recogniser import get_serving
from backend.checkout.worker import NEXT_KEY
from backend.common.broker import broker_client
from backend.common.problems import Problem
from backend.evaluation import comparison, switching
from backend.evaluation.comparison import Comparison, get_comparison
from backend.evaluation.switching import start_comparison, switch_generation
from backend.gallery import generations, loading
from backend.gallery.enrolment import enrol
from backend.gallery.loading import get_embedder, get_gallery
from backend.gallery.models import EmbeddingState, Generation, GenerationState, InstalledModel, ThresholdSet
from backend.gallery.reembedding import start_reembedding
from backend.gallery.selectors import get_active_generation
from backend.gallery.services import plan_missing
from backend.gallery.tasks import enrol_task
from backend.jobs.models import Job
from recognition.gallery import Entry
from tests.backend.conftest import FLAT, N_PICTURES, assert_whole, candidate, run
from tests.backend.factories import make_device, make_picture, make_staff


def with_thresholds(generation: Generation) -> None:
    """Fitted on nothing."""
    ThresholdSet.objects.create(
        generation=generation, strategy="float", version=1, recognised=0.9, margin=0.1, unknown=0.1
    )


def make_ready(embedder: InstalledModel) -> Generation:
    """A generation that may be switched to, with every picture and thresholds."""
    generation = generations.open_generation(embedder, FLAT)
    plan_missing(generation)
    generation = generations.begin_verifying(generation)
    enrol(generation)
    get_gallery(generation).count()  # read strongly once, so that searches see all of it
    with_thresholds(generation)
    return generations.make_ready(generation)


@pytest.fixture
def ready(active, better, pictures) -> Generation:
    with_thresholds(active)
    return make_ready(better)


def spoil(generation: Generation) -> None:
    """Every picture of every product lies apart from its kin, and next to another product's."""
    gallery = get_gallery(generation)
    entries = gallery.fetch(list(generation.embeddings.values_list("reference_image_id", flat=True)))
    by_product: dict[int, list[Entry]] = {}
    for one in entries:
        by_product.setdefault(one.product_id, []).append(one)
    first, second = (np.eye(2, gallery.dimension, dtype=np.float32)[side] for side in (0, 1))
    gallery.upsert(
        [
            Entry(one.reference_image_id, one.product_id, one.revision, vector, one.hash_code)
            for kin in by_product.values()
            for one, vector in zip(kin, (first, second), strict=True)
        ]
    )


def compare(*arguments: str) -> None:
    call_command("switch_generation", str(candidate().pk), "--compare-only", *arguments)


def test_both_are_asked_the_same_and_scored_as_brute_force_would(active, ready, capsys):
    compare()
    told = capsys.readouterr().out
    found = get_comparison(candidate(), active)
    assert found is not None
    assert (found.n_queries, found.n_left_out) == (N_PICTURES, 0)
    assert f"active {active.pk}" in told
    for generation, side in ((active, found.active), (ready, found.candidate)):
        ids = list(generation.embeddings.values_list("reference_image_id", flat=True))
        entries = get_gallery(generation).fetch(ids)
        vectors = np.stack([one.vector for one in entries])
        cosines = vectors @ vectors.T
        np.fill_diagonal(cosines, -2)
        products = np.array([one.product_id for one in entries])
        right = products[cosines.argmax(axis=1)] == products
        assert side.recall_at_1 == pytest.approx(right.mean())
        ranks = [
            1
            + int((row > row[np.flatnonzero((products == product) & (np.arange(len(row)) != own))[0]]).sum())
            for own, (row, product) in enumerate(zip(cosines, products, strict=True))
        ]
        assert side.map_at_100 == pytest.approx(np.mean([1 / rank for rank in ranks]))
    assert Comparison.from_dict(found.to_dict()) == found


def test_a_switch_is_one_row_and_the_way_back_has_what_was_enrolled_meanwhile(active, ready, pictures):
    before = get_serving()
    with pytest.raises(CommandError, match="there is no generation to return to"):
        call_command("switch_generation", "--rollback")
    with pytest.raises(CommandError, match="give the generation's id, or --rollback"):
        call_command("switch_generation")
    call_command("switch_generation", str(ready.pk))
    serving = get_serving()
    assert serving.generation.pk == ready.pk
    assert serving.threshold_set.generation_id == ready.pk
    assert {one.pk: one.state for one in Generation.objects.all()} == {
        active.pk: GenerationState.STANDBY,
        ready.pk: GenerationState.ACTIVE,
    }
    added = add_reference_image(product=pictures[0].product, data=make_picture(50), box=(0, 0, 90, 90))
    enrol_task([added.pk])
    call_command("switch_generation", "--rollback")
    # The sweep may have fitted anew meanwhile; the generation's own set it is all the same.
    assert get_serving().generation == before.generation
    assert_whole(active)
    assert_whole(ready)
    call_command("switch_generation", "--rollback")  # and forth
    assert get_active_generation() == ready


def test_one_that_failed_at_pictures_is_returned_to_by_force_alone(active, ready, pictures):
    call_command("switch_generation", str(ready.pk))
    active.embeddings.filter(reference_image_id=pictures[0].pk).update(
        state=EmbeddingState.FAILED, error="no"
    )
    with pytest.raises(CommandError, match=r"lacks 1 picture .* 0 still to embed and 1 failed"):
        call_command("switch_generation", "--rollback")
    page = make_staff("operator", "operator").get(reverse("admin:gallery_generation_change", args=[ready.pk]))
    assert "It could not embed them" in page.content.decode()
    refused = APIClient(headers=make_device("program")[1]).post("/api/v1/generations/rollback")
    assert (refused.status_code, refused.json()["code"]) == (409, "pictures-lacking")
    assert get_active_generation() == ready


def test_what_the_other_lacks_is_found_by_an_anti_join(active, ready, pictures):
    """NOT IN is compared row with row beyond what PostgreSQL keeps in memory: hours for 300,000 pictures."""
    lacking = generations.list_lacking(ready, active)
    assert not lacking.exists()
    ready.embeddings.filter(reference_image_id=pictures[3].pk).update(state=EmbeddingState.PENDING)
    assert [row.reference_image_id for row in lacking.all()] == [pictures[3].pk]
    assert "Anti Join" in lacking.explain()


def test_a_comparison_of_a_gallery_that_has_grown_since_does_not_count(active, ready, pictures):
    compare()
    assert get_comparison(candidate(), active) is not None

    def enrol_another(number: int) -> None:
        added = add_reference_image(
            product=pictures[0].product, data=make_picture(number), box=(0, 0, 90, 90)
        )
        enrol_task([added.pk])

    enrol_another(60)
    enrol_another(61)
    assert get_comparison(candidate(), active) is not None
    enrol_another(62)
    assert get_comparison(candidate(), active) is None
    page = make_staff("operator", "operator").get(reverse("admin:gallery_generation_change", args=[ready.pk]))
    assert "not since a gallery changed by a fifth" in page.content.decode()


def test_one_that_has_pictures_still_to_embed_is_returned_to_by_force_alone(active, ready, pictures, capsys):
    call_command("switch_generation", str(ready.pk))
    active.embeddings.filter(reference_image_id=pictures[0].pk).update(state=EmbeddingState.PENDING)
    with pytest.raises(
        CommandError, match=r"lacks 1 picture .* 1 still to embed and 0 failed.* force the return"
    ):
        call_command("switch_generation", "--rollback")
    with pytest.raises(CommandError, match="needs a reason"):
        call_command("switch_generation", "--rollback", "--force")
    operator, returned = make_staff("operator", "operator"), reverse("admin:gallery_generation_rollback")
    page = operator.get(reverse("admin:gallery_generation_change", args=[ready.pk])).content.decode()
    assert "lacks 1 picture that can be found now. The bulk worker is at 1 of them." in page
    assert 'id="rollback-reason"' in page
    assert "still to embed" in operator.post(returned, follow=True).content.decode()
    device = APIClient(headers=make_device("program")[1])
    refused = device.post("/api/v1/generations/rollback")
    assert (refused.status_code, refused.json()["code"]) == (409, "generation-behind")
    assert get_active_generation() == ready
    call_command("switch_generation", "--rollback", "--force", "--reason", "it names everything tea")
    assert get_active_generation() == active
    said = LogEntry.objects.get_for_object(active).first().additional_data
    assert said["reason"] == "forced, because it names everything tea"


def test_what_was_compared_with_another_than_answers_now_is_not_switched_to(
    active, ready, better, monkeypatch
):
    """Two operators: while the workers load the one's candidate, the other's becomes active."""
    third = make_ready(better)
    monkeypatch.setattr(switching, "load_ahead", lambda _: generations.switch(ready, active))
    with pytest.raises(Problem, match=r"became active meanwhile, and .* was not compared with it"):
        switch_generation(third, force=True, reason="a test")
    assert get_active_generation() == ready


def test_a_drop_is_refused_and_what_forces_it_is_in_the_audit_log(active, ready, capsys):
    spoil(ready)
    with pytest.raises(CommandError, match=r"falls by .* points, and at most 1 are let through"):
        call_command("switch_generation", str(ready.pk))
    told = capsys.readouterr().out
    assert "worse: P0 Product P0" in told
    assert get_active_generation() == active
    compare("--limit", "100")
    assert get_active_generation() == active
    with pytest.raises(CommandError, match="needs a reason"):
        call_command("switch_generation", str(ready.pk), "--force")
    call_command("switch_generation", str(ready.pk), "--force", "--reason", "the old one is\nworse elsewhere")
    assert get_active_generation() == ready
    said = LogEntry.objects.get_for_object(ready).first().additional_data
    assert said["by"] == "command switch_generation"
    assert "forced, because the old one is" in said["reason"]
    assert "falls by" in said["reason"]
    call_command("switch_generation", str(active.pk), "--limit", "0")  # back, through the gate, and it rises
    call_command("switch_generation", str(ready.pk), "--limit", "100")
    assert get_active_generation() == ready


def test_a_folder_of_queries_is_asked_of_both(active, ready, tmp_path, capsys):
    with (tmp_path / "query.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "sku", "x1", "y1", "x2", "y2"])
        for number in range(4):
            (tmp_path / f"{number}.jpg").write_bytes(make_picture(number, quality=40))
            rows.writerow([f"{number}.jpg", f"P{number}", 10, 10, 110, 110])
        rows.writerow(["0.jpg", "NOT-OURS", "", "", "", ""])
        rows.writerow(["gone.jpg", "P1", "", "", "", ""])
    compare("--folder", str(tmp_path))
    found = get_comparison(candidate(), active)
    assert (found.subject, found.n_queries, found.n_left_out) == (tmp_path.name, 4, 2)
    assert found.active.recall_at_1 == found.candidate.recall_at_1 == 1.0


def test_retired_products_are_no_answers_and_no_queries_and_a_sample_stands_for_many(
    active, ready, pictures, monkeypatch
):
    monkeypatch.setattr(comparison, "FETCHED_A_CALL", 4)
    Product.objects.filter(pk=pictures[0].product_id).update(state="retired")
    compare()
    assert get_comparison(candidate(), active).n_queries == N_PICTURES - 2
    monkeypatch.setattr(comparison, "QUERIES", 5)
    compare()
    assert get_comparison(candidate(), active).n_queries == 5


def test_what_was_compared_with_another_counts_no_more(active, ready):
    with pytest.raises(Problem, match="was not compared") as refused:
        switch_generation(ready)
    assert refused.value.code == "not-compared"
    run(start_comparison(ready, asked_by="a test"))
    switch_generation(candidate())
    with pytest.raises(Problem, match="was not compared"):
        switch_generation(active)


def test_what_was_compared_under_another_strategy_counts_no_more(active, ready, settings):
    compare()
    settings.SEARCH_STRATEGY = "hash"
    assert get_comparison(candidate(), active) is None


def test_pictures_that_it_could_not_embed_are_told_and_only_a_reason_goes_past_them(active, ready):
    compare()
    row = ready.embeddings.first()
    ready.embeddings.filter(pk=row.pk).update(state=EmbeddingState.FAILED)
    with pytest.raises(Problem, match=f"could not embed 1 picture .* {row.reference_image_id}") as refused:
        switch_generation(candidate())
    assert refused.value.code == "pictures-lacking"
    page = make_staff("operator", "operator").get(reverse("admin:gallery_generation_change", args=[ready.pk]))
    assert "ould not embed 1 picture that" in page.content.decode()
    assert 'id="switch-reason"' in page.content.decode()
    assert switch_generation(candidate(), force=True, reason="it is blank").state == GenerationState.ACTIVE


def test_one_that_lacks_what_the_active_one_has_waits(active, ready):
    compare()
    ready.embeddings.filter(pk=ready.embeddings.first().pk).update(state=EmbeddingState.PENDING)
    with pytest.raises(Problem, match="has 1 picture still to embed") as refused:
        switch_generation(candidate())
    assert refused.value.code == "generation-behind"


def test_one_picture_a_product_cannot_be_compared_but_forced(active, ready, pictures):
    for image in pictures[N_PICTURES // 2 :]:
        image.delete()
    with pytest.raises(CommandError, match="no product has two pictures"):
        call_command("switch_generation", str(ready.pk))
    call_command("switch_generation", str(ready.pk), "--force", "--reason", "the pictures will come")
    assert get_active_generation() == ready
    with pytest.raises(Problem, match="answers already"):
        switch_generation(ready, force=True, reason="once more")


def test_what_is_being_built_or_is_gone_is_not_switched_to(active, better, pictures):
    start_reembedding(better, FLAT, asked_by="a test")
    with pytest.raises(CommandError, match="is building; one that is ready or stands by"):
        call_command("switch_generation", str(candidate().pk))
    broker_client().delete(NEXT_KEY)
    with pytest.raises(Problem, match="is building; one that is ready or stands by is switched to"):
        switch_generation(candidate(), force=True, reason="a test")
    assert broker_client().get(NEXT_KEY) is None  # no worker was asked to load it
    with pytest.raises(
        CommandError, match=f"there is no generation 999; there is .*{active.pk} \\(active\\)"
    ):
        call_command("switch_generation", "999")


def test_a_process_lets_go_of_a_retired_generation_without_a_restart(active, ready, toy, better):
    compare()
    for generation in (active, ready):
        get_embedder(generation.embedder)
    serving = get_serving()
    switch_generation(candidate())
    generations.retire(active)
    assert serving.generation == active  # a recognition that began before goes on with what it has
    assert get_serving().generation == ready
    assert [key[0] for key in loading._embedders._values] == [better.pk]
    assert [key[0] for key in loading._galleries._values] == [ready.collection]


# --- over the API and in the admin ------------------------------------------------------------------------
def test_a_program_builds_compares_switches_and_returns(active, better, pictures):
    api = APIClient(headers=make_device("program")[1])
    refused = api.post("/api/v1/generations", {"model": "nothing"}, format="json")
    assert (refused.status_code, refused.json()["code"]) == (404, "not-found")
    refused = api.post("/api/v1/generations", {"model": "toy:2", "index": "ANNOY"}, format="json")
    assert refused.status_code == 400
    opened = api.post("/api/v1/generations", {"model": "toy:2", "index": "FLAT"}, format="json")
    assert (opened.status_code, opened.json()["state"]) == (201, "building")
    refused = api.post("/api/v1/generations", {"model": "toy:2"}, format="json")
    assert (refused.status_code, refused.json()["code"]) == (409, "generation-building")
    url = f"/api/v1/generations/{opened.json()['id']}"
    run(Job.objects.get(pk=opened.json()["job"]))
    told = api.get(url).json()
    assert (told["state"], told["pictures"]["embedded"], told["evaluation"]) == ("ready", N_PICTURES, None)
    assert api.post(f"{url}/switch", {}, format="json").json()["code"] == "not-compared"
    asked = api.post(f"{url}/evaluate")
    assert asked.status_code == 202
    assert api.post(f"{url}/evaluate").json()["code"] == "job-under-way"
    job = run(Job.objects.get(pk=asked.json()["id"]))
    assert job.state == "done", job.failures
    assert api.get(url).json()["evaluation"]["n_queries"] == N_PICTURES
    answer = api.post(f"{url}/switch", {"limit": 100}, format="json")
    assert (answer.status_code, answer.json()["state"]) == (200, "active"), answer.json()
    back = api.post("/api/v1/generations/rollback")
    assert (back.status_code, back.json()["id"]) == (200, active.pk)
    assert [one["state"] for one in api.get("/api/v1/generations").json()] == ["standby", "active"]
    till = APIClient(headers=make_device("till", "recognise", "catalogue")[1])
    for answer in (till.get("/api/v1/generations"), till.post("/api/v1/generations/rollback")):
        assert answer.status_code == 403
    assert api.get("/api/v1/generations/999").status_code == 404


def test_an_operator_does_it_in_the_admin_and_a_manager_only_looks(active, ready, better):
    operator, manager = make_staff("operator", "operator"), make_staff("manager", "manager")
    page = reverse("admin:gallery_generation_change", args=[ready.pk])
    compared, switched, returned, retired = (
        reverse(f"admin:gallery_generation_{act}", args=args)
        for act, args in (
            ("compare", [ready.pk]),
            ("switch", [ready.pk]),
            ("rollback", []),
            ("retire", [ready.pk]),
        )
    )
    assert "Not compared with the active generation yet" in operator.get(page).content.decode()
    assert compared not in manager.get(page).content.decode()
    for url in (compared, switched, returned, retired, reverse("admin:gallery_generation_reembed")):
        assert manager.post(url).status_code == 403
    assert operator.get(switched).status_code == 405
    assert "was not compared" in operator.post(switched, follow=True).content.decode()
    spoil(ready)
    assert operator.post(compared).status_code == 302
    run(Job.objects.filter(kind="compare-generations").get())
    shown = operator.get(page).content.decode()
    for text in ("falls by", "Why it is switched to all the same", "P0 Product P0", "100 %"):
        assert text in shown, text
    assert "falls by" in operator.post(switched, follow=True).content.decode()
    assert get_active_generation() == active
    assert (
        "Answers from now on"
        in operator.post(switched, {"force": "on", "reason": "a test"}, follow=True).content.decode()
    )
    assert (
        "falls by"
        in operator.get(reverse("admin:gallery_generation_history", args=[ready.pk])).content.decode()
    )
    assert returned in operator.get(page).content.decode()
    assert "Answers from now on" in operator.post(returned, follow=True).content.decode()
    assert "cannot be switched to or back to" in operator.get(retired).content.decode()
    assert "Retired: " in operator.post(retired, follow=True).content.decode()
    assert "it becomes retired only from" in operator.post(retired, follow=True).content.decode()
    form = reverse("admin:gallery_generation_reembed")
    assert "toy 2" in operator.get(form).content.decode()
    assert "Select a valid choice" in operator.post(form, {"model": 999, "index": "FLAT"}).content.decode()
    assert operator.post(form, {"model": better.pk, "index": "FLAT"}).status_code == 302
    assert "is building, and one is built at a time" in operator.post(
        form, {"model": better.pk, "index": "FLAT"}
    ).content.decode().replace("&#x27;", "'")
    listed = operator.get(reverse("admin:gallery_generation_changelist")).content.decode()
    assert "data-job" in listed
