"""A generation is built beside the active one: what it holds in the end, whatever happens meanwhile."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from backend.catalogue.models import BoxSource, ReferenceImage
from backend.catalogue.services import add_reference_image, propose_main_body, set_main_body
from backend.common.problems import Problem
from backend.gallery import enrolment, generations, reembedding, services
from backend.gallery.enrolment import enrol
from backend.gallery.loading import get_embedder, get_gallery
from backend.gallery.models import EmbeddingState, Generation, GenerationState
from backend.gallery.reembedding import start_reembedding
from backend.gallery.selectors import get_threshold_set
from backend.gallery.tasks import enrol_task, reconcile_gallery_task, sweep_gallery_task
from backend.jobs import services as jobs
from backend.jobs.models import Job, JobState
from recognition.embedder import ProductEmbedder
from recognition.errors import GalleryUnavailable, ModelRefused
from recognition.gallery import IndexSettings
from recognition.index import MIN_INDEXED_ROWS
from tests.backend.conftest import (
    FLAT,
    N_PICTURES,
    assert_whole,
    candidate,
    entries_of,
    run,
    wanted,
)
from tests.backend.factories import make_picture
from tests.recognition.toy_models import detector_card, detector_model, write_folder


@pytest.fixture(autouse=True)
def short_turns(monkeypatch) -> None:
    """Several turns and saves for a dozen pictures."""
    monkeypatch.setattr(reembedding, "TURN_SECONDS", 0.0001)
    monkeypatch.setattr(jobs, "SAVE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(enrolment, "FIRST_BATCH", 2)
    monkeypatch.setattr(enrolment, "LARGEST_BATCH", 2)


def test_another_embedder_gets_a_gallery_of_its_own_that_is_ready_and_answers_nobody(
    active, better, pictures
):
    before = entries_of(active)
    job = start_reembedding(better, FLAT, asked_by="a test")
    assert candidate().state == GenerationState.BUILDING
    run(job, turns=1)
    assert job.state == JobState.RUNNING
    assert 0 < job.cursor < N_PICTURES == job.total
    assert job.result["stage"] == "embedding pictures"
    run(job)
    generation = candidate()
    assert (job.state, job.cursor, job.failed, job.turn > 2) == (JobState.DONE, N_PICTURES, 0, True)
    assert (generation.state, generation.embedder) == (GenerationState.READY, better)
    assert_whole(generation)
    [entry] = get_gallery(generation).fetch([pictures[0].pk])
    [old] = get_gallery(active).fetch([pictures[0].pk])
    assert not np.allclose(entry.vector, old.vector, atol=0.1)
    assert get_threshold_set(generation, "float").fit["n_embedded"] == N_PICTURES
    active.refresh_from_db()
    assert active.state == GenerationState.ACTIVE
    assert entries_of(active) == before


def test_what_is_poor_about_a_picture_is_not_judged_again_where_its_box_stands(active, better, pictures):
    ReferenceImage.objects.update(quality_findings=["dark"])  # which it is not
    run(start_reembedding(better, FLAT, asked_by="a test"))
    assert_whole(candidate())
    assert all(image.quality_findings == ["dark"] for image in ReferenceImage.objects.all())


def test_another_index_copies_and_embeds_nothing(active, toy, pictures, monkeypatch):
    def never(*_):
        raise AssertionError("embedded")

    monkeypatch.setattr(ProductEmbedder, "embed_prepared", never)
    job = run(start_reembedding(toy, IndexSettings(type="IVF_FLAT", nlist=16), asked_by="a test"))
    generation = candidate()
    assert (job.state, generation.state) == (JobState.DONE, GenerationState.READY)
    assert_whole(generation)
    ids = [image.pk for image in pictures]
    for ours, theirs in zip(get_gallery(generation).fetch(ids), get_gallery(active).fetch(ids), strict=True):
        assert np.array_equal(ours.vector, theirs.vector)
        assert np.array_equal(ours.hash_code, theirs.hash_code)


def test_what_the_active_one_lacks_is_embedded_where_the_rest_is_copied(active, toy, pictures):
    get_gallery(active).delete([pictures[0].pk])  # lost in Milvus, and nobody noticed
    set_main_body(pictures[1], (0, 0, 90, 90), BoxSource.PERSON)  # pending there
    run(start_reembedding(toy, FLAT, asked_by="a test"))
    assert candidate().state == GenerationState.READY
    assert_whole(candidate())


def test_new_changed_and_removed_pictures_reach_the_building_one_through_its_job(active, better, pictures):
    job = start_reembedding(better, FLAT, asked_by="a test")
    run(job, turns=1)
    added = add_reference_image(product=pictures[0].product, data=make_picture(77), box=(0, 0, 90, 90))
    set_main_body(pictures[0], (5, 5, 90, 90), BoxSource.PERSON)
    set_main_body(pictures[-1], (5, 5, 90, 90), BoxSource.PERSON)
    removed = [pictures[1].pk, pictures[-2].pk]
    ReferenceImage.objects.get(pk=removed[0]).delete()
    ReferenceImage.objects.get(pk=removed[1]).product.delete()  # with its other picture
    enrol_task([added.pk, *removed])
    sweep_gallery_task()  # neither takes the load from the job
    generation = candidate()
    assert generation.embeddings.get(reference_image_id=added.pk).state == EmbeddingState.PENDING
    run(job)
    generation.refresh_from_db()
    assert generation.state == GenerationState.READY
    assert_whole(generation)
    enrol(active)
    assert entries_of(active)["float"] == wanted(active)


def test_a_ready_one_goes_on_receiving(active, better, pictures):
    run(start_reembedding(better, FLAT, asked_by="a test"))
    added = add_reference_image(product=pictures[0].product, data=make_picture(77))
    enrol_task([added.pk])
    assert_whole(candidate())
    assert_whole(active)


def test_one_is_built_at_a_time(active, better, toy, pictures):
    job = start_reembedding(better, FLAT, asked_by="a test")
    with pytest.raises(Problem, match="is building, and one is built at a time") as refused:
        start_reembedding(toy, FLAT, asked_by="a test")
    assert (refused.value.status, refused.value.code) == (409, "generation-building")
    jobs.cancel_job(job)
    start_reembedding(toy, FLAT, asked_by="a test")


def test_two_jobs_for_one_generation_are_one(active, pictures):
    job = reembedding.rebuild(active, drop=False, asked_by="a test")
    assert reembedding.rebuild(active, drop=False, asked_by="another") == job
    with pytest.raises(Problem, match="does this already") as refused:
        reembedding._start(active, "another", None)
    assert refused.value.code == "job-under-way"


def test_pause_and_resume_do_only_what_is_left(active, better, pictures, monkeypatch):
    job = start_reembedding(better, FLAT, asked_by="a test")
    run(job, turns=1)
    jobs.pause_job(job)
    jobs.run_job(str(job.pk))  # a late message
    n_before = candidate().embeddings.filter(state=EmbeddingState.EMBEDDED).count()
    assert 0 < n_before < N_PICTURES
    embedded = []
    embed = ProductEmbedder.embed_prepared
    monkeypatch.setattr(
        ProductEmbedder,
        "embed_prepared",
        lambda model, inputs: (embedded.extend(inputs), embed(model, inputs))[1],
    )
    jobs.resume_job(Job.objects.get(pk=job.pk))
    run(job)
    assert len(embedded) == N_PICTURES - n_before
    assert_whole(candidate())


def test_cancel_stops_at_the_next_batch_gives_back_what_was_held_and_frees_all(
    active, better, pictures, monkeypatch, settings
):
    monkeypatch.setattr(reembedding, "TURN_SECONDS", 60.0)
    job = start_reembedding(better, FLAT, asked_by="a test")
    get_embedder(better)  # which it warms up by embedding
    embed, batches = ProductEmbedder.embed_prepared, []

    def cancel_then_embed(model, inputs):
        batches.append(len(inputs))
        if len(batches) == 2:
            jobs.cancel_job(Job.objects.get(pk=job.pk))
        return embed(model, inputs)

    monkeypatch.setattr(ProductEmbedder, "embed_prepared", cancel_then_embed)
    jobs.run_job(str(job.pk))
    generation = candidate()
    assert (len(batches), generation.state) == (2, GenerationState.CANCELLED)
    assert not generation.embeddings.exclude(lease_until=None).exists()
    # The second batch's entries had been sent, or were still to be: there, or given back.
    assert generation.embeddings.filter(state=EmbeddingState.EMBEDDED).count() in (2, 4)
    assert not generation.embeddings.filter(attempts__gt=0).exists()
    assert generations.free_dead_generations() == 0  # a worker may still be at it
    settings.RECOGNITION_PATIENCE_SECONDS = 0
    sweep_gallery_task()
    assert not get_gallery(generation).exists()
    assert not generation.embeddings.exists()
    job.refresh_from_db()
    with pytest.raises(Problem, match="is cancelled and is not filled any more"):
        jobs.retry_job(job)
    job.refresh_from_db()
    assert job.state == JobState.CANCELLED


def test_what_fails_is_named_with_its_picture_and_retry_takes_it_alone(active, better, pictures):
    lost = pictures[3]
    data = lost.image.open("rb").read()
    lost.image.storage.delete(lost.image.name)
    job = run(start_reembedding(better, FLAT, asked_by="a test"))
    generation = candidate()
    assert (job.state, job.cursor, job.failed) == (JobState.DONE, N_PICTURES, 1)
    [failure] = job.failures
    assert (failure["picture"], failure["product"]) == (lost.pk, lost.product.sku)
    assert "No such file" in failure["reason"]
    assert generation.state == GenerationState.READY
    Path(lost.image.path).write_bytes(data)
    assert jobs.can_retry(job)
    run(jobs.retry_job(job))
    assert (job.failed, job.failures) == (0, [])
    assert_whole(generation)
    assert not jobs.can_retry(job)


def test_one_that_embeds_nothing_fails_and_says_why(active, better, pictures):
    for image in pictures:
        image.image.storage.delete(image.image.name)
    job = run(start_reembedding(better, FLAT, asked_by="a test"))
    generation = candidate()
    assert (job.state, generation.state) == (JobState.FAILED, GenerationState.FAILED)
    assert generation.failure == job.failures[-1]["reason"]
    assert "none of 12 pictures could be embedded" in generation.failure
    with pytest.raises(Problem, match="one that is ready or stands by is switched to"):
        generations.switch(generation, active)


def test_milvus_away_makes_it_wait(active, better, pictures, monkeypatch):
    job = start_reembedding(better, FLAT, asked_by="a test")
    gallery = get_gallery(candidate())

    def fail(_):
        raise GalleryUnavailable("gone")

    with monkeypatch.context() as away:
        away.setattr(gallery, "upsert", fail)
        run(job, turns=2)
    assert (job.state, job.result["stage"]) == (JobState.RUNNING, "waiting: gone")
    assert not candidate().embeddings.exclude(attempts=0).exists()
    run(job)
    assert_whole(candidate())


def test_rows_that_come_in_while_it_is_verified_are_sealed_too(active, better, pictures, monkeypatch):
    """So many that Milvus wants an index over them, after it was told to seal what was there."""
    monkeypatch.setattr(reembedding, "SEAL_AGAIN_SECONDS", 0.0)
    job = start_reembedding(better, IndexSettings(type="HNSW"), asked_by="a test")
    gallery = get_gallery(candidate())
    report = gallery.index_report

    def write_more():
        monkeypatch.setattr(gallery, "index_report", report)
        [entry] = gallery.fetch([pictures[0].pk])
        gallery.upsert([replace(entry, reference_image_id=10**9 + n) for n in range(MIN_INDEXED_ROWS)])
        job.result["sealed_at"] = time.time()
        return report()

    monkeypatch.setattr(gallery, "index_report", write_more)
    ends = time.monotonic() + 120
    while job.state == JobState.RUNNING or job.state == JobState.QUEUED:
        assert time.monotonic() < ends, job.result
        run(job, turns=1)
    assert job.state == JobState.DONE
    assert "sealed_at" not in job.result
    assert_whole(candidate())  # what the ledger does not know was taken out again


def test_a_cancel_is_heard_while_milvus_seals(active, better, pictures, monkeypatch):
    monkeypatch.setattr(reembedding, "MIN_INDEXED_ROWS", 1)
    monkeypatch.setattr(reembedding, "SAVE_EVERY_SECONDS", 0.1)
    job = start_reembedding(better, FLAT, asked_by="a test")
    flushing, over = threading.Event(), threading.Event()

    def flush():
        flushing.set()
        over.wait(60)

    monkeypatch.setattr(get_gallery(candidate()), "flush", flush)
    save = jobs.Progress.save

    def save_and_cancel(progress):
        if flushing.wait(0):
            jobs.cancel_job(Job.objects.get(pk=job.pk))
        save(progress)

    monkeypatch.setattr(jobs.Progress, "save", save_and_cancel)
    began = time.monotonic()
    run(job)
    try:
        assert flushing.is_set()
        assert time.monotonic() - began < 30
        assert job.state == JobState.CANCELLED
        assert Generation.objects.filter(state=GenerationState.CANCELLED).exists()
    finally:
        over.set()


def test_what_milvus_lost_meanwhile_is_noticed_before_it_is_ready(active, better, pictures, monkeypatch):
    job = start_reembedding(better, FLAT, asked_by="a test")
    gallery, ids = get_gallery(candidate()), [image.pk for image in pictures]
    report = gallery.index_report

    def lose_some():
        monkeypatch.setattr(gallery, "index_report", report)
        gallery.delete(ids[:3])
        return report()

    monkeypatch.setattr(gallery, "index_report", lose_some)
    run(job)
    assert job.result["mended"] == 1
    assert candidate().state == GenerationState.READY
    assert_whole(candidate())


def test_redetect_proposes_boxes_anew_but_for_those_of_people(active, better, pictures, tmp_path):
    write_folder(
        tmp_path / "detector", detector_model([[4, 3, 28, 21]], [[0.9, 0.0]]), detector_card(name="finder")
    )
    drawn, from_file, proposed = pictures[:3]
    ReferenceImage.objects.filter(pk=from_file.pk).update(box_source=BoxSource.FILE)
    for image in pictures[2:]:
        ReferenceImage.objects.filter(pk=image.pk).update(box=None, box_source=BoxSource.NONE)
        image.refresh_from_db()
        propose_main_body(image, (0.0, 0.0, 160.0, 120.0), BoxSource.WHOLE)
    enrol(active)
    with pytest.raises(Problem, match="no detector is active"):
        start_reembedding(better, FLAT, redetect=True, asked_by="a test")
    services.activate_model(services.install_model(tmp_path / "detector"))
    ReferenceImage.objects.update(quality_findings=["dark"])  # which they are not
    run(start_reembedding(better, FLAT, redetect=True, asked_by="a test"))
    for image in pictures:
        image.refresh_from_db()
    assert (drawn.quality_findings == ["dark"], proposed.quality_findings == ["dark"]) == (True, False)
    assert (drawn.box_source, from_file.box_source) == (BoxSource.PERSON, BoxSource.FILE)
    assert drawn.box == from_file.box == [10, 10, 110, 110]
    assert (proposed.box_source, proposed.box_detector) == (BoxSource.DETECTOR, "finder 1")
    assert proposed.box != [0, 0, 160, 120]
    generation = candidate()
    assert_whole(generation)
    # One box for all generations: the others follow with the next sweep.
    services.plan_missing(active)
    assert active.embeddings.filter(state=EmbeddingState.PENDING).count() == N_PICTURES - 2
    enrol(active)
    assert_whole(active)
    # Once it is ready, boxes are the catalogue's again.
    revision = proposed.revision
    services.plan_embedding(proposed.pk)
    enrol(generation)
    proposed.refresh_from_db()
    assert proposed.revision == revision


def test_boxes_found_anew_are_one_detectors_whichever_is_activated_meanwhile(
    active, better, pictures, tmp_path
):
    for name, box in (("finder", [4, 3, 28, 21]), ("other", [8, 8, 20, 20])):
        write_folder(tmp_path / name, detector_model([box], [[0.9, 0.0]]), detector_card(name=name))
    ReferenceImage.objects.update(box_source=BoxSource.WHOLE)
    services.activate_model(services.install_model(tmp_path / "finder"))
    job = start_reembedding(better, FLAT, redetect=True, asked_by="a test")
    run(job, turns=1)
    services.activate_model(services.install_model(tmp_path / "other"))
    run(job)
    assert job.state == JobState.DONE
    assert set(ReferenceImage.objects.values_list("box_detector", flat=True)) == {"finder 1"}


# --- the sweep --------------------------------------------------------------------------------------------
def test_a_gallery_that_is_gone_keeps_the_sweep_from_no_other(active, better, pictures):
    run(start_reembedding(better, FLAT, asked_by="a test"))
    standing_by = candidate()
    get_gallery(active).drop()
    services.plan_embedding(pictures[0].pk)
    sweep_gallery_task()
    assert_whole(standing_by)
    assert active.embeddings.get(reference_image_id=pictures[0].pk).state == EmbeddingState.PENDING


def test_a_model_that_is_gone_keeps_the_sweep_from_no_other(active, better, pictures, monkeypatch):
    run(start_reembedding(better, FLAT, asked_by="a test"))
    standing_by, models = candidate(), enrolment.Models

    def load(generation):
        if generation.pk == standing_by.pk:
            raise ModelRefused("found no model.onnx, wanted one")
        return models(generation)

    with monkeypatch.context() as gone:
        gone.setattr(enrolment, "Models", load)
        services.plan_embedding(pictures[0].pk)
        sweep_gallery_task()
        assert_whole(active)
        services.plan_embedding(pictures[1].pk)
        enrol_task([pictures[1].pk])
        assert_whole(active)
    assert standing_by.embeddings.filter(state=EmbeddingState.PENDING).count() == 2
    sweep_gallery_task()
    assert_whole(standing_by)


def test_what_milvus_lost_or_keeps_is_mended_by_night(active, pictures):
    gallery = get_gallery(active)
    gallery.delete([pictures[0].pk])
    [entry] = gallery.fetch([pictures[1].pk])
    gallery.upsert([replace(entry, reference_image_id=10**9)])
    sweep_gallery_task()  # looks at the ledger alone
    reconcile_gallery_task()
    sweep_gallery_task()
    assert_whole(active)


def test_the_ledger_is_planned_in_parts(active, pictures, monkeypatch):
    monkeypatch.setattr(services, "PLANNED_AT_ONCE", 3)
    ids = [image.pk for image in pictures]
    active.embeddings.filter(reference_image_id__in=ids[::4]).delete()
    ReferenceImage.objects.filter(pk=ids[1]).update(revision=7)
    ReferenceImage.objects.filter(pk=ids[-1])._raw_delete("default")
    services.plan_missing(active)
    states = dict(active.embeddings.values_list("reference_image_id", "state"))
    wanted_states = dict.fromkeys(ids, "embedded") | dict.fromkeys([*ids[::4], ids[1]], "pending")
    assert states == wanted_states | {ids[-1]: "removing"}
    services.plan_again(active)
    assert set(active.embeddings.values_list("state", flat=True)) == {"pending", "removing"}


def test_nothing_is_planned_for_one_that_was_retired_meanwhile(active, better, pictures, settings):
    settings.RECOGNITION_PATIENCE_SECONDS = 0
    run(start_reembedding(better, FLAT, asked_by="a test"))
    generation = candidate()
    call_command("retire_generation", str(generation.pk))
    services.plan_missing(generation)
    assert not generation.embeddings.exists()


# --- commands ---------------------------------------------------------------------------------------------
def test_the_command_starts_it_and_follows_it(active, better, pictures, monkeypatch, capsys):
    def go_on(seconds):
        """The worker's turn comes while the command waits."""
        job = Job.objects.first()
        jobs.run_job(str(job.pk))
        Job.objects.filter(pk=job.pk, state=JobState.RUNNING).update(lease_until=timezone.now())

    monkeypatch.setattr("backend.jobs.following.sleep", go_on)
    call_command("reembed", "--model", "toy:2", "--index", "FLAT", "--follow")
    told = capsys.readouterr().out
    assert f"{N_PICTURES} of {N_PICTURES}" in told
    assert f"generation {candidate().pk} is ready" in told
    call_command("generations")
    listed = capsys.readouterr().out
    assert "ready" in listed
    assert "active" in listed
    with pytest.raises(CommandError, match=r"no installed embedder 'nothing'; there is toy:1, toy:2"):
        call_command("reembed", "--model", "nothing")


def test_a_ready_one_is_retired_the_active_one_never(active, better, pictures, settings, capsys):
    settings.RECOGNITION_PATIENCE_SECONDS = 0
    run(start_reembedding(better, FLAT, asked_by="a test"))
    generation = candidate()
    with pytest.raises(CommandError, match=f"{active.pk} .* is active; it becomes retired only from"):
        call_command("retire_generation", str(active.pk))
    assert get_gallery(active).exists()
    call_command("retire_generation", str(generation.pk))
    generation.refresh_from_db()
    assert generation.freed_at is not None
    assert not get_gallery(generation).exists()
    assert not generation.embeddings.exists()
    with pytest.raises(CommandError, match="there is no generation 999; there is"):
        call_command("retire_generation", "999")


def test_rebuild_brings_back_what_milvus_lost(active, pictures, capsys):
    get_gallery(active).drop()
    call_command("rebuild_gallery")
    run(Job.objects.get())
    assert_whole(active)
