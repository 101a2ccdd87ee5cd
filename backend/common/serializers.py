"""What every serializer of a request holds to: nothing unknown is passed over, and each refusal names what it found
and what it wanted."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from django.http import QueryDict
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

BOX_DECIMALS = 1  # of a pixel
SHOWN_CHARACTERS = 60
# What DRF itself refuses with; all else is a sentence of ours, and stays as it is.
STOCK_CODES = {
    "required", "null", "blank", "empty", "no_name", "max_length", "min_length", "max_value", "min_value",
    "max_digits", "max_decimal_places", "max_whole_digits", "max_string_length", "overflow", "invalid_choice",
    "not_a_list", "not_a_dict",
}  # fmt: skip
CHARACTER_FAULTS = {
    "null_characters_not_allowed": "a NUL character",
    "surrogate_characters_not_allowed": "half of a character (a lone surrogate)",
}


class RequestSerializer(serializers.Serializer):
    """The base of all serializers that read a request."""

    default_error_messages = {"invalid": "found a JSON {datatype}, an object is wanted"}

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            self._refuse_unknown(data)
        if isinstance(data, QueryDict):
            self._refuse_repeated(data)
        try:
            return super().to_internal_value(data)
        except ValidationError as error:
            raise ValidationError(_in_our_words(error.detail, self, data)) from error

    def _refuse_unknown(self, data: Mapping[str, Any]) -> None:
        known = list(self.fields)
        unknown = [str(name) for name in data if name not in self.fields]
        if unknown:
            raise ValidationError({name: [_unknown(name, known)] for name in unknown[:20]})

    def _refuse_repeated(self, data: QueryDict) -> None:
        """A form would have the last one win, and whoever sent two would never learn of it."""
        repeated = {name: len(data.getlist(name)) for name in data if len(data.getlist(name)) > 1}
        if repeated:
            raise ValidationError(
                {
                    name: [f"found {count} parts of this name, one is wanted"]
                    for name, count in repeated.items()
                }
            )


class BoxField(serializers.ListField):
    """A box: x1, y1, x2, y2 in pixels, told to a tenth of one."""

    def __init__(self, **kwargs: Any) -> None:
        # As DRF copies a field by making it again from its arguments, these may come back as ours.
        sides: dict[str, Any] = {"child": serializers.FloatField(), "min_length": 4, "max_length": 4}
        super().__init__(**sides | kwargs)

    def to_representation(self, data: Any) -> list[float]:
        return [round(float(side), BOX_DECIMALS) for side in data]


def _unknown(name: str, known: list[str]) -> str:
    nearest = get_close_matches(name, known, n=1)
    advice = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"there is no such member; {advice}known are {', '.join(known)}"


def _in_our_words(detail: Any, field: Any, value: Any) -> Any:
    """DRF's nested messages with its stock sentences replaced.

    Args:
        detail: of a ValidationError: by member of an object, by number in a list, or a list of messages.
        field: that refused.
        value: that it was given.
    """
    if isinstance(detail, Mapping):
        return {key: _in_our_words(inner, *_member(field, value, key)) for key, inner in detail.items()}
    return [_sentence(message, field, value) for message in detail]


def _member(field: Any, value: Any, key: Any) -> tuple[Any, Any]:
    if isinstance(field, serializers.Serializer):
        member = field.fields.get(key)
        return (field, value) if member is None else (member, member.get_value(value))
    return getattr(field, "child", field), value[key] if isinstance(value, list) else value


def _sentence(message: ErrorDetail, field: Any, value: Any) -> str:
    if message.code in CHARACTER_FAULTS:
        return f"found {CHARACTER_FAULTS[message.code]} in the text, a text without one is wanted"
    stock = message.code in STOCK_CODES or str(message) == str(field.error_messages.get("invalid"))
    return f"found {_found(value)}, {_wanted(field)} is wanted" if stock else str(message)


def _found(value: Any) -> str:
    match value:
        case serializers.empty:
            return "nothing"
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str() if len(value) > SHOWN_CHARACTERS:
            return f"a text of {len(value):,} characters"
        case list():
            return f"a list of {len(value):,}"
        case Mapping():
            return "an object"
    if hasattr(value, "size"):
        return f"a file of {value.size:,} bytes"
    return repr(value)[:SHOWN_CHARACTERS]


def _wanted(field: Any) -> str:
    return _kind(field) + (" or null" if field.allow_null else "")


def _kind(field: Any) -> str:
    match field:
        case serializers.FileField():
            return "a file"
        case serializers.ChoiceField():
            return "one of " + ", ".join(map(repr, field.choices))
        case serializers.IntegerField():
            return "a whole number" + _range(field.min_value, field.max_value)
        case serializers.DecimalField():
            after = field.decimal_places or 0
            before = (field.max_digits or 0) - after
            digits = f" with at most {before} digits before the decimal point and {after} after it"
            return "a number" + _range(field.min_value, field.max_value) + digits
        case serializers.FloatField():
            return "a number" + _range(field.min_value, field.max_value)
        case serializers.SlugField():
            return "a text of letters, digits, '-' and '_'" + _length(0, field.max_length, " characters")
        case serializers.CharField():
            least = field.min_length or (0 if field.allow_blank else 1)
            return "a text" + _length(least, field.max_length, " characters")
        case serializers.ListField():
            return (
                f"a list{_length(field.min_length or 0, field.max_length, '')}, each {_wanted(field.child)},"
            )
    return "a JSON value"


def _range(least: Any, most: Any) -> str:
    if least is not None and most is not None:
        return f" from {least:,} to {most:,}"
    return "" if least is None else f" of at least {least:,}"


def _length(least: int, most: int | None, unit: str) -> str:
    if most is None:
        return f" of at least {least:,}{unit}" if least else ""
    if least == most:
        return f" of {most:,}{unit}"
    return f" of {least:,} to {most:,}{unit}" if least else f" of at most {most:,}{unit}"
