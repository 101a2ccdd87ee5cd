"""Each way in which catalogue, ledger and Milvus can differ is found, named and mended; work under way is none."""

from datetime import timedelta

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from backend.catalogue.models import ReferenceImage
from backend.catalogue.services import add_reference_image
from backend.gallery import agreement
from backend.gallery.agreement import Drift, find_drift
from backend.gallery.enrolment import enrol
from backend.gallery.loading import get_gallery
from backend.gallery.models import Embedding, EmbeddingState
from recognition.gallery import Entry
from tests.backend.conftest import N_PICTURES, assert_whole
from tests.backend.factories import make_picture

MISSING, ORPHANED, STALE = Drift.MISSING, Drift.ORPHANED, Drift.STALE


def entry(generation, pk: int, product: int = 1, revision: int = 1) -> Entry:
    gallery = get_gallery(generation)
    return Entry(
        pk,
        product,
        revision,
        np.eye(1, gallery.dimension, dtype=np.float32)[0],
        np.zeros(gallery.hash_bits // 8, np.uint8),
    )


def lose_from_one_collection(generation, image):
    gallery = get_gallery(generation)
    with gallery._milvus.client(_Forever()) as client:
        client.delete(gallery._collections["hash"], filter=f"reference_image_id in [{image.pk}]")


class _Forever:
    def left(self) -> float:
        return 60.0


def lose_from_both(generation, image):
    get_gallery(generation).delete([image.pk])


def lose_row(generation, image):
    generation.embeddings.filter(reference_image_id=image.pk).delete()


def leave_older_revision(generation, image):
    get_gallery(generation).upsert([entry(generation, image.pk, image.product_id, image.revision - 1)])


def change_picture_unsaid(generation, image):
    ReferenceImage.objects.filter(pk=image.pk).update(revision=9, box=[0, 0, 90, 90])


def mistake_product(generation, image):
    get_gallery(generation).upsert([entry(generation, image.pk, image.product_id + 1_000, image.revision)])


def delete_picture_unsaid(generation, image):
    ReferenceImage.objects.filter(pk=image.pk)._raw_delete("default")


def leave_unknown_entry(generation, image):
    get_gallery(generation).upsert([entry(generation, 10_000_000_000)])


def leave_entry_of_failed(generation, image):
    generation.embeddings.filter(reference_image_id=image.pk).update(state=EmbeddingState.FAILED, revision=0)


@pytest.mark.parametrize(
    ("spoil", "drift"),
    [
        (lose_from_one_collection, MISSING),
        (lose_from_both, MISSING),
        (lose_row, MISSING),
        (leave_older_revision, STALE),
        (change_picture_unsaid, STALE),
        (mistake_product, STALE),
        (delete_picture_unsaid, ORPHANED),
        (leave_unknown_entry, ORPHANED),
        (leave_entry_of_failed, ORPHANED),
    ],
)
def test_each_drift_is_found_by_its_name_and_mended(active, pictures, monkeypatch, capsys, spoil, drift):
    monkeypatch.setattr(agreement, "PAGE", 5)  # several pages of each stream
    spoil(active, pictures[4])
    found = find_drift(active)
    assert {kind: n for kind, n in found.counts.items() if n} == {drift: 1}
    [named] = found.named[drift]
    assert named == (10_000_000_000 if spoil is leave_unknown_entry else pictures[4].pk)
    call_command("reconcile_gallery", "--fix")
    assert f"now 0 {MISSING}, 0 {ORPHANED}, 0 {STALE}" in capsys.readouterr().out
    enrol(active)
    assert_whole(active)


def test_what_is_under_way_is_no_drift(active, pictures):
    waiting, held, going, failed = pictures[:4]
    rows = active.embeddings
    rows.filter(reference_image_id=waiting.pk).update(state=EmbeddingState.PENDING, revision=0)
    rows.filter(reference_image_id=held.pk).update(lease_until=timezone.now() + timedelta(minutes=1))
    going.delete()
    get_gallery(active).delete([held.pk, failed.pk])
    rows.filter(reference_image_id=failed.pk).update(state=EmbeddingState.FAILED)
    found = find_drift(active)
    assert (found.n_drift, found.n_pictures) == (0, N_PICTURES - 1)
    assert found.n_entries == {"float": N_PICTURES - 2, "hash": N_PICTURES - 2}


def test_the_command_reports_and_ends_with_an_error_until_it_is_mended(active, pictures, capsys):
    call_command("reconcile_gallery")
    assert (
        f"{N_PICTURES} pictures, {N_PICTURES} float and {N_PICTURES} hash entries" in capsys.readouterr().out
    )
    lose_from_both(active, pictures[0])
    with pytest.raises(CommandError, match="1 differ; mend it with --fix"):
        call_command("reconcile_gallery", "--generation", str(active.pk))
    assert f"1 missing (pictures {pictures[0].pk})" in capsys.readouterr().out
    assert Embedding.objects.exclude(state=EmbeddingState.EMBEDDED).count() == 0  # told, not touched


def test_a_picture_that_comes_while_it_is_compared_is_no_drift(active, pictures, monkeypatch):
    """It is in the ledger's page and not yet in Milvus', or the other way round; the second look knows."""
    gallery = get_gallery(active)
    entries = gallery.entries

    def entries_then_one_more(kind):
        yield from entries(kind)
        if kind == "float":
            add_reference_image(product=pictures[0].product, data=make_picture(99), box=(0, 0, 90, 90))
            enrol(active)

    monkeypatch.setattr(gallery, "entries", entries_then_one_more)
    assert find_drift(active).n_drift == 0
