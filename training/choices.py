"""Tables of settings, and the parts of a model or loss that they choose by name, checked against what there is.

A part is a table with the name of a class and its arguments, `{name = "PPLCNet", scale = 2.5}`; the names stand in
`training.components`, the arguments are those that the class itself takes.
"""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field, fields
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError
from torch import nn

from training.components import BACKBONES, DISTILLATION_LOSSES, HEADS, LOSSES, NECKS, TRUNKS

CHECKED = ConfigDict(extra="forbid")

Made = TypeVar("Made")
# Numbers and truths must be written as such; lists and texts become the tuples and paths that they stand for.
Truth = Annotated[bool, Field(strict=True)]
Whole = Annotated[int, Field(strict=True, ge=0)]
Count = Annotated[int, Field(strict=True, ge=1)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
AtLeastZero = Annotated[Number, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Seed = Annotated[Whole, Field(lt=2**32)]


def nearest(key: str, known: Iterable[str]) -> str:
    """A hint for who wrote a key that is not known: the one most like it, in capitals or not, or else all."""
    names = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(key.casefold(), names, n=1, cutoff=0.5)
    return f"did you mean {names[near[0]]}?" if near else f"known are {', '.join(names.values())}."


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class Table:
    """What every table of settings does: refuse a key that it does not know, and name the nearest."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, given: Any) -> Any:
        known = [one.name for one in fields(cls)]
        for key in given if isinstance(given, dict) else ():
            if key not in known:
                raise PydanticCustomError("unknown_key", "unknown key {key}: {hint}", _hint(key, known))
        return given


def _hint(key: str, known: Iterable[str]) -> dict[str, Any]:
    return {"key": key, "hint": nearest(key, known)}


# Components: a name out of a table of classes, and arguments that its class takes.


@dataclass(frozen=True, config=CHECKED)
class Component:
    """A class by its name, with its keyword arguments."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gather_arguments(cls, given: Any) -> Any:
        if isinstance(given, dict) and "arguments" not in given:
            return {
                "name": given.get("name", ""),
                "arguments": {key: value for key, value in given.items() if key != "name"},
            }
        return given

    def made(self, table: Mapping[str, Callable[..., Made]], *given: Any, **also: Any) -> Made:
        """Make it.

        Args:
            table: of its kind, as in `training.components`.
            given: what its class takes before the arguments.
            also: further keyword arguments that the program knows.
        """
        return table[self.name](*given, **also, **self.arguments)


def _fits(table: Mapping[str, type[nn.Module]], *known_to_program: str) -> Callable[[Component], Component]:
    """A check that a component's name is in the table and that its class takes its arguments."""

    def check(component: Component) -> Component:
        if component.name not in table:
            raise PydanticCustomError(
                "unknown_component", "unknown component {key}: {hint}", _hint(component.name, table)
            )
        _check_arguments(table[component.name], component.arguments, known_to_program)
        return component

    return check


def _check_arguments(
    made: type[nn.Module], arguments: Mapping[str, Any], known_to_program: Sequence[str]
) -> None:
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(made).parameters.items()
        if name not in known_to_program
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    hints = get_type_hints(made.__init__)
    for key, value in arguments.items():
        if key not in parameters:
            facts = {"of": made.__name__, **_hint(key, parameters)}
            raise PydanticCustomError("unknown_argument", "{of} takes no {key}: {hint}", facts)
        try:
            TypeAdapter(hints[key]).validate_python(value, strict=True)
        except ValidationError as error:
            facts = {"of": made.__name__, "key": key, "value": repr(value), "hint": error.errors()[0]["msg"]}
            raise PydanticCustomError("argument_type", "{of}'s {key} is {value}: {hint}", facts) from error
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise PydanticCustomError(
                "missing_argument", "{of} wants {key}", {"of": made.__name__, "key": name}
            )


@dataclass(frozen=True, config=CHECKED)
class LossTerm:
    """A loss' weight in the sum, and its arguments."""

    weight: AtLeastZero = 1.0
    arguments: dict[str, Any] = field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gather_arguments(cls, given: Any) -> Any:
        if isinstance(given, dict) and "arguments" not in given:
            rest = {key: value for key, value in given.items() if key != "weight"}
            return {"weight": given.get("weight", 1.0), "arguments": rest}
        return given


def _losses_of(
    table: Mapping[str, type[nn.Module]],
) -> Callable[[dict[str, LossTerm]], dict[str, LossTerm]]:
    def check(terms: dict[str, LossTerm]) -> dict[str, LossTerm]:
        if not terms:
            raise PydanticCustomError(
                "no_loss", "found no loss, wanted one or more of {known}", {"known": ", ".join(table)}
            )
        for name, term in terms.items():
            if name not in table:
                raise PydanticCustomError("unknown_loss", "unknown loss {key}: {hint}", _hint(name, table))
            _check_arguments(table[name], term.arguments, ())
        return terms

    return check


BackboneChoice = Annotated[Component, AfterValidator(_fits(BACKBONES))]
TrunkChoice = Annotated[Component, AfterValidator(_fits(TRUNKS))]
NeckChoice = Annotated[Component, AfterValidator(_fits(NECKS, "in_channels"))]
HeadChoice = Annotated[Component, AfterValidator(_fits(HEADS, "dimension", "n_classes"))]


Losses = Annotated[dict[str, LossTerm], AfterValidator(_losses_of(LOSSES))]
PairLosses = Annotated[dict[str, LossTerm], AfterValidator(_losses_of(DISTILLATION_LOSSES))]
