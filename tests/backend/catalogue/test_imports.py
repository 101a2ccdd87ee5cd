"""Imports: each bad row is named and the rest goes on; nothing leads outside; nothing changes the second time."""

import io
import stat
import zipfile
from decimal import Decimal

import pytest
from django.core.files.base import ContentFile
from django.core.management import CommandError, call_command

from backend.catalogue import imports
from backend.catalogue.imports import IMPORT_KIND, import_folder, unpacked
from backend.catalogue.models import Product, ReferenceImage
from backend.common.problems import Problem
from backend.jobs.models import Job, JobState
from backend.jobs.services import Progress, retry_job, run_job, start_job
from tests.backend.factories import make_picture

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def media(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path / "media"


@pytest.fixture
def folder(tmp_path):
    """A folder of two products with a picture each."""
    folder = tmp_path / "catalogue"
    (folder / "images").mkdir(parents=True)
    (folder / "products.csv").write_text(
        "sku,gtin,name,price,currency\nA,4006381333931,Apple,0.50,EUR\nB,,Bread,,\n"
    )
    (folder / "gallery.csv").write_text(
        "image,sku,x1,y1,x2,y2\nimages/a.jpg,A,10,10,90,90\nimages/b.jpg,B,,,,\n"
    )
    for number, name in enumerate("ab"):
        (folder / "images" / f"{name}.jpg").write_bytes(make_picture(number))
    return folder


def run(folder) -> Job:
    job = Job.objects.create(kind=IMPORT_KIND, state=JobState.RUNNING, asked_by="a test")
    import_folder(folder, Progress(job))
    return job


def test_products_and_pictures_come_in(folder):
    job = run(folder)
    assert job.result == {"products": 2, "pictures": 2, "pictures_already_there": 0}
    apple = Product.objects.get(sku="A")
    assert (apple.gtin, apple.price, apple.currency) == ("4006381333931", Decimal("0.50"), "EUR")
    assert apple.reference_images.get().box == [10, 10, 90, 90]
    assert Product.objects.get(sku="B").reference_images.get().box is None


def test_the_second_time_nothing_more_changes(folder):
    run(folder)
    job = run(folder)
    assert job.result == {"products": 2, "pictures": 0, "pictures_already_there": 2}
    assert (Product.objects.count(), ReferenceImage.objects.count()) == (2, 2)


def test_an_existing_sku_is_updated_and_absent_columns_stay(folder):
    run(folder)
    (folder / "products.csv").write_text("sku,name\nA,Green apple\n")
    run(folder)
    apple = Product.objects.get(sku="A")
    assert (apple.name, apple.price) == ("Green apple", Decimal("0.50"))


def test_each_bad_row_is_named_and_the_rest_goes_on(folder):
    (folder / "products.csv").write_text(
        "sku,gtin,name,price,currency\n"
        "A,4006381333931,Apple,0.50,EUR\n"
        "X1,4006381333932,Wrong check digit,1,EUR\n"
        'X2,,=HYPERLINK("http://evil"),1,EUR\n'
        "X3,,Price without currency,1,\n"
        "X4,,Bad price,one,EUR\n"
        "X5,,NaN price,NaN,EUR\n"
        ",,No SKU,1,EUR\n"
        "B,,Bread,,\n"
    )
    (folder / "gallery.csv").write_text(
        "image,sku,x1,y1,x2,y2\n"
        "images/a.jpg,A,,,,\n"
        "images/a.jpg,NOPE,,,,\n"
        "../../../etc/passwd,A,,,,\n"
        "images/missing.jpg,A,,,,\n"
        "products.csv,A,,,,\n"
        "images/b.jpg,B,0,0,9999,10\n"
        "images/b.jpg,B,0,zero,10,10\n"
        "images/b.jpg,B,0,0,50,50\n"
    )
    job = run(folder)
    assert [(failure["file"], failure["row"]) for failure in job.failures] == [
        *(("products.csv", row) for row in range(3, 9)),
        *(("gallery.csv", row) for row in range(3, 9)),
    ]
    reasons = [failure["reason"] for failure in job.failures]
    wanted_in = ["no GTIN", "formula", "currency", "no number", "no price", "sku", "'NOPE' is not in"]
    wanted_in += ["outside the folder", "no file", "products.csv", "no box inside", "not four numbers"]
    for wanted, reason in zip(wanted_in, reasons, strict=True):
        assert wanted in reason
    assert job.result == {"products": 2, "pictures": 2, "pictures_already_there": 0}


def refusals(job: Job) -> list[tuple[str, int, str]]:
    return [(failure["file"], failure["row"], failure["reason"]) for failure in job.failures]


@pytest.mark.parametrize(
    ("content", "row", "reason"),
    [
        (
            "sku,name,price,currency\nB,White bread,1.20,EUR\nA,Green apple\n",
            3,
            "the row has 2 cells, the header names 4 columns; an empty cell keeps its comma",
        ),
        (
            "sku,name\nB,White bread\nA,Chips, salted\n",
            3,
            "the row has 3 cells, the header names 2 columns; a text with a comma in it stands in quotes",
        ),
        (
            "sku,name\nB,White bread\n\nA\n",
            4,
            "the row has 1 cell, the header names 2 columns",
        ),
        (
            "sku,name\nX,Red\nB,White bread\nX,Green\n",
            4,
            "sku: 'X' stands in row 2 already; keep one row for each SKU",
        ),
    ],
)
def test_a_row_of_which_no_cell_can_be_believed_changes_nothing(folder, content, row, reason):
    run(folder)
    (folder / "gallery.csv").unlink()
    (folder / "products.csv").write_text(content)
    job = run(folder)
    [(file, number, found)] = refusals(job)
    assert (file, number) == ("products.csv", row)
    assert found.startswith(reason)
    apple = Product.objects.get(sku="A")
    assert (apple.name, apple.price, apple.currency) == ("Apple", Decimal("0.50"), "EUR")
    assert Product.objects.get(sku="B").name == "White bread"
    assert not Product.objects.filter(name="Green").exists()


def test_a_gallery_row_with_a_wrong_number_of_cells_adds_no_picture(folder):
    (folder / "gallery.csv").write_text(
        "image,sku,x1,y1,x2,y2\nimages/a.jpg,A,10,10,90\nimages/b.jpg,B,,,,\n"
    )
    job = run(folder)
    assert [one[:2] for one in refusals(job)] == [("gallery.csv", 2)]
    assert ReferenceImage.objects.get().product.sku == "B"


def test_rows_are_counted_as_a_spreadsheet_counts_them(folder):
    """A text of two lines is one row there, and an empty row is one."""
    (folder / "products.csv").write_text('sku,name,description\nA,Apple,"two\nlines"\n\nB\n')
    (folder / "gallery.csv").unlink()
    assert [row for _, row, _ in refusals(run(folder))] == [4]


def test_a_byte_order_mark_and_windows_lines_are_fine(folder):
    (folder / "products.csv").write_bytes(b"\xef\xbb\xbfSKU, Name \r\nA,Apfel \xc3\xa4\r\n")
    (folder / "gallery.csv").unlink()
    run(folder)
    assert Product.objects.get().name == "Apfel ä"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"sku,name\nA,\xff\xfe\n", "not UTF-8"),
        (b"sku;name\nA;Apple\n", "semicolons between its cells, commas are wanted"),
        (b"sku\tname\nA\tApple\n", "tabs between its cells, commas are wanted"),
        (b"sku,price\nA,1\n", "lacks the column name; its header is sku, price"),
        (b"sku,name,Name\nA,Apple,Pear\n", "the column name twice"),
        (b"", "lacks the column sku, name"),
        (b'sku,name\nA,"never closed\n', "unexpected end"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_as_a_whole(folder, content, message):
    (folder / "products.csv").write_bytes(content)
    with pytest.raises(Problem, match=message):
        run(folder)


def zip_of(entries: dict[str, bytes], **external_attr: int) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = external_attr.get("attr", 0o644 << 16)
            archive.writestr(info, content)
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/outside.txt", "a/../../outside.txt"])
def test_a_path_that_leads_outside_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.setattr(imports.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(Problem, match="leads outside"), unpacked(zip_of({name: b"x"}), "a"):
        pass
    assert not list(tmp_path.glob("**/outside.txt"))
    assert not list(tmp_path.glob("checklane-import-*"))


def test_a_link_is_refused():
    archive = zip_of({"link": b"/etc/passwd"}, attr=(stat.S_IFLNK | 0o777) << 16)
    with pytest.raises(Problem, match="is a link"), unpacked(archive, "a"):
        pass


def test_what_a_killed_worker_left_is_removed_and_another_imports_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(imports.tempfile, "tempdir", str(tmp_path))
    killed, other = unpacked(zip_of({"a": b"x"}), "one"), unpacked(zip_of({"a": b"x"}), "another")
    left, beside = killed.__enter__(), other.__enter__()
    with unpacked(zip_of({"a": b"x"}), "one") as folder:
        assert not left.exists()
        assert beside.exists()
        assert (folder / "a").read_bytes() == b"x"


def test_a_bomb_is_stopped_while_it_unpacks(settings, tmp_path, monkeypatch):
    settings.IMPORT_MAX_UNPACKED_BYTES = 5_000_000
    monkeypatch.setattr(imports.tempfile, "tempdir", str(tmp_path))
    bomb = zip_of({"products.csv": b"sku,name\n", "zeros": bytes(50_000_000)})
    assert len(bomb.getvalue()) < 100_000
    with (
        pytest.raises(Problem, match=r"more than 5,000,000 bytes \(reached in 'zeros'\)"),
        unpacked(bomb, "a"),
    ):
        pass
    assert not list(tmp_path.glob("checklane-import-*"))


def test_too_many_entries_are_refused(settings):
    settings.IMPORT_MAX_FILES = 3
    with (
        pytest.raises(Problem, match="4 entries, at most 3"),
        unpacked(zip_of({str(n): b"" for n in range(4)}), "a"),
    ):
        pass


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 nothing", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_zip_is_refused(data):
    with pytest.raises(Problem, match="no zip file"), unpacked(io.BytesIO(data), "a"):
        pass


def test_an_import_job_takes_a_zip_with_a_folder_in_it(folder):
    entries = {
        f"shop/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    job = start_job(kind=IMPORT_KIND, file=ContentFile(zip_of(entries).getvalue()), asked_by="a test")
    run_job(str(job.pk))
    job.refresh_from_db()
    assert job.state == JobState.DONE, job.failures
    assert job.result["products"] == job.result["pictures"] == 2


def test_a_job_with_a_bad_zip_fails_with_its_reason():
    job = start_job(kind=IMPORT_KIND, file=ContentFile(b"no zip"), asked_by="a test")
    run_job(str(job.pk))
    job.refresh_from_db()
    assert job.state == JobState.FAILED
    assert "no zip file" in job.failures[0]["reason"]


def test_an_import_by_command_is_a_job_with_its_folder_and_times_and_is_run_again_by_command(folder):
    call_command("import_catalogue", folder)
    job = Job.objects.get()
    assert (str(job), job.state) == ("catalogue import: catalogue", JobState.DONE)
    assert job.started_at <= job.finished_at

    retry_job(job)
    run_job(str(job.pk))
    job.refresh_from_db()
    assert job.state == JobState.FAILED
    assert "run manage.py import_catalogue again" in job.failures[0]["reason"]

    (folder / "products.csv").write_text("name\nApple\n")
    with pytest.raises(CommandError, match="lacks the column sku"):
        call_command("import_catalogue", folder)
    failed = Job.objects.first()
    assert failed.state == JobState.FAILED
    assert failed.finished_at is not None
    assert "lacks the column sku" in failed.failures[0]["reason"]
