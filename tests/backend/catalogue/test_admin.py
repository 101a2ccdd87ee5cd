"""The catalogue's admin pages: what a manager does all day, and what is refused, by name."""

import io
import zipfile

import pytest
from django.contrib.messages import get_messages
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from backend.catalogue.models import BoxSource, Product, ProductSet, ReferenceImage
from backend.catalogue.services import add_reference_image
from backend.jobs.models import Job
from tests.backend.factories import make_picture, make_product, make_staff

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def media(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path


@pytest.fixture
def manager() -> Client:
    return make_staff("manager", "manager")


def upload(seed: int, name: str = "front.jpg") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, make_picture(seed), "image/jpeg")


def not_a_picture(name: str) -> SimpleUploadedFile:
    return SimpleUploadedFile(name, b"a list of things to buy", "image/jpeg")


def product_form(**changes) -> dict:
    values = {"sku": "A-1", "name": "Apple", "sold_by": "unit", "state": "active", "attributes": "{}"}
    return values | changes


def messages_of(response) -> list[str]:
    return [str(message) for message in get_messages(response.wsgi_request)]


def change_url(row) -> str:
    return reverse(f"admin:catalogue_{row._meta.model_name}_change", args=[row.pk])


@pytest.mark.parametrize(
    "permissions",
    [None, ["catalogue.view_product", "catalogue.view_referenceimage", "catalogue.view_productset"]],
)
def test_each_page_opens_for_a_manager_and_for_who_may_only_look(permissions):
    client = make_staff("somebody", *([] if permissions else ["manager"]), permissions=permissions or [])
    product = make_product(category="Fruit/Apple", sold_by="weight")
    image = add_reference_image(product=product, data=make_picture(), box=[10, 10, 90, 90])
    product_set = ProductSet.objects.create(slug="north", name="North")
    product_set.products.add(product)
    pages = [
        *(
            reverse(f"admin:catalogue_{model}_changelist")
            for model in ("product", "referenceimage", "productset")
        ),
        *(change_url(row) for row in (product, image, product_set)),
        reverse("admin:catalogue_product_history", args=[product.pk]),
        reverse("admin:catalogue_product_pictures", args=[product.pk]),
        reverse("admin:catalogue_referenceimage_picture", args=[image.pk]),
        reverse("admin:catalogue_referenceimage_thumbnail", args=[image.pk]),
        reverse("admin:index"),
    ]
    for page in pages:
        assert client.get(page).status_code == 200, page
    may_add = 200 if permissions is None else 403
    assert client.get(reverse("admin:catalogue_product_add")).status_code == may_add
    assert client.get(reverse("admin:catalogue_product_start_import")).status_code == may_add


def test_pictures_are_private():
    image = add_reference_image(product=make_product(), data=make_picture())
    url = reverse("admin:catalogue_referenceimage_thumbnail", args=[image.pk])
    assert Client().get(url).headers["Location"].startswith("/admin/login/")
    assert make_staff("nobody").get(url).status_code == 403
    answer = make_staff("somebody", permissions=["catalogue.view_referenceimage"]).get(url)
    assert answer["Cache-Control"].startswith("private")
    for path in (image.image.name, image.thumbnail.name):
        assert Client().get(f"/media/{path}").status_code == 404


def test_a_new_product_keeps_its_good_pictures_and_names_the_bad(manager):
    product_set = ProductSet.objects.create(slug="north", name="North")
    form = product_form(
        price="1.20", currency="EUR", product_sets=[product_set.pk],
        pictures=[upload(1), not_a_picture("notes.jpg"), upload(1, "again.jpg"), upload(2)],
    )  # fmt: skip
    response = manager.post(reverse("admin:catalogue_product_add"), form)
    product = Product.objects.get(sku="A-1")
    assert response.headers["Location"] == change_url(product)
    assert product.reference_images.count() == 2
    assert list(product.product_sets.all()) == [product_set]
    told = messages_of(response)
    assert "2 pictures added." in told
    assert any(text.startswith("notes.jpg: Found something else than an image") for text in told)
    assert any(text.startswith("again.jpg: product A-1 has this very picture already") for text in told)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gtin": "4006381333932"}, "is no GTIN"),
        ({"sku": "with blank"}, "letters, digits"),
        ({"price": "-1", "currency": "EUR"}, "greater than or equal to 0"),
        ({"price": "1"}, "a price needs its currency"),
        ({"attributes": "[1]"}, "An object is wanted"),
        ({"attributes": "{"}, "Enter a valid JSON"),
    ],
)
def test_a_bad_field_is_told_at_the_field_and_nothing_is_stored(manager, changes, said):
    response = manager.post(reverse("admin:catalogue_product_add"), product_form(**changes))
    assert said in response.content.decode()
    assert not Product.objects.exists()


def test_a_changed_product_leaves_and_joins_product_sets_and_its_history_tells(manager):
    product = make_product("A-1")
    north, south = (ProductSet.objects.create(slug=slug, name=slug) for slug in ("north", "south"))
    north.products.add(product)
    response = manager.post(change_url(product), product_form(name="Pear", product_sets=[south.pk]))
    assert response.status_code == 302
    product.refresh_from_db()
    assert (product.name, list(product.product_sets.all())) == ("Pear", [south])
    history = manager.get(reverse("admin:catalogue_product_history", args=[product.pk])).content.decode()
    assert "Pear" in history
    assert "manager" in history
    assert manager.get(reverse("admin:catalogue_product_history", args=[999_999])).status_code == 404


def test_pictures_are_added_by_script_one_by_one(manager):
    url = reverse("admin:catalogue_product_pictures", args=[make_product().pk])
    good = manager.post(url, {"pictures": [upload(1)]}, headers={"Accept": "application/json"})
    assert (good.status_code, good.json()["added"]) == (200, 1)
    bad = manager.post(url, {"pictures": [not_a_picture("x.jpg")]}, headers={"Accept": "application/json"})
    assert bad.status_code == 400
    assert bad.json()["detail"].startswith("Found something else than an image")
    grid = manager.get(url).json()["html"]
    assert f"picture-{ReferenceImage.objects.get().pk}" in grid


def test_pictures_need_the_permission_to_add(manager):
    url = reverse("admin:catalogue_product_pictures", args=[make_product().pk])
    reader = make_staff("reader", permissions=["catalogue.view_product"])
    assert reader.post(url, {"pictures": [upload(1)]}).status_code == 403
    assert not ReferenceImage.objects.exists()


def test_a_person_sets_the_main_body(manager):
    image = add_reference_image(product=make_product(), data=make_picture(size=(160, 120)))
    form = {"box_x1": "10", "box_y1": "20.5", "box_x2": "150", "box_y2": "110"}
    response = manager.post(change_url(image), form)
    assert response.headers["Location"].endswith(f"{change_url(image.product)}#picture-{image.pk}")
    image.refresh_from_db()
    assert (image.box, image.box_source, image.revision) == ([10, 20.5, 150, 110], BoxSource.PERSON, 2)
    manager.post(change_url(image), form)
    image.refresh_from_db()
    assert image.revision == 2, "saved without a change: nothing to embed again"
    history = manager.get(reverse("admin:catalogue_referenceimage_history", args=[image.pk])).content.decode()
    assert "20.5" in history
    assert f"Picture {image.pk} of COLA-330" in manager.get(change_url(image)).content.decode()
    manager.post(change_url(image), form | {"_propose": "1"})
    image.refresh_from_db()
    assert (image.box, image.box_source, image.revision) == (None, BoxSource.NONE, 3)


@pytest.mark.parametrize(
    "box",
    [
        ("0", "0", "161", "50"),
        ("50", "0", "10", "50"),
        ("-1", "0", "10", "50"),
        ("0", "0", "nan", "50"),
        ("1", "", "", ""),
    ],
)
def test_a_box_that_is_none_is_refused_on_the_page(manager, box):
    image = add_reference_image(product=make_product(), data=make_picture(size=(160, 120)))
    form = dict(zip(("box_x1", "box_y1", "box_x2", "box_y2"), box, strict=True))
    response = manager.post(change_url(image), form)
    assert response.status_code == 200
    assert response.context["adminform"].form.errors["box"]
    image.refresh_from_db()
    assert (image.box, image.revision) == (None, 1)


def test_boxes_are_proposed_again_for_many(manager):
    product = make_product()
    for seed in range(3):
        add_reference_image(product=product, data=make_picture(seed), box=[0, 0, 50, 50])
    pks = list(ReferenceImage.objects.values_list("pk", flat=True))
    manager.post(
        reverse("admin:catalogue_referenceimage_changelist"),
        {"action": "propose_again", "_selected_action": pks},
    )
    assert set(ReferenceImage.objects.values_list("box_source", flat=True)) == {""}


def test_a_deleted_picture_leads_back_to_its_product(manager):
    image = add_reference_image(product=make_product(), data=make_picture())
    response = manager.post(
        reverse("admin:catalogue_referenceimage_delete", args=[image.pk]), {"post": "yes"}
    )
    assert change_url(image.product) in response.headers["Location"]
    assert not ReferenceImage.objects.exists()


def test_the_list_finds_by_name_sku_gtin_brand_and_filters(manager):
    pear = make_product("P-1", name="Pear", gtin="4006381333931", brand="Orchard", category="Fruit/Pear")
    soda = make_product("S-1", name="Soda", category="Drinks", state="retired")
    ProductSet.objects.create(slug="north", name="North").products.add(pear)
    add_reference_image(product=soda, data=make_picture())

    def found(query: str) -> list[str]:
        page = manager.get(f"{reverse('admin:catalogue_product_changelist')}?{query}")
        return [product.sku for product in page.context["cl"].result_list]

    in_set = f"product_sets__id__exact={ProductSet.objects.get().pk}"
    for query in (
        "q=pear", "q=P-1", "q=4006381", "q=orchard", "category=Fruit", "category=Fruit/Pear", "state__exact=active",
        in_set, "pictures=none",
    ):  # fmt: skip
        assert found(query) == ["P-1"], query
    assert found("pictures=some") == ["S-1"]
    assert found("category=Fru") == []


def test_a_page_of_products_costs_as_many_queries_as_one_product(manager, django_assert_max_num_queries):
    for number in range(20):
        add_reference_image(product=make_product(f"P-{number}"), data=make_picture(number))
    with django_assert_max_num_queries(25):
        manager.get(reverse("admin:catalogue_product_changelist"))


def test_products_retire_together(manager):
    pks = [make_product(sku).pk for sku in ("A", "B")]
    manager.post(reverse("admin:catalogue_product_changelist"), {"action": "retire", "_selected_action": pks})
    assert set(Product.objects.values_list("state", flat=True)) == {"retired"}


def act_on(client: Client, products: list[Product], query: str = "", **form) -> HttpResponse:
    """Choose an action for products of the list; with `_answered` as its own page sends it."""
    url = f"{reverse('admin:catalogue_product_changelist')}?{query}"
    return client.post(url, {"_selected_action": [product.pk for product in products]} | form)


def test_products_join_and_leave_a_product_set_from_the_list(manager):
    products = [make_product(sku) for sku in ("A", "B", "C")]
    north, south = (ProductSet.objects.create(slug=slug, name=slug) for slug in ("north", "south"))
    asked = act_on(manager, products[:2], action="add_to_set").content.decode()
    assert "Add to a product set: 2 products" in asked
    assert all(f'name="_selected_action" value="{product.pk}"' in asked for product in products[:2])
    assert not north.products.exists(), "asking changes nothing"

    answer = {"_answered": "1", "product_set": north.pk}
    response = act_on(manager, products[:2], action="add_to_set", **answer)
    assert messages_of(response) == ["2 products added to north."]
    assert set(north.products.all()) == set(products[:2])

    in_north = f"product_sets__id__exact={north.pk}"
    asked = act_on(manager, products[:1], in_north, action="remove_from_set").content.decode()
    assert f'<option value="{north.pk}" selected>' in asked, "whoever looks at a set means that set"
    everywhere = {"select_across": "1", "action": "remove_from_set"}
    act_on(manager, products[:1], in_north, **everywhere, **answer)
    assert not north.products.exists(), "both pages of the list"

    response = act_on(manager, products, action="add_to_set", _answered="1", product_set="")
    assert "This field is required" in response.content.decode()
    assert not south.products.exists()


def test_a_category_is_set_for_many_or_taken_away(manager):
    products = [make_product(sku, category="Snacks") for sku in ("A", "B", "C")]
    answer = {"action": "set_category", "_answered": "1"}
    response = act_on(manager, products[:2], **answer, category="Fruit/Apple")
    assert messages_of(response) == ["2 products moved to the category Fruit/Apple."]
    act_on(manager, products[2:], **answer, category="")
    assert list(Product.objects.values_list("category", flat=True)) == ["Fruit/Apple", "Fruit/Apple", ""]
    assert (
        "at most 100 characters" in act_on(manager, products, **answer, category="x" * 101).content.decode()
    )


def test_actions_are_for_who_may_change_what_they_change():
    products, north = [make_product("A")], ProductSet.objects.create(slug="north", name="North")
    reader = make_staff("reader", permissions=["catalogue.view_product"])
    editor = make_staff("editor", permissions=["catalogue.view_product", "catalogue.change_product"])
    answer = {"_answered": "1", "product_set": north.pk, "category": "Fruit"}
    for act in ("add_to_set", "set_category"):
        act_on(reader, products, action=act, **answer)
    act_on(editor, products, action="add_to_set", **answer)
    assert not north.products.exists()
    assert Product.objects.get().category == ""


def test_pictures_that_an_error_made_the_browser_forget_are_said_to_be_chosen_again(manager):
    make_product("TAKEN")
    url = reverse("admin:catalogue_product_add")
    chosen = {"pictures": [upload(1), upload(2)]}
    for wrong in ({"name": ""}, {"sku": "TAKEN"}):
        page = manager.post(url, product_form(**wrong) | chosen).content.decode()
        assert "The 2 pictures you chose could not be kept" in page, wrong
    assert "could not be kept" not in manager.post(url, product_form(name="")).content.decode()
    assert not ReferenceImage.objects.exists()


def test_a_product_set_takes_pasted_skus_and_names_those_it_does_not_know(manager):
    for sku in ("A", "B", "C"):
        make_product(sku)
    product_set = ProductSet.objects.create(slug="north", name="North")
    form = {"name": "North", "slug": "north", "add_skus": "A;B,\n  NOPE ODD\tC", "remove_skus": ""}
    response = manager.post(change_url(product_set), form)
    assert "not in the catalogue: NOPE, ODD" in response.content.decode()
    assert product_set.products.count() == 0
    form |= {"add_skus": "A;B\n", "add_products": [Product.objects.get(sku="C").pk]}
    assert manager.post(change_url(product_set), form).status_code == 302
    assert product_set.products.count() == 3
    manager.post(change_url(product_set), form | {"add_skus": "", "add_products": [], "remove_skus": "A B"})
    assert [product.sku for product in product_set.products.all()] == ["C"]


def test_a_zip_is_imported_by_a_job(manager):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("products.csv", "sku,name\nZ-1,Zip\n")
    url = reverse("admin:catalogue_product_start_import")
    response = manager.post(url, {"file": SimpleUploadedFile("c.zip", buffer.getvalue())})
    job = Job.objects.get()
    assert response.headers["Location"] == reverse("admin:jobs_job_change", args=[job.pk])
    assert (job.kind, job.subject, job.asked_by) == ("catalogue-import", "c.zip", "manager")


def test_an_import_that_is_too_large_or_missing_is_refused(manager, settings):
    settings.IMPORT_MAX_BYTES = 10
    url = reverse("admin:catalogue_product_start_import")
    answer = manager.post(url, {"file": SimpleUploadedFile("c.zip", b"x" * 11)})
    assert "has 11 bytes, at most 10 are taken" in answer.content.decode()
    assert "This field is required" in manager.post(url, {}).content.decode()
    assert not Job.objects.exists()


def test_products_are_found_while_typing(manager):
    make_product("COLA-330", name="Cola")
    url = reverse("admin:catalogue_product_find")
    assert manager.get(url, {"term": "col"}).json() == {"products": [{"sku": "COLA-330", "name": "Cola"}]}
    assert make_staff("nobody").get(url).status_code == 403
