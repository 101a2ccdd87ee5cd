"""A file is stored whole, or nothing of it stays."""

import errno

import pytest
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import TemporaryUploadedFile

from backend.common.problems import problem_of
from backend.common.storage import WholeFileStorage
from tests.small_disk import filled, small_disk


@pytest.mark.parametrize("room", [0, 4_096])
def test_of_what_finds_no_room_nothing_stays(tmp_path, room):
    with small_disk(tmp_path) as disk:
        storage = WholeFileStorage(location=disk)
        large = TemporaryUploadedFile("large", "image/jpeg", 100_000, None)
        large.write(bytes(100_000))
        large.seek(0)
        with filled(disk, but_bytes=room):
            for content in (ContentFile(bytes(100_000)), large):
                with pytest.raises(OSError, match="No space left") as refused:
                    storage.save("pictures/one.jpg", content)
                assert refused.value.errno == errno.ENOSPC
                assert not storage.exists("pictures/one.jpg")
                problem = problem_of(refused.value)
                assert problem is not None
                assert (problem.status, problem.code) == (503, "storage-full")
        assert storage.save("pictures/one.jpg", ContentFile(b"whole")) == "pictures/one.jpg"
        assert storage.open("pictures/one.jpg").read() == b"whole"


def test_what_lay_there_before_stays(tmp_path):
    storage = WholeFileStorage(location=tmp_path)
    storage.save("one.jpg", ContentFile(b"the first"))
    (tmp_path / "folder").write_bytes(b"no folder")
    with pytest.raises(FileExistsError):
        storage._save("folder/one.jpg", ContentFile(b"x"))
    assert storage.save("one.jpg", ContentFile(b"another")) != "one.jpg"
    assert (tmp_path / "one.jpg").read_bytes() == b"the first"
