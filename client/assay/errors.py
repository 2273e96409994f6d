"""The base of every error that Assay raises on purpose."""

from __future__ import annotations

from typing import ClassVar


def printable(text: str, kept: str = "") -> str:
    """A text with its control characters (but those in `kept`) escaped: strangers' files and postings choose words that
    errors and logs repeat, and no word of theirs may command a terminal or look like a line of its own."""
    return "".join(each if each.isprintable() or each in kept else ascii(each)[1:-1] for each in text)


class AssayError(Exception):
    """An error a user can act on.

    The message says what was wrong, with the value, and the next thing to try. Subclasses set `code`, a short stable
    word in kebab case for programs (it appears as `{"error": message, "code": code}` under `--json`).
    """

    code: ClassVar[str] = "error"


class UsageError(AssayError):
    """A command or function was called with arguments that cannot work together."""

    code = "usage"


class MissingDependencyError(AssayError):
    """An optional package, or a program outside Python, is not installed."""

    code = "missing-dependency"
