"""Rows and pictures that tests need, each with one word."""

import io
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from django.contrib.auth.models import Group, Permission, User
from django.test import Client
from PIL import Image

from backend.access.models import Device, Scope
from backend.access.services import create_device
from backend.catalogue.models import Product


def make_picture(
    seed: int = 0, size: tuple[int, int] = (160, 120), file_format: str = "JPEG", **options: Any
) -> bytes:
    """A picture of smooth random colours: no two seeds alike."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def make_product(sku: str = "COLA-330", **changes: Any) -> Product:
    """A priced product, active, sold by unit."""
    values: dict[str, Any] = {"name": f"Product {sku}", "price": Decimal("1.99"), "currency": "EUR"} | changes
    product = Product(sku=sku, **values)
    product.full_clean()
    product.save()
    return product


def make_device(name: str = "till 1", *scopes: str, **changes: Any) -> tuple[Device, dict[str, str]]:
    """A device with all scopes, or those given, and the header that carries its key."""
    device, key = create_device(name=name, scopes=list(scopes) or list(Scope.values), **changes)
    return device, {"Authorization": f"Bearer {key}"}


def make_staff(username: str, *roles: str, permissions: Sequence[str] = ()) -> Client:
    """A browser of somebody who is logged in at the admin: with roles, or single permissions as "app.codename"."""
    user = User.objects.create_user(username, is_staff=True)
    user.groups.set(Group.objects.filter(name__in=roles))
    for permission in permissions:
        app, codename = permission.split(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
    client = Client()
    client.force_login(user)
    return client
