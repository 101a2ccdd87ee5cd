"""Reads a run's settings: a TOML file, and `-o key=value` over it.

    settings = read_settings(Path("training/configs/smoke_embedder.toml"), ["epochs=3", "optimiser.learning_rate=0.1"])

Nothing is guessed: a key that nobody knows, a value of another type, a component that does not exist or takes no such
argument stops the run at its start, with the file, the key and the nearest known one.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError
from pydantic_core import core_schema

from training.choices import nearest
from training.settings import PROGRAMS, Settings

Wanted = TypeVar("Wanted")

# Faults of pydantic's own do not say what they found; ours say all there is to say.
PYDANTICS_FAULTS = get_args(core_schema.ErrorType)
# What TOML calls what pydantic wants.
FORMS = {"tuple_type": "a list", "dict_type": "a table", "dataclass_type": "a table", "string_type": "a text"}


class ConfigRefused(Exception):
    """Settings that no run can be made of; the message names file, key and what is wanted."""


def read_settings(path: Path, overrides: Sequence[str] = ()) -> Settings:
    """Read a run's settings.

    Args:
        path: of the TOML file.
        overrides: `key=value`, dots between a table and its key (`data.train.0.rate=4`: sets are counted from 0),
            values as in TOML; what is no TOML is taken as text, so that words and paths need no quotes.
    Raises:
        ConfigRefused: the file is none, or a setting does not fit.
    """
    written = _read(path)
    for override in overrides:
        _override(written, override)
    return _of_program(written, str(path), overrides)


def read_table(path: Path, wanted: type[Wanted]) -> Wanted:
    """Read a TOML file that is no run's, such as a list of sets.

    Args:
        path: of the file.
        wanted: a dataclass, as those of `training.settings`.
    Raises:
        ConfigRefused: the file is none, or a key does not fit.
    """
    return _checked(_read(path), wanted, str(path), ())


def settings_from_dict(written: Mapping[str, Any], source: str) -> Settings:
    """The settings that a checkpoint carries (`settings_to_dict`).

    Raises:
        ConfigRefused: they are not of this version of the programs.
    """
    return _of_program(written, source, ())


def settings_to_dict(settings: Settings) -> dict[str, Any]:
    """Settings as plain values, as they would stand in TOML or JSON; None is left out."""
    adapter: TypeAdapter[Settings] = TypeAdapter(type(settings))
    plain: dict[str, Any] = _flattened(adapter.dump_python(settings, mode="json", exclude_none=True))
    return plain


def _flattened(value: Any) -> Any:
    """A component's arguments stand beside its name in the file."""
    if isinstance(value, dict):
        plain = {key: _flattened(inner) for key, inner in value.items()}
        arguments = plain.pop("arguments", {})
        return {**plain, **arguments}
    if isinstance(value, list):
        return [_flattened(inner) for inner in value]
    return value


def _override(written: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not (key and equals):
        raise ConfigRefused(f"-o {override}: wanted key=value, such as -o epochs=10.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *tables, last = key.split(".")
    table: Any = written
    for name in tables:
        table = _entry(table, name, override) if isinstance(table, list) else table.setdefault(name, {})
        if not isinstance(table, dict | list):
            raise ConfigRefused(f"-o {override}: {name} is {table!r}, which has no keys.")
    if isinstance(table, list):
        _entry(table, last, override)
        table[int(last)] = value
    else:
        table[last] = value


def _entry(entries: list[Any], number: str, override: str) -> Any:
    if not number.isdecimal() or int(number) >= len(entries):
        wanted = f"0 to {len(entries) - 1}" if entries else "no key into a list that is empty"
        raise ConfigRefused(f"-o {override}: found {number!r}, wanted {wanted}.")
    return entries[int(number)]


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigRefused(f"{path}: found no such file, wanted a configuration in TOML.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigRefused(f"{path}: cannot be read as TOML: {error}") from error


def _of_program(written: Mapping[str, Any], source: str, overrides: Sequence[str]) -> Settings:
    program = written.get("program")
    if not isinstance(program, str) or program not in PROGRAMS:
        raise ConfigRefused(f"{source}: program: found {program!r}, wanted one of {', '.join(PROGRAMS)}.")
    settings: Settings = _checked(written, PROGRAMS[program], source, overrides)
    return settings


def _checked(
    written: Mapping[str, Any], wanted: type[Wanted], source: str, overrides: Sequence[str]
) -> Wanted:
    adapter: TypeAdapter[Wanted] = TypeAdapter(wanted)
    try:
        return adapter.validate_python(written)
    except ValidationError as error:
        faults = []
        for fault in error.errors(include_url=False):
            if fault["type"] == "too_short" and fault["input"]:
                continue  # its entries were refused, and are named
            key = _dotted(fault["loc"], written)
            culprit = ".".join(filter(None, (key, fault.get("ctx", {}).get("key", ""))))
            said = [
                one for one in overrides if f"{one.partition('=')[0]}.".startswith((f"{culprit}.", f"{key}."))
            ]
            where = f"-o {said[-1]}" if said else source
            faults.append(": ".join(part for part in (where, key, _sentence(fault)) if part))
        raise ConfigRefused("\n".join(faults)) from error


def _dotted(location: tuple[int | str, ...], written: Any) -> str:
    """The keys that lead to a fault; pydantic also names the kind of a table that has several, which is left out."""
    keys = []
    for part in location:
        if isinstance(written, dict) and part not in written and part == written.get("kind"):
            continue
        keys.append(str(part))
        is_there = (isinstance(written, dict) and part in written) or (
            isinstance(written, list) and isinstance(part, int) and part < len(written)
        )
        written = written[part] if is_there else None
    return ".".join(keys)


def _sentence(fault: Any) -> str:
    """What is wrong, found and wanted."""
    context, kind = fault.get("ctx", {}), fault["type"]
    if kind == "missing":
        return "wanted, and not given."
    if kind == "union_tag_not_found":
        return "found no kind, which says what the other keys mean."
    if kind == "union_tag_invalid":
        tags = [tag.strip("' ") for tag in context["expected_tags"].split(",")]
        return f"unknown kind {context['tag']}: {nearest(context['tag'], tags)}"
    if kind not in PYDANTICS_FAULTS:
        return str(fault["msg"])
    if kind in FORMS:
        return f"found {fault['input']!r}, wanted {FORMS[kind]}."
    return f"found {fault['input']!r}. {fault['msg']}."
