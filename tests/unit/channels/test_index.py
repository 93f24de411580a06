"""The index of names and patterns finds who has a channel, without a look at each pattern."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssesync.channels import index as index_module
from ssesync.channels.dispatcher import Dispatcher, Registration
from ssesync.channels.index import Index, matches
from ssesync.channels.message import CONTROL, compiled

from ...cases import each_case
from .subscribers import live

# Few characters, so that names and patterns have much in common; one of several code points, and one that a regular
# expression would take for more than itself.
NAMES = st.text("ab:.é", min_size=1, max_size=8)
PATTERNS = st.text("ab:.é***", min_size=1, max_size=8)
HOLDERS = st.integers(0, 5)
CHANGES = st.lists(
    st.tuples(st.booleans(), HOLDERS, st.lists(NAMES, max_size=2), st.lists(PATTERNS, max_size=3)), max_size=30
)


@given(PATTERNS, NAMES)
def test_a_pattern_matches_what_its_regular_expression_does(pattern: str, channel: str):
    assert matches(pattern, channel) is bool(compiled(pattern).fullmatch(channel))


@given(CHANGES, st.lists(NAMES, min_size=1, max_size=8))
def test_the_index_finds_the_same_holders_as_a_linear_search(
    changes: list[tuple[bool, int, list[str], list[str]]], channels: list[str]
):
    index: Index[int] = Index()
    names: set[tuple[str, int]] = set()
    patterns: set[tuple[str, int]] = set()
    for add, who, some, globs in changes:
        named, globbed = {(name, who) for name in some}, {(glob, who) for glob in globs}
        if add:
            index.add(who, some, globs)
            names |= named
            patterns |= globbed
        else:
            index.remove(who, some, globs)
            names -= named
            patterns -= globbed
        for channel in channels:
            found = list(index.having(channel))
            expected = {who for name, who in names if name == channel}
            expected |= {who for glob, who in patterns if compiled(glob).fullmatch(channel)}
            assert len(found) == len(set(found))
            assert set(found) == expected
    assert index.names.keys() == {name for name, _ in names}
    assert index.patterns.keys() == {glob for glob, _ in patterns}
    for _, who, some, globs in changes:
        index.remove(who, some, globs)
    assert not index.names
    assert not index.patterns
    assert not index._literals


@each_case(
    "pattern, channel",
    [
        ("user:{}:*", "user:4711:mail"),
        ("*:user:{}", "mail:user:4711"),
        ("room:*:{}", "room:kitchen:4711"),
        ("room:*:user:{}:*", "room:kitchen:user:4711:mail"),
        ("*:{}:*", "user:4711:mail"),
        ("user:{}", "user:4711"),
    ],
)
def test_of_thousands_of_patterns_only_those_that_may_stand_for_the_name_are_tried(
    pattern: str, channel: str, monkeypatch: pytest.MonkeyPatch
):
    index: Index[int] = Index()
    for number in range(5_000):
        index.add(number, ["news"], [pattern.format(number)])
    tried: list[str] = []

    def count(each: str, name: str) -> bool:
        tried.append(each)
        return matches(each, name)

    monkeypatch.setattr(index_module, "matches", count)
    assert list(index.having(channel)) == [4711]
    # "4", "47" and "471" begin like it.
    assert len(tried) <= 4
    tried.clear()
    assert len(index.having("news")) == 5_000
    assert not tried


def test_publishing_to_a_channel_tries_no_pattern_of_others(monkeypatch: pytest.MonkeyPatch):
    """The dispatcher's way there: nothing is remembered between two channels that are new to it."""
    dispatcher = Dispatcher()
    for number in range(1_000):
        member = live()
        dispatcher.register(member, Registration(("news",), (f"user:{number}:*",), None, member))
    tried: list[str] = []

    def count(each: str, name: str) -> bool:
        tried.append(each)
        return matches(each, name)

    monkeypatch.setattr(index_module, "matches", count)
    assert dispatcher.advance([f"user:{number}:mail" for number in range(2_000)], 1) == [
        f"user:{number}:mail" for number in range(1_000)
    ]
    assert len(tried) < 2_000 * 5
    assert dispatcher.count("user:7:mail") == 1


def test_no_pattern_has_the_brokers_own_channel():
    index: Index[int] = Index()
    index.add(1, [], ["*", "**"])
    assert not index.having(CONTROL)
    assert list(index.having("x")) == [1]


def test_a_single_holder_of_a_name_is_stored_without_a_dict_also_after_others_have_left():
    index: Index[int] = Index()
    for who in range(3):
        index.add(who, ["a"], ["a*"])
    assert list(index.having("a")) == [0, 1, 2]
    for who in range(2):
        index.remove(who, ["a"], ["a*"])
    assert index.names == {"a": 2}
    assert index.patterns == {"a*": 2}
