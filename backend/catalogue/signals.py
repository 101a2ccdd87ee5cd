"""Stored files go when their row is gone, and not before the deletion is committed."""

from functools import partial
from typing import Any

from django.db import transaction
from django.db.models.signals import post_delete
from django.dispatch import receiver

from backend.catalogue.models import ReferenceImage


@receiver(post_delete, sender=ReferenceImage)
def _delete_files(instance: ReferenceImage, **_: Any) -> None:
    for file in (instance.image, instance.thumbnail):
        if file.name:
            transaction.on_commit(partial(file.storage.delete, file.name))
