"""The catalogue's pictures come, change and go; the ledger follows in the same transaction, a task after its commit."""

from typing import Any

from django.db.models.signals import post_save, pre_delete
from django.dispatch import receiver

from backend.catalogue.models import ReferenceImage
from backend.gallery.services import plan_embedding, plan_removal


@receiver(post_save, sender=ReferenceImage)
def _picture_saved(instance: ReferenceImage, **_: Any) -> None:
    plan_embedding(instance.pk)


@receiver(pre_delete, sender=ReferenceImage)
def _picture_deleted(instance: ReferenceImage, **_: Any) -> None:
    plan_removal(instance.pk)
