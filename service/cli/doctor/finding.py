"""What a check has found: good or bad, with what was expected, what was found, and what to do."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from service.errors import SettingsError

# `skipped`: something that could not be checked here.
Severity: TypeAlias = Literal["ok", "note", "skipped", "warning", "error"]


class Finding(msgspec.Struct, frozen=True):
    """One result of a check.

    name: for scripts, the same in every version. detail: a sentence. expected, found: phrases. remedy: what to do, in sentences.
    """

    name: str
    severity: Severity
    detail: str
    expected: str | None = None
    found: str | None = None
    remedy: str | None = None


def ok(name: str, detail: str) -> Finding:
    """Return the finding that something is as it should be."""
    return Finding(name, "ok", detail)


def skipped(name: str, detail: str, remedy: str | None = None) -> Finding:
    """Return the finding that something could not be checked, and how it can be."""
    return Finding(name, "skipped", detail, remedy=remedy)


def from_error(name: str, error: SettingsError) -> Finding:
    """Return the finding that a setting cannot be used."""
    return Finding(name, "error", error.detail, error.expected, error.received, error.remedy)
