"""The admin's menu: each entry is there for those who may see its page."""

from typing import Any

from django.http import HttpRequest
from django.urls import reverse

# Title of a group, and its entries: title, icon (of Material Symbols), address, permission.
MENU: list[tuple[str, list[tuple[str, str, str, str]]]] = [
    (
        "",
        [
            ("Overview", "dashboard", "index", ""),
            (
                "Recognise",
                "center_focus_strong",
                "checkout_recognition_recognise",
                "checkout.recognise_photo",
            ),
        ],
    ),
    (
        "Catalogue",
        [
            ("Products", "inventory_2", "catalogue_product_changelist", "catalogue.view_product"),
            (
                "Reference images",
                "photo_library",
                "catalogue_referenceimage_changelist",
                "catalogue.view_referenceimage",
            ),
            ("Product sets", "storefront", "catalogue_productset_changelist", "catalogue.view_productset"),
            ("Imports and jobs", "pending_actions", "jobs_job_changelist", "jobs.view_job"),
        ],
    ),
    (
        "Checkout",
        [
            (
                "Recognitions",
                "receipt_long",
                "checkout_recognition_changelist",
                "checkout.view_recognition",
            ),
            ("Corrections", "edit_note", "checkout_correction_changelist", "checkout.view_correction"),
            ("Review", "fact_check", "checkout_correction_review", "checkout.review_correction"),
        ],
    ),
    (
        "Gallery",
        [
            ("Generations", "layers", "gallery_generation_changelist", "gallery.view_generation"),
            ("Embeddings", "data_array", "gallery_embedding_changelist", "gallery.view_embedding"),
            (
                "Shadowed items",
                "contrast",
                "checkout_shadoweditem_changelist",
                "checkout.view_shadoweditem",
            ),
            ("Threshold sets", "tune", "gallery_thresholdset_changelist", "gallery.view_thresholdset"),
            ("Models", "neurology", "gallery_installedmodel_changelist", "gallery.view_installedmodel"),
            (
                "Evaluations",
                "query_stats",
                "evaluation_evaluationrun_changelist",
                "evaluation.view_evaluationrun",
            ),
        ],
    ),
    (
        "Access",
        [
            ("Devices", "point_of_sale", "access_device_changelist", "access.view_device"),
            ("Users", "person", "auth_user_changelist", "auth.view_user"),
            ("Roles", "group", "auth_group_changelist", "auth.view_group"),
            ("Audit log", "history", "auditlog_logentry_changelist", "auditlog.view_logentry"),
        ],
    ),
]


def get_navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """The sidebar, as UNFOLD's SIDEBAR.navigation wants it."""
    links = {address: reverse(f"admin:{address}") for _, entries in MENU for _, _, address, _ in entries}
    overview = links["index"]
    # A page belongs to the entry whose address is the longest start of its own; the overview's is all pages'.
    starts = [link for link in links.values() if request.path.startswith(link) and link != overview]
    current = max(starts, key=len, default=overview if request.path == overview else "")
    groups = []
    for title, entries in MENU:
        items = [
            {
                "title": entry,
                "icon": icon,
                "link": links[address],
                "active": links[address] == current,
            }
            for entry, icon, address, permission in entries
            if not permission or request.user.has_perm(permission)
        ]
        if items:
            groups.append({"title": title, "separator": bool(title), "items": items})
    return groups
