"""Reading tables of untrusted or hand-written values: every key known, every value of its type and in its bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from math import isfinite
from typing import Any, NoReturn, TypeVar

from assay.errors import AssayError

Result = TypeVar("Result")


class _Missing:
    """Marks a key that must be there."""


REQUIRED = _Missing()


def _is_float(value: int | float | Decimal) -> bool:
    """Whether a number is finite as a float."""
    try:
        return isfinite(float(value))
    except (OverflowError, ValueError):  # ValueError: of a signalling NaN
        return False


class Fields:
    """One table; `name` is how errors call it, `error` what they are.

    Every key is taken once; `finish` refuses those nobody took, so that a misspelt key is never silently ignored.
    """

    def __init__(self, value: Any, name: str, error: type[AssayError]) -> None:
        self.name, self.error = name, error
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise error(f"{name or 'the document'} is no table of named values but {type(value).__name__}")
        self._values: dict[str, Any] = dict(value)
        self._known: list[str] = []

    def _take(self, key: str, default: Any) -> Any:
        self._known.append(key)
        if key in self._values:
            return self._values.pop(key)
        if default is REQUIRED:
            raise self.error(f"{self.place(key)} is missing: add it")
        return default

    def place(self, key: str) -> str:
        """How a key is called in errors."""
        return f"{self.name}.{key}" if self.name else key

    def refuse(self, key: str, value: object, wanted: str) -> NoReturn:
        """Raise: `key` has a value that is not what is wanted."""
        shown = str(value) if isinstance(value, Decimal) else repr(value)
        raise self.error(f"{self.place(key)} is {shown[:120]}: it must be {wanted}")

    def text(self, key: str, default: Any = REQUIRED, most: int = 4096) -> Any:
        """A text of at most `most` characters without control characters."""
        value = self._take(key, default)
        if value is default and default is not REQUIRED:
            return value
        if not isinstance(value, str) or not value or len(value) > most or not value.isprintable():
            self.refuse(key, value, f"a text of 1 to {most} printable characters")
        return value

    def whole(self, key: str, low: int, high: int, default: Any = REQUIRED) -> Any:
        """A whole number in [low, high]."""
        value = self._take(key, default)
        if value is default and default is not REQUIRED:
            return value
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.refuse(key, value, f"a whole number from {low} to {high}")
        return value

    def number(self, key: str, default: Any = REQUIRED) -> Any:
        """A finite number."""
        value = self._take(key, default)
        if value is default and default is not REQUIRED:
            return value
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not _is_float(value):
            self.refuse(key, value, "a finite number")
        return float(value)

    def decimal(self, key: str, default: Any = REQUIRED) -> Any:
        """A finite number without rounding, for money."""
        value = self._take(key, default)
        if value is default and default is not REQUIRED:
            return value
        if isinstance(value, bool) or not isinstance(value, int | Decimal) or not Decimal(value).is_finite():
            self.refuse(key, value, "a finite number")
        return Decimal(value)

    def flag(self, key: str, default: Any = REQUIRED) -> bool:
        """True or false."""
        value = self._take(key, default)
        if not isinstance(value, bool):
            self.refuse(key, value, "true or false")
        return value

    def choice(self, key: str, names: Sequence[str], default: Any = REQUIRED) -> str:
        """One of some words."""
        value = self._take(key, default)
        if not isinstance(value, str) or value not in names:
            self.refuse(key, value, "one of " + ", ".join(names))
        return value

    def digest(self, key: str) -> bytes:
        """A hash: 64 hexadecimal digits."""
        value = self._take(key, REQUIRED)
        if not isinstance(value, str) or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
            self.refuse(key, value, "64 lower-case hexadecimal digits")
        return bytes.fromhex(value)

    def texts(self, key: str, most: int, default: Any = REQUIRED) -> tuple[str, ...]:
        """A list of 1 to `most` texts."""
        values = self._take(key, default)
        if values is default and default is not REQUIRED:
            return tuple(values)
        if not isinstance(values, list) or not 1 <= len(values) <= most:
            self.refuse(key, values, f"a list of 1 to {most} texts")
        for value in values:
            if not isinstance(value, str) or not 0 < len(value) <= 4096 or not value.isprintable():
                self.refuse(key, values, f"a list of 1 to {most} texts")
        return tuple(values)

    def each(self, key: str, most: int, read: Callable[[Any, str], Result]) -> tuple[Result, ...]:
        """A list of at most `most` values, each read by `read(value, name)`."""
        values = self._take(key, REQUIRED)
        if not isinstance(values, list) or len(values) > most:
            self.refuse(key, type(values).__name__, f"a list of at most {most} values")
        return tuple(read(value, f"{self.place(key)}[{number}]") for number, value in enumerate(values))

    def numbers(self, key: str, size: int, default: Any = REQUIRED) -> tuple[float, ...]:
        """A list of `size` finite numbers."""
        values = self._take(key, default)
        if values is default and default is not REQUIRED:
            return tuple(values)
        finite = isinstance(values, list) and all(
            isinstance(v, int | float | Decimal) and not isinstance(v, bool) and _is_float(v) for v in values
        )
        if not finite or len(values) != size:
            self.refuse(key, values, f"a list of {size} finite numbers")
        return tuple(float(value) for value in values)

    def table(self, key: str, required: bool = True) -> Fields:
        """A table within this one; empty if it may be absent and is."""
        return Fields(self._take(key, REQUIRED if required else {}), self.place(key), self.error)

    @property
    def empty(self) -> bool:
        """Whether no key is left: a table that may be absent and is."""
        return not self._values

    def rest(self) -> dict[str, Any]:
        """All keys nobody has taken."""
        values, self._values = self._values, {}
        return values

    def finish(self) -> None:
        """Refuse keys that nobody knows."""
        if self._values:
            key = min(self._values)
            raise self.error(f"{self.place(key)} is unknown: known are {', '.join(sorted(self._known)) or 'none'}")
