"""compose.yaml, the Dockerfile and the secrets' script, as far as parsing can check them."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKER = REPOSITORY / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name for name, service in SERVICES.items() if service["image"].startswith("checklane:")}
DOCKERFILE = (DOCKER / "Dockerfile").read_text()

# Not read by our settings: the compose file's own, and what Python and the shell know.
OTHER_VARIABLES = {"CHECKLANE_VERSION", "WEB_PUBLISH", "PATH"}
PYTHONS = re.compile("PYTHON[A-Z]+")


def variables_of_the_settings() -> set[str]:
    """Every environment variable that the backend reads."""
    read = re.compile(
        r"""(?:env\.\w+|environ\.get|_environ)\(\s*["']([A-Z0-9_]+)["']|environ\[["']([A-Z0-9_]+)["']\]"""
    )
    found = set()
    for path in (REPOSITORY / "backend").rglob("*.py"):
        for names in read.findall(path.read_text()):
            found.update(filter(None, names))
    return found


def settings_of_env_example() -> dict[str, str]:
    lines = (DOCKER / "env.example").read_text().splitlines()
    assigned = (re.fullmatch(r"#?([A-Z0-9_]+)=(.*)", line) for line in lines)
    return {match[1]: match[2] for match in assigned if match}


def words(command: str | list[str]) -> str:
    return command if isinstance(command, str) else " ".join(command)


def instructions(keyword: str) -> list[str]:
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.split(maxsplit=1)[1] for line in joined.splitlines() if line.startswith(keyword + " ")]


def test_the_house_is_complete() -> None:
    assert sorted(OURS) == ["beat", "migrate", "web", "worker-bulk", "worker-recognition"]
    assert sorted(SERVICES.keys() - OURS) == ["broker", "database", "milvus", "milvus-etcd", "milvus-minio"]


@pytest.mark.parametrize("name", SERVICES)
def test_depends_only_on_services_that_can_meet_the_condition(name: str) -> None:
    for wanted, how in SERVICES[name].get("depends_on", {}).items():
        assert wanted in SERVICES
        if how["condition"] == "service_healthy":
            assert "test" in SERVICES[wanted]["healthcheck"]
        else:
            assert how["condition"] == "service_completed_successfully"
            assert SERVICES[wanted]["restart"] == "no"


def test_no_service_waits_for_itself() -> None:
    order: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above
        for wanted in SERVICES[name].get("depends_on", {}):
            visit(wanted, (*above, name))
        order.append(name)

    for name in SERVICES:
        visit(name, ())
    assert order.index("migrate") < order.index("web")


@pytest.mark.parametrize("name", SERVICES)
def test_restarts_is_checked_and_bounds_its_log(name: str) -> None:
    service = SERVICES[name]
    if name != "migrate":
        assert service["restart"] == "unless-stopped"
        assert name == "web" or "test" in service["healthcheck"]  # web: the image's own check
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}


def test_volumes_networks_and_secrets_are_declared_and_used() -> None:
    used: dict[str, set[str]] = {"volumes": set(), "networks": set(), "secrets": set()}
    for service in SERVICES.values():
        used["volumes"] |= {mount.split(":")[0] for mount in service.get("volumes", [])}
        used["networks"] |= set(service["networks"])
        used["secrets"] |= set(service.get("secrets", []))
    for kind, names in used.items():
        assert names == COMPOSE[kind].keys()


def test_images_are_pinned() -> None:
    images = [service["image"] for name, service in SERVICES.items() if name not in OURS]
    images += [line.split()[0] for line in instructions("FROM")]
    for image in images:
        tag = image.rpartition(":")[2]
        assert re.search(r"\d+\.\d+|RELEASE\.\d{4}", tag), image
    assert SERVICES["database"]["image"].startswith("postgres:18.")


def test_only_web_can_be_reached_and_only_from_this_host() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"web": ["${WEB_PUBLISH:-127.0.0.1:8000}:8000"]}
    assert COMPOSE["networks"]["engines"]["internal"] is True
    for name in SERVICES.keys() - OURS:
        assert SERVICES[name]["networks"] == ["engines"]


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_variable_of_ours_is_one_that_the_backend_reads(name: str) -> None:
    known = variables_of_the_settings()
    for variable in SERVICES[name]["environment"]:
        assert variable.removesuffix("_FILE") in known, variable


@pytest.mark.parametrize("variable", settings_of_env_example())
def test_every_variable_of_the_example_is_one_that_somebody_reads(variable: str) -> None:
    assert variable in variables_of_the_settings() | OTHER_VARIABLES


def test_every_variable_of_the_dockerfile_is_one_that_somebody_reads() -> None:
    final = DOCKERFILE.split("# --- what runs")[1].replace("\\\n", " ")
    names = re.findall(r"([A-Z_]+)=", " ".join(re.findall(r"^ENV (.*)$", final, re.MULTILINE)))
    assert names
    for name in names:
        assert name in variables_of_the_settings() | OTHER_VARIABLES or PYTHONS.fullmatch(name)


def test_what_compose_fills_in_is_in_the_example_or_has_a_default() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    for name, default in re.findall(r"(?<!\$)\$\{([A-Z_]+)(:-[^}]+)?\}", text):
        assert default
        assert name in settings_of_env_example()


def test_files_that_secrets_come_from_are_named_after_them_and_made_by_the_script(tmp_path: Path) -> None:
    (tmp_path / "make_secrets.sh").write_text((DOCKER / "make_secrets.sh").read_text())
    made = subprocess.run(["sh", "make_secrets.sh"], cwd=tmp_path, check=True, capture_output=True, text=True)
    secrets = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert secrets.keys() == COMPOSE["secrets"].keys()
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    for name, entry in COMPOSE["secrets"].items():
        assert entry == {"file": f"secrets/{name}"}
        assert name in made.stdout
        assert "\n" not in secrets[name]
    assert len(secrets["secret_key"]) >= 50
    assert secrets["database_password"] in secrets["database_url"]
    assert len({value for name, value in secrets.items() if name.endswith("_password")}) == 4
    again = subprocess.run(
        ["sh", "make_secrets.sh"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert again.stdout == ""
    assert secrets == {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_mounts_the_secrets_that_it_reads(name: str) -> None:
    service = SERVICES[name]
    text = yaml.safe_dump({key: service.get(key) for key in ("command", "environment", "healthcheck")})
    assert set(re.findall(r"/run/secrets/(\w+)", text)) == set(service.get("secrets", []))


def test_no_secret_stands_in_the_files() -> None:
    for service in SERVICES.values():
        for variable, value in (service.get("environment") or {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|KEY$", variable):
                assert str(value).startswith("/run/secrets/"), variable
    ignored = (DOCKER / ".gitignore").read_text().split()
    assert ignored == ["secrets/", ".env"]


def test_hosts_in_the_urls_are_services() -> None:
    script = (DOCKER / "make_secrets.sh").read_text()
    hosts = set(re.findall(r"@([a-z-]+):\d+", script))
    for service in SERVICES.values():
        for value in (service.get("environment") or {}).values():
            hosts.update(re.findall(r"^(?:http://)?([a-z-]+):\d+$", str(value)))
    assert hosts == {"database", "broker", "milvus", "milvus-etcd", "milvus-minio"}


def test_commands_are_ours() -> None:
    command = {name: words(SERVICES[name]["command"]) for name in OURS}
    assert command["web"] == "gunicorn backend.wsgi -c backend/gunicorn.conf.py"
    assert (REPOSITORY / "backend" / "gunicorn.conf.py").exists()
    assert "manage.py migrate" in command["migrate"]
    for queue in ("recognition", "bulk"):
        assert "-A backend.worker worker " in command[f"worker-{queue}"]
        assert f" -Q {queue}" in command[f"worker-{queue}"]
        assert f"{queue}@" in words(SERVICES[f"worker-{queue}"]["healthcheck"]["test"])
    assert command["beat"].endswith("beat")
    assert words(instructions("CMD")[-1]) == '["gunicorn", "backend.wsgi", "-c", "backend/gunicorn.conf.py"]'


def test_queues_of_the_workers_are_those_that_the_settings_route_to(settings: Any) -> None:
    taken = [re.findall(r"-Q ([\w,]+)", words(SERVICES[name]["command"])) for name in OURS]
    queues = {queue for found in taken for queues in found for queue in queues.split(",")}
    assert settings.CELERY_TASK_DEFAULT_QUEUE in queues
    routed = {route["queue"] for route in settings.CELERY_TASK_ROUTES.values()}
    assert queues == routed | {settings.CELERY_TASK_DEFAULT_QUEUE}


def test_what_the_dockerfile_copies_is_there_and_let_into_the_build() -> None:
    allowed = [
        line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"
    ]
    copied = []
    for arguments in instructions("COPY"):
        if "--from" not in arguments:
            copied += arguments.split()[:-1]
    assert copied
    for source in copied:
        assert (REPOSITORY / source).exists(), source
        assert source in allowed, source
    for source in allowed:
        assert (REPOSITORY / source).exists(), source


def test_image_installs_the_locked_packages_without_torch_and_embedded_engines() -> None:
    (install,) = [line for line in instructions("RUN") if "pip install" in line]
    assert "-c constraints.txt" in install
    assert "[" not in install  # no extra: torch and the engines are extras


def test_image_runs_as_a_plain_user_and_checks_its_health() -> None:
    assert instructions("USER") == ["checklane"]
    assert "/healthz" in DOCKERFILE.split("HEALTHCHECK")[1]
    assert DOCKERFILE.index("USER checklane") < DOCKERFILE.index("HEALTHCHECK")


def test_every_system_package_has_its_reason() -> None:
    installed = re.findall(r"--no-install-recommends ([a-z0-9 -]+?) &&", DOCKERFILE.replace("\\\n", " "))
    packages = {package for line in installed for package in line.split()}
    assert packages
    for package in packages:
        assert re.search(rf"^# {re.escape(package)}: \w+", DOCKERFILE, re.MULTILINE), package


def test_data_folder_of_the_image_is_the_volume() -> None:
    assert "CHECKLANE_DATA=/data" in DOCKERFILE
    for name in OURS:
        assert "checklane-data:/data" in SERVICES[name]["volumes"]
