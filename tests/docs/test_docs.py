"""The documents and the code say the same: links, settings, refusals, commands, addresses, words, arguments."""

import ast
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, get_args

import pytest
from django.core.management import get_commands, load_command_class
from django.urls import URLPattern, URLResolver, get_resolver
from rest_framework import exceptions

from backend.common.problems import problem_of
from recognition.errors import ImageRefused, ImageRefusedCode
from tests.live import REPOSITORY

DOCS = REPOSITORY / "docs"
README = REPOSITORY / "README.md"
DOCUMENTS = sorted(
    [
        *REPOSITORY.glob("*.md"),
        *DOCS.rglob("*.md"),
        *(REPOSITORY / "docker").glob("*.md"),
        REPOSITORY / "fixtures/README.md",
    ]
)
PACKAGES = ("recognition", "backend", "training", "demo_catalogue")

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.S | re.M)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.M)
COMMAND = re.compile(r"manage\.py ([a-z_]+)([^\n`|]*)")
OPTION = re.compile(r"(?<!\S)\[?(--[a-z][a-z-]*)")

each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=[str(document.relative_to(REPOSITORY)) for document in DOCUMENTS]
)


def prose(document: Path) -> str:
    """The document without its blocks of code."""
    return FENCE.sub("", document.read_text())


def code_of(document: Path) -> list[str]:
    """What stands in it as something to type: lines of its shell blocks, and spans of code."""
    shell = [block for language, block in FENCE.findall(document.read_text()) if language in {"", "sh"}]
    return [line for block in shell for line in block.splitlines()] + SPAN.findall(prose(document))


def anchors(document: Path) -> set[str]:
    """The anchors that its headings get."""
    titles = [re.sub(r"[`*]", "", title) for title in HEADING.findall(prose(document))]
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def rows(document: Path, heading: str) -> Iterator[list[str]]:
    """The cells of the tables below a heading."""
    text = re.split(rf"^## {re.escape(heading)}$", document.read_text(), flags=re.M)[1]
    for line in re.split(r"^## ", text, flags=re.M)[0].splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("| ").split(" | ")]


def trees() -> Iterator[tuple[Path, ast.Module]]:
    """Our own modules, parsed."""
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            yield path, ast.parse(path.read_text())


# --- links and files --------------------------------------------------------------------------------------
@each_document
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for target in LINK.findall(prose(document)):
        if re.match(r"[a-z]+:", target):
            continue  # elsewhere in the world
        path, _, anchor = target.partition("#")
        there = (document.parent / path).resolve() if path else document
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert not broken


@each_document
def test_files_that_are_named_exist(document: Path) -> None:
    folders = "|".join([*PACKAGES, "docs", "docker", "fixtures", "tests"])
    named = [
        found
        for found in SPAN.findall(prose(document))
        if re.fullmatch(rf"({folders})/[\w./-]*(\.\w+|/)", found)
    ]
    missing = [name for name in named if "NAME" not in name and not (REPOSITORY / name).exists()]
    assert not missing


@pytest.mark.parametrize("folder", [DOCS, DOCS / "decisions"], ids=["docs", "decisions"])
def test_an_index_has_every_page(folder: Path) -> None:
    index = folder / "README.md"
    linked = {(folder / target.partition("#")[0]).resolve() for target in LINK.findall(index.read_text())}
    assert {*folder.glob("*.md")} - {index} <= linked


# --- what is pasted ---------------------------------------------------------------------------------------
# Of the reader's shell.
SHELL = {"HOME", "PATH", "PWD", "UID"}
ASSIGNED = re.compile(r"(?:^|[\s;(])(?:for )?([A-Za-z_]\w*)(?:=| in )", re.M)
READ = re.compile(r"\$\{?([A-Za-z_]\w*)")
UPLOADED = re.compile(r"@([\w./-]+)(?=\s|$)", re.M)
WRITTEN = re.compile(r"(?<!@)[\w./{}-]*/[\w./{}-]+")


def shell_blocks(document: Path) -> list[str]:
    return [block for language, block in FENCE.findall(document.read_text()) if language == "sh"]


@each_document
def test_what_a_command_names_was_made_before(document: Path) -> None:
    before = ""
    for block in shell_blocks(document):
        for line in block.splitlines():
            made = {as_pattern(word) for word in WRITTEN.findall(before)}
            before += line + "\n"
            unset = set(READ.findall(line)) - set(ASSIGNED.findall(before)) - SHELL
            assert not unset, f"{line}: nothing set {unset}"
            for path in UPLOADED.findall(line):
                # What lies outside the checkout may lie there from before: only commands count.
                ships = not path.startswith("/") and (REPOSITORY / path).exists()
                assert ships or any(re.fullmatch(one, path) for one in made), f"{line}: nothing made {path}"


def as_pattern(word: str) -> str:
    """A path in a command or an f-string as an expression, `{name}` for any name."""
    return r"[\w-]+".join(map(re.escape, re.split(r"\{\w+\}", word)))


@each_document
def test_commands_are_those_of_the_checkout(document: Path) -> None:
    """Pasted beside `make demo`, neither `manage.py` nor a `python` of the system runs."""
    blocks = [block for language, block in FENCE.findall(document.read_text()) if language in {"", "sh"}]
    lines = [line for block in blocks for line in block.splitlines()]
    assert not [line for line in lines if re.match(r"\s*(manage\.py|python3? )", line)]


# --- settings ---------------------------------------------------------------------------------------------
TYPES = {"bool": "flag", "int": "whole number", "float": "number", "str": "text", "list": "list", "db": "URL"}
# Of the machine, not of Checklane.
SYSTEM = {"PATH", "HOME"}


def read_variables() -> dict[str, tuple[str | None, Any]]:
    """Each environment variable that the backend reads: its type where settings name one, and its default's source."""
    found: dict[str, tuple[str | None, Any]] = {}
    for path in [REPOSITORY / "manage.py", *sorted((REPOSITORY / "backend").rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(ast.Attribute(ast.Name("env"), kind), [ast.Constant(str(name)), *_], keywords):
                    default = next((word.value for word in keywords if word.arg == "default"), None)
                    found[name] = (TYPES[kind], default)
                case ast.Call(
                    ast.Attribute(ast.Attribute(ast.Name("os"), "environ"), "get"),
                    [ast.Constant(str(name)), *rest],
                ):
                    found.setdefault(name, (None, rest[0] if rest else None))
                case (
                    ast.Subscript(ast.Attribute(ast.Name("os"), "environ"), ast.Constant(str(name)))
                    | ast.Call(
                        ast.Attribute(ast.Attribute(ast.Name("os"), "environ"), "setdefault"),
                        [ast.Constant(str(name)), _],
                    )
                    | ast.Compare(
                        ast.Constant(str(name)),
                        [ast.In() | ast.NotIn()],
                        [ast.Attribute(ast.Name("os"), "environ")],
                    )
                ):
                    found.setdefault(name, (None, None))
    return {name: about for name, about in found.items() if name not in SYSTEM and not name.endswith("_FILE")}


def test_the_table_of_settings_is_what_the_code_reads() -> None:
    table = {
        SPAN.findall(cells[0])[0]: cells for cells in rows(README, "Settings") if cells[0].startswith("`")
    }
    internal = set(SPAN.findall(README.read_text().split("**Set by Checklane itself:**")[1].split("\n\n")[0]))
    read = read_variables()
    assert table.keys() | internal == read.keys()
    for name, (kind, default) in read.items():
        if name in internal:
            continue
        assert kind is None or table[name][1] in (kind, "URL"), name
        assert same_default(table[name][2], default), (
            f"{name}: the table says {table[name][2]}, the code has another default"
        )


def same_default(told: str, node: ast.expr | None) -> bool:
    """Whether a table's cell tells a default; computed ones are told in words, which are not compared."""
    if not isinstance(node, ast.Constant | ast.List):
        return True
    value = ast.literal_eval(node)
    if told == "embedded":  # the default is for commands that start no engine
        return True
    if value in (None, "", []):
        return told in {"none", "empty"}
    text = (
        ",".join(value)
        if isinstance(value, list)
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )
    return told == f"`{text}`"


# --- refusals ---------------------------------------------------------------------------------------------
def problems_of_ours() -> Iterator[tuple[str, int]]:
    """Code and status of each Problem that is written out in the backend."""
    for path, tree in trees():
        if path.relative_to(REPOSITORY).parts[0] != "backend":
            continue
        for node in ast.walk(tree):
            match node:
                case ast.Call(ast.Name("Problem"), [status, ast.Constant(str(code)), *_]):
                    yield (
                        code,
                        int(HTTPStatus[status.attr])
                        if isinstance(status, ast.Attribute)
                        else ast.literal_eval(status),
                    )


def problems_of_others() -> Iterator[tuple[str, int]]:
    """Those that come of exceptions: refused pictures, and what Django REST framework refuses."""
    raised: list[Exception] = [ImageRefused(code, "") for code in get_args(ImageRefusedCode)]
    raised += [
        exceptions.ParseError(), exceptions.NotAuthenticated(), exceptions.AuthenticationFailed(),
        exceptions.PermissionDenied(), exceptions.NotFound(), exceptions.MethodNotAllowed("PUT"),
        exceptions.NotAcceptable(), exceptions.UnsupportedMediaType("text/csv"), exceptions.ValidationError("no"),
    ]  # fmt: skip
    for error in raised:
        problem = problem_of(error)
        assert problem is not None
        yield problem.code, problem.status


def test_the_table_of_problem_codes_has_each_with_its_status() -> None:
    table = {
        (SPAN.findall(cells[0])[0], int(cells[1]))
        for cells in rows(DOCS / "operating.md", "Problem codes")
        if cells[0].startswith("`")
    }
    assert table == {*problems_of_ours(), *problems_of_others()}


# --- commands, targets, addresses, metrics ----------------------------------------------------------------
@each_document
def test_commands_and_options_that_are_named_exist(document: Path) -> None:
    known = get_commands()
    for line in code_of(document):
        for command, rest in COMMAND.findall(line):
            assert command in known, line
            parser = load_command_class(known[command], command).create_parser("manage.py", command)
            unknown = set(OPTION.findall(rest)) - {
                option for action in parser._actions for option in action.option_strings
            }
            assert not unknown, line


def test_every_command_of_ours_is_told_of() -> None:
    told = {
        command
        for document in DOCUMENTS
        for line in code_of(document)
        for command, _ in COMMAND.findall(line)
    }
    assert {name for name, app in get_commands().items() if app.startswith("backend.")} <= told


@each_document
def test_make_targets_that_are_named_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.M))
    named = {found for line in code_of(document) for found in re.findall(r"^make ([a-z-]+)", line)}
    assert named <= targets


def addresses(patterns: list[URLPattern | URLResolver], before: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of each address below /api/v1, with `{}` for what varies."""
    for pattern in patterns:
        path = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from addresses(pattern.url_patterns, path)
        elif path.startswith("api/v1/"):
            view = pattern.callback.view_class
            for method in ("get", "post", "put", "patch", "delete"):
                if hasattr(view, method):
                    yield method.upper(), "/" + re.sub(r"<[^>]+>", "{}", path)


def test_the_api_page_has_each_address() -> None:
    headings = " ".join(HEADING.findall((DOCS / "api.md").read_text()))
    told = {
        (method, re.sub(r"\{\w+\}", "{}", path))
        for method, path in re.findall(r"`([A-Z]+) (/api/v1/\S+?)`", headings)
    }
    assert told == set(addresses(get_resolver().url_patterns))


def test_the_table_of_metrics_has_each() -> None:
    source = (REPOSITORY / "backend/checkout/metrics.py").read_text()
    told = {
        re.sub(r"\{.*", "", SPAN.findall(cells[0])[0])
        for cells in rows(DOCS / "operating.md", "Metrics")
        if cells[0].startswith("`")
    }
    assert told == set(re.findall(r'"(checklane_\w+)"', source))


# --- words ------------------------------------------------------------------------------------------------
def test_the_words_of_the_glossary_are_the_codes_words() -> None:
    sources = " ".join(
        path.read_text() for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")
    )
    # ReferenceImage, reference_image and "reference image" are one word.
    code = re.sub(r"[_\s]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", sources)).lower()
    words = [
        line.split(" | ")[0].strip("| ")
        for line in (DOCS / "glossary.md").read_text().splitlines()
        if line.startswith("| ")
    ]
    assert len(words) > 20
    assert [word for word in words[2:] if word.lower() not in code] == []


# --- documented arguments ---------------------------------------------------------------------------------
def documented(docstring: str, section: str) -> list[str]:
    """The names that a docstring's section explains, in order."""
    found = re.search(rf"^( *){section}:\n((?:\1 +.*\n|\s*\n)+)", docstring + "\n", re.M)
    if found is None:
        return []
    lines = [line for line in found[2].splitlines() if line.strip()]
    indent = len(lines[0]) - len(lines[0].lstrip())
    names = [re.match(rf" {{{indent}}}([\w, *]+): ", line) for line in lines]
    return [name for match in names if match for name in match[1].replace("*", "").split(", ")]


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    given = function.args
    several = [star.arg for star in (given.vararg, given.kwarg) if star]
    return [one.arg for one in [*given.posonlyargs, *given.args, *given.kwonlyargs]] + several


def explained() -> Iterator[tuple[str, list[str], list[str]]]:
    """Where, the names that a docstring explains, and those that the code has, both in order."""
    for path, tree in trees():
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            where = f"{path.relative_to(REPOSITORY)}:{node.lineno} {node.name}"
            docstring = ast.get_docstring(node) or ""
            if isinstance(node, ast.ClassDef):
                start = next(
                    (
                        part
                        for part in node.body
                        if isinstance(part, ast.FunctionDef) and part.name == "__init__"
                    ),
                    None,
                )
                fields = [
                    part.target.id
                    for part in node.body
                    if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
                ]
                fields += [part.name for part in node.body if isinstance(part, ast.FunctionDef)]
                if start is not None:
                    yield where, documented(docstring, "Args"), parameters(start)
                    fields += [
                        attribute.attr
                        for attribute in ast.walk(start)
                        if isinstance(attribute, ast.Attribute) and isinstance(attribute.ctx, ast.Store)
                    ]
                yield where, documented(docstring, "Attributes"), fields
            else:
                yield where, documented(docstring, "Args"), parameters(node)


def test_documented_arguments_are_those_of_the_code() -> None:
    wrong = []
    n_names = 0
    for where, told, there in explained():
        n_names += len(told)
        if told != [name for name in there if name in told]:
            wrong.append(f"{where}: explains {told}, has {there}")
    assert n_names > 200, "the docstrings are no longer read"
    assert not wrong
