"""Small cases of one test."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from _pytest.mark import ParameterSet


def each_case(
    names: str, values: Iterable[Any], *, ids: Iterable[str] | Callable[[Any], object] | None = None
) -> Callable[[Any], Any]:
    """As ``pytest.mark.parametrize``, but all cases are one test, which fails with the names of those that failed.

    A test of pytest's own costs about 3 ms of processor time (collected by two processes, its fixtures, its reports),
    ten times what a case that only computes takes. A case gets a ``caplog`` that is empty and a ``monkeypatch`` that is
    undone after it; every other fixture is shared by all, and no case may skip.

    :param names: the parameters, separated by commas.
    :param values: a value for each case, or a tuple where there are several parameters, or a ``pytest.param``.
    :param ids: what the cases are called: names in order, or a function that is given a value.
    :return: a decorator for a test.
    """
    keys = [name.strip() for name in names.split(",")]
    cases = list(_named(keys, values, ids))

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def test(*args: Any, **fixtures: Any) -> None:
            __tracebackhide__ = True
            failed: dict[str, BaseException] = {}
            for name, given in cases:
                with contextlib.ExitStack() as stack:
                    if "caplog" in fixtures:
                        fixtures["caplog"].clear()
                    if "monkeypatch" in fixtures:
                        given = {**given, "monkeypatch": stack.enter_context(fixtures["monkeypatch"].context())}
                    try:
                        function(*args, **{**fixtures, **given})
                    except (Exception, pytest.fail.Exception) as error:
                        failed[name] = error
            if failed:
                raise AssertionError(f"{len(failed)} of {len(cases)} failed: {'; '.join(failed)}") from next(
                    iter(failed.values())
                )

        signature = inspect.signature(function)
        left = [parameter for parameter in signature.parameters.values() if parameter.name not in keys]
        test.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        return test

    return decorate


def _named(
    keys: list[str], values: Iterable[Any], ids: Iterable[str] | Callable[[Any], object] | None
) -> Iterable[tuple[str, dict[str, Any]]]:
    given_ids = list(ids) if ids is not None and not callable(ids) else None
    for place, value in enumerate(values):
        name = None
        if isinstance(value, ParameterSet):
            assert not value.marks, "the cases are one test, which has the marks"
            name, value = value.id, value.values[0] if len(keys) == 1 else value.values
        parts = [value] if len(keys) == 1 else list(value)
        if name is None and given_ids is not None:
            name = given_ids[place]
        if name is None:
            name = ", ".join(str(ids(part)) if callable(ids) else repr(part)[:80] for part in parts)
        yield str(name), dict(zip(keys, parts, strict=True))
