"""What docs/ tells a reader to paste beside a running service, pasted."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_docs import DOCS, FENCE, shell_blocks
from tests.live import REPOSITORY, LiveService

API = (DOCS / "api.md").read_text()
CLEAN_UP = """
from backend.access.models import Device
from backend.catalogue.models import Product, ProductSet
Device.objects.filter(name="till 7").delete()
ProductSet.objects.filter(slug="kiosk").delete()
Product.objects.filter(sku__in=["RICE-BASMATI", "SWEET-BEARS"]).delete()
"""


def paste(service: LiveService, script: str, temporary: Path) -> str:
    """What commands print in one shell, in their order; each must end well and have nothing to complain of.

    Args:
        temporary: for what they write below /tmp.
    """
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    for written, meant in {
        "/tmp/": f"{temporary}/",  # noqa: S108
        "var/": f"{service.data_dir}/",
        ".venv/bin/python": sys.executable,
        "sleep 5": "sleep 10",  # the machine may be busy
    }.items():
        script = script.replace(written, meant)
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=REPOSITORY,
        env=service.environ,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


def test_the_api_page_can_be_pasted_and_refuses_what_it_says(live_service, tmp_path):
    try:
        pasted = paste(live_service, "\n".join(shell_blocks(DOCS / "api.md")), tmp_path)
    finally:
        live_service.manage("shell", "-c", CLEAN_UP)
    documented = "\n".join(block for language, block in FENCE.findall(API) if language == "http")
    statuses = re.compile(r"HTTP/1.1 (\d+)")  # a body ends without a new line
    assert statuses.findall(pasted) == statuses.findall(documented)
    assert all(code in pasted for code in re.findall(r'"code": "([\w-]+)"', API))
    # Ids differ from run to run, and similarities from model to model.
    details = [
        detail
        for detail in re.findall(r'"detail": "([^"]+)"', API)
        if not re.search(r"\(recognition |is nearer \(|as picture \d|would find this one", detail)
    ]
    assert len(details) > 5
    assert all(detail in pasted for detail in details)
    assert all(reason in pasted for reason in re.findall(r'"reason": "([^"]+)"', API))


def test_a_request_is_followed_through_the_logs(live_service, tmp_path):
    [block] = [block for block in shell_blocks(DOCS / "operating.md") if "X-Request-ID" in block]
    wanted, found = {"request_finished", "task_succeeded"}, set()
    for _ in range(5):  # a worker writes its last line beside the answer, at times after it
        found |= set(re.findall(r'"event": "(\w+)"', paste(live_service, block, tmp_path)))
        if wanted <= found:
            break
    assert wanted <= found
