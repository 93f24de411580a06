"""The decoder: the standard's rules, whatever the cuts; the size limit; the work it takes."""

from __future__ import annotations

import random
import re
import time
import tracemalloc
from collections import deque
from itertools import islice, product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ssesync.errors import EventTooLarge
from ssesync.event import Event, ReceivedEvent
from ssesync.wire import Decoder
from tests.profiles import examples, times

from ...cases import each_case
from .helpers import BOM, Outcome, decode, every_cut, message, pieces, reference, whatwg_utf8


def case(name, stream, events, *, retry=None, last_id="", comments=()):
    """``comments`` are those of the whole stream, in their order."""
    return pytest.param(stream, list(events), retry, last_id, list(comments), id=name)


LINES = [
    case("lf", b"data: a\n\n", [message("a")]),
    case("cr", b"data: a\r\r", [message("a")]),
    case("cr_lf", b"data: a\r\n\r\n", [message("a")]),
    case("mixed_lf_then_cr_lf", b"data: a\n\r\ndata: b\n\n", [message("a"), message("b")]),
    case("mixed_cr_then_lf_cr", b"data: a\r\n\rdata: b\r\r\n", [message("a"), message("b")]),
    case("mixed_cr_lf_then_cr", b"data: a\r\n\rdata: b\n\n", [message("a"), message("b")]),
    case("mixed_cr_then_cr_lf", b"data: a\r\r\ndata: b\r\n\r\n", [message("a"), message("b")]),
    case("lf_cr_is_two_line_ends", b"data: a\n\rdata: b\n\r", [message("a"), message("b")]),
    case("two_lines_by_cr_lf", b"data: a\r\ndata: b\r\n\r\n", [message("a\nb")]),
    case("two_lines_by_cr", b"data: a\rdata: b\r\r", [message("a\nb")]),
    *(
        case(f"{name}_is_data", f"data: a{char}b\nid: {char}\n\n".encode(), [message(f"a{char}b", char)], last_id=char)
        for name, char in {
            "vt": "\v",
            "ff": "\f",
            "fs": "\x1c",
            "gs": "\x1d",
            "rs": "\x1e",
            "nel_u0085": "\x85",
            "ls_u2028": "\u2028",
            "ps_u2029": "\u2029",
        }.items()
    ),
    case("blank_lines_at_the_start", b"\n\n\r\n\rdata: a\n\n", [message("a")]),
    case("blank_lines_at_the_end", b"data: a\n\n\n\n\r\n\r", [message("a")]),
    case("blank_lines_in_between", b"data: a\n\n\n\n\ndata: b\n\n", [message("a"), message("b")]),
    case("nothing", b"", []),
    case("only_line_ends", b"\n\r\n\r\r\n\n", []),
    case("space_is_no_blank_line", b"data: a\n \n\n", [message("a")]),
]

FIELDS = [
    case("one_space_is_dropped", b"data: a\n\n", [message("a")]),
    case("no_space_is_fine", b"data:a\n\n", [message("a")]),
    case("only_one_space_is_dropped", b"data:  a\n\n", [message(" a")]),
    case("a_tab_is_kept", b"data:\ta\n\n", [message("\ta")]),
    case("no_break_space_is_kept", "data:\xa0a\n\n".encode(), [message("\xa0a")]),
    case("trailing_space_is_kept", b"data: a \n\n", [message("a ")]),
    case("value_after_the_first_colon", b"data: a: b:c\n\n", [message("a: b:c")]),
    case("value_that_is_a_colon", b"data::\n\n", [message(":")]),
    case("value_that_is_a_field", b"data: data: a\ndata: data: b\n\n", [message("data: a\ndata: b")]),
    case("mixed_with_and_without_space", b"data:a\ndata: b\ndata:c\ndata:  d\n\n", [message("a\nb\nc\n d")]),
    case("with_space_then_without", b"data: a\ndata:b\n\ndata: c\n\n", [message("a\nb"), message("c")]),
    case("names_are_case_sensitive", b"Data: a\nDATA: b\nID: 1\nEvent: e\ndata: c\n\n", [message("c")]),
    case("names_are_not_trimmed", b" data: a\ndata : b\n\tdata: c\ndata: d\n\n", [message("d")]),
    case("unknown_fields_are_ignored", b"foo: a\ndatax: b\ndat: c\nx\ndata: d\n\n", [message("d")]),
    case("names_that_go_on", b"data1\nids: 1\nevents: e\nretrys: 5\ndata: d\n\n", [message("d")]),
    case("nul_in_a_name_is_another_name", b"da\0ta: a\ndata: b\n\n", [message("b")]),
    case("nul_in_data_is_data", b"data: a\0b\n\n", [message("a\0b")]),
    case("nul_in_a_type_is_part_of_it", b"event: a\0b\ndata: c\n\n", [message("c", type="a\0b")]),
    case("malformed_byte_before_a_name", b"\xffdata: a\ndata: b\n\n", [message("b")]),
    case("comment", b": hi\ndata: a\n\n", [message("a")], comments=["hi"]),
    case("comment_alone_is_no_event", b": hi\n\n: ho\n\n", [], comments=["hi", "ho"]),
    case("comment_without_text", b":\n: \n:  \n\n", [], comments=["", "", " "]),
    case("comment_that_is_a_field", b":data: a\n:id: 1\n\n", [], comments=["data: a", "id: 1"]),
    case(
        "comments_between_fields",
        b":1\nid: i\n:2\nevent: t\n:3\ndata: a\n:4\ndata: b\n:5\n\n:6\n",
        [message("a\nb", "i", "t")],
        last_id="i",
        comments=["1", "2", "3", "4", "5", "6"],
    ),
]

DATA = [
    case("lines_are_joined_by_lf", b"data: a\ndata: b\ndata: c\n\n", [message("a\nb\nc")]),
    case("no_colon_is_empty_data", b"data\n\n", [message("")]),
    case("colon_alone_is_empty_data", b"data:\n\n", [message("")]),
    case("colon_and_space_is_empty_data", b"data: \n\n", [message("")]),
    case("two_without_colon_are_one_lf", b"data\ndata\n\n", [message("\n")]),
    case("two_with_colon_are_one_lf", b"data:\ndata:\n\n", [message("\n")]),
    case("two_with_space_are_one_lf", b"data: \ndata: \n\n", [message("\n")]),
    case("leading_empty_lines_are_kept", b"data: \ndata\ndata:\ndata: a\n\n", [message("\n\n\na")]),
    case("trailing_empty_lines_are_kept", b"data: a\ndata: \ndata\n\n", [message("a\n\n")]),
    case("no_colon_between_others", b"data: a\ndata\ndata: b\n\n", [message("a\n\nb")]),
    case("no_colon_after_an_unfinished_run", b"data: a\ndata\n\ndata\n\n", [message("a\n"), message("")]),
    case(
        "fields_between_data_lines",
        b"data: a\nfoo\n:c\nid: 1\ndata: b\n\n",
        [message("a\nb", "1")],
        last_id="1",
        comments=["c"],
    ),
    case("no_data_is_no_event", b"event: a\nid: 1\nretry: 5\n\n", [], retry=5, last_id="1"),
    case("64_lines", b"data: x\n" * 64 + b"\n", [message("\n".join("x" * 64))]),
    case("65_lines", b"data: x\n" * 65 + b"\n", [message("\n".join("x" * 65))]),
    case(
        "65_lines_with_id_and_type",
        b"event: t\nid: 7\n" + b"data: x\n" * 65 + b"\n",
        [message("\n".join("x" * 65), "7", "t")],
        last_id="7",
    ),
    case("130_lines_then_an_id", b"data: x\n" * 130 + b"id: 1\n\n", [message("\n".join("x" * 130), "1")], last_id="1"),
    case(
        "64_lines_then_a_type",
        b"data: x\n" * 64 + b"event: t\n\ndata: y\n\n",
        [message("\n".join("x" * 64), type="t"), message("y")],
    ),
    case("64_lines_then_end_of_stream", b"data: x\n" * 64, []),
]

TYPES = [
    case("none_is_message", b"data: a\n\n", [message("a")]),
    case("before_data", b"event: t\ndata: a\n\n", [message("a", type="t")]),
    case("after_data", b"data: a\nevent: t\n\n", [message("a", type="t")]),
    case("without_space", b"event:t\ndata: a\n\n", [message("a", type="t")]),
    case("two_spaces", b"event:  t\ndata: a\n\n", [message("a", type=" t")]),
    case("only_spaces", b"event:  \ndata: a\n\n", [message("a", type=" ")]),
    case("last_one_wins", b"event: a\nevent: b\ndata: c\n\n", [message("c", type="b")]),
    case("last_one_wins_around_data", b"event: a\ndata: c\nevent: b\n\n", [message("c", type="b")]),
    case("three_of_them", b"event: a\nevent: b\nevent: c\ndata: d\n\n", [message("d", type="c")]),
    case("empty_is_message", b"event: \ndata: a\n\n", [message("a")]),
    case("no_colon_is_message", b"event\ndata: a\n\n", [message("a")]),
    case("empty_after_another_is_message", b"event: t\nevent:\ndata: a\n\n", [message("a")]),
    case("no_colon_after_another_is_message", b"event: t\nevent\ndata: a\n\n", [message("a")]),
    case("empty_after_data_and_another", b"event: t\ndata: a\nevent: \n\n", [message("a")]),
    case("does_not_outlive_its_event", b"event: t\ndata: a\n\ndata: b\n\n", [message("a", type="t"), message("b")]),
    case("does_not_outlive_a_block_without_data", b"event: t\n\ndata: b\n\n", [message("b")]),
    case("with_a_colon", b"event: a:b\ndata: c\n\n", [message("c", type="a:b")]),
]

IDS = [
    case("before_data", b"id: 1\ndata: a\n\n", [message("a", "1")], last_id="1"),
    case("after_data", b"data: a\nid: 1\n\n", [message("a", "1")], last_id="1"),
    case("type_before_id", b"event: t\nid: 1\ndata: a\n\n", [message("a", "1", "t")], last_id="1"),
    case("id_before_type", b"id: 1\nevent: t\ndata: a\n\n", [message("a", "1", "t")], last_id="1"),
    case("type_and_id_after_data", b"data: a\nid: 1\nevent: t\n\n", [message("a", "1", "t")], last_id="1"),
    case("id_type_id", b"id: 1\nevent: t\nid: 2\ndata: a\n\n", [message("a", "2", "t")], last_id="2"),
    case("last_one_wins", b"id: 1\nid: 2\ndata: a\n\n", [message("a", "2")], last_id="2"),
    case("last_one_wins_around_data", b"id: 1\ndata: a\nid: 2\n\n", [message("a", "2")], last_id="2"),
    case("without_space", b"id:1\ndata: a\n\n", [message("a", "1")], last_id="1"),
    case("two_spaces", b"id:  1\ndata: a\n\n", [message("a", " 1")], last_id=" 1"),
    case("only_spaces", b"id:   \ndata: a\n\n", [message("a", "  ")], last_id="  "),
    case("persists", b"id: 1\ndata: a\n\ndata: b\n\ndata: c\n\n", [message(d, "1") for d in "abc"], last_id="1"),
    case(
        "persists_over_blocks_without_data",
        b"id: 1\n\n:c\n\nretry: 1\n\ndata: a\n\n",
        [message("a", "1")],
        retry=1,
        last_id="1",
        comments=["c"],
    ),
    case("empty_resets", b"id: 1\ndata: a\n\nid: \ndata: b\n\n", [message("a", "1"), message("b", "")]),
    case("colon_alone_resets", b"id: 1\ndata: a\n\nid:\ndata: b\n\n", [message("a", "1"), message("b", "")]),
    case("no_colon_resets", b"id: 1\ndata: a\n\nid\ndata: b\n\n", [message("a", "1"), message("b", "")]),
    case("empty_after_another_resets", b"id: 1\nid:\ndata: b\n\n", [message("b", "")]),
    case("another_after_empty_counts", b"id\nid: 1\ndata: b\n\n", [message("b", "1")], last_id="1"),
    case("nul_is_ignored", b"id: a\0b\ndata: a\n\n", [message("a")]),
    case("nul_first_is_ignored", b"id: \0\ndata: a\n\n", [message("a")]),
    case(
        "nul_keeps_the_id_of_events_before",
        b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n",
        [message("a", "1"), message("b", "1")],
        last_id="1",
    ),
    case("nul_keeps_the_id_of_the_line_before", b"id: 1\nid: 2\0\ndata: a\n\n", [message("a", "1")], last_id="1"),
    case("nul_then_a_good_one", b"id: 1\0\nid: 2\ndata: a\n\n", [message("a", "2")], last_id="2"),
    case("in_a_block_without_data_counts", b"id: 1\n\n", [], last_id="1"),
    case("in_an_unfinished_block_does_not_count", b"id: 1\n\nid: 2\n", [], last_id="1"),
    case("with_a_colon", b"id: a:b\ndata: c\n\n", [message("c", "a:b")], last_id="a:b"),
    case("non_ascii", "id: é日😀\ndata: c\n\n".encode(), [message("c", "é日😀")], last_id="é日😀"),
]

RETRIES = [
    case("whole_number", b"retry: 1500\n\n", [], retry=1500),
    case("counts_at_once_without_a_blank_line", b"retry: 1500\n", [], retry=1500),
    case("without_space", b"retry:1500\n", [], retry=1500),
    case("zero", b"retry: 0\n", [], retry=0),
    case("several_zeros", b"retry: 000\n", [], retry=0),
    case("leading_zeros", b"retry: 0001500\n", [], retry=1500),
    case("last_one_wins", b"retry: 1\nretry: 2\n", [], retry=2),
    case("a_bad_one_changes_nothing", b"retry: 7\nretry: x\n", [], retry=7),
    case("inside_an_event", b"id: 1\nevent: t\nretry: 7\ndata: a\n\n", [message("a", "1", "t")], retry=7, last_id="1"),
    case("between_data_lines", b"data: a\nretry: 7\ndata: b\n\n", [message("a\nb")], retry=7),
    case("18_digits", b"retry: " + b"9" * 18 + b"\n", [], retry=10**18 - 1),
    case("19_digits_are_the_greatest", b"retry: " + b"9" * 19 + b"\n", [], retry=10**18),
    *(
        case(name, f"retry:{value}\n\n".encode(), [])
        for name, value in {
            "plus": " +5",
            "minus": " -5",
            "underscore": " 1_0",
            "two_spaces": "  5",
            "trailing_space": " 5 ",
            "tab": "\t5",
            "arabic_indic_digit": " ٣",
            "superscript": " ²",
            "fullwidth_digit": " \uff15",
            "empty": " ",
            "nothing": "",
            "fraction": " 5.0",
            "exponent": " 1e3",
            "hexadecimal": " 0x10",
            "nul": " 5\0",
            "word": " soon",
        }.items()
    ),
    case("no_colon", b"retry\n\n", []),
    case("unfinished", b"retry: 15", []),
]

BLOCKS = [
    case("unfinished_block_is_dropped", b"data: a\n\ndata: b\n", [message("a")]),
    case("unfinished_line_is_dropped", b"data: a\n\ndata: b", [message("a")]),
    case("unfinished_block_of_everything", b"id: 1\nevent: t\ndata: b\ndata: c\n", []),
    case("one_after_the_other", b"data: a\n\ndata: b\n\n", [message("a"), message("b")]),
    case("usual_block", b"id: 1\nevent: t\ndata: a\ndata: b\n\n", [message("a\nb", "1", "t")], last_id="1"),
    case(
        "usual_then_odd_then_usual",
        b"data: a\n\ndata:b\nfoo\ndata\n\ndata: c\n\n",
        [message("a"), message("b\n"), message("c")],
    ),
    case(
        "type_pending_over_a_comment",
        b"event: t\n:c\ndata: a\n\ndata: b\n\n",
        [message("a", type="t"), message("b")],
        comments=["c"],
    ),
    case("id_pending_over_a_comment", b"id: 1\n:c\ndata: a\n\n", [message("a", "1")], last_id="1", comments=["c"]),
    case(
        "type_pending_before_id_and_data",
        b"event: t\nretry: 1\nid: 1\ndata: a\n\n",
        [message("a", "1", "t")],
        retry=1,
        last_id="1",
    ),
    case(
        "data_pending_before_a_usual_block",
        b"data\nid: 1\nevent: t\ndata: a\n\n",
        [message("\na", "1", "t")],
        last_id="1",
    ),
    case("data_pending_before_a_block_without_type", b"event: t\ndata\ndata: a\n\n", [message("\na", type="t")]),
    case("ids_only", b"id: 1\n\nid: 2\n\n", [], last_id="2"),
]

MARKS = [
    case("bom_is_dropped", BOM + b"data: a\n\n", [message("a")]),
    case("bom_before_a_comment", BOM + b":c\n\n", [], comments=["c"]),
    case("bom_before_a_blank_line", BOM + b"\ndata: a\n\n", [message("a")]),
    case("bom_before_a_cr", BOM + b"\r\ndata: a\r\n\r\n", [message("a")]),
    case("bom_alone", BOM, []),
    case("second_bom_is_part_of_the_name", BOM + BOM + b"data: a\ndata: b\n\n", [message("b")]),
    case("bom_later_is_part_of_the_name", b"\n" + BOM + b"data: a\ndata: b\n\n", [message("b")]),
    case("bom_in_data_is_data", b"data: " + BOM + b"a\n\n", [message("\ufeffa")]),
    case("bom_in_an_id_is_part_of_it", b"id:" + BOM + b"\ndata: a\n\n", [message("a", "\ufeff")], last_id="\ufeff"),
    case("half_a_bom", b"\xef\xbbdata: a\ndata: b\n\n", [message("b")]),
    case("half_a_bom_then_line_end", b"\xef\ndata: b\n\n", [message("b")]),
    case("bom_start_in_a_comment", b":\xef\xbb\n\xef\xbb\xbf:\ndata: b\n\n", [message("b")], comments=["\ufffd"]),
    case("utf_16_bom_is_malformed", b"\xff\xfedata: a\ndata: b\n\n", [message("b")]),
]

UTF8 = [
    case(f"{name}", b"data: " + raw + b"\n\n", [message(text)])
    for name, raw, text in [
        ("two_bytes", b"\xc3\xa9", "é"),
        ("three_bytes", b"\xe6\x97\xa5", "日"),
        ("four_bytes", b"\xf0\x9f\x98\x80", "😀"),
        ("last_code_point", b"\xf4\x8f\xbf\xbf", "\U0010ffff"),
        ("non_character", b"\xef\xbf\xbe", "\ufffe"),
        ("c1_control", b"\xc2\x85", "\x85"),
        ("lone_continuation", b"a\x80b", "a\ufffdb"),
        ("two_lone_continuations", b"\x80\xbf", "\ufffd" * 2),
        ("latin_1", b"caf\xe9 au", "caf\ufffd au"),
        ("ff_and_fe", b"\xff\xfe", "\ufffd" * 2),
        ("overlong_two", b"\xc0\x80", "\ufffd" * 2),
        ("overlong_three", b"\xe0\x80\x80", "\ufffd" * 3),
        ("overlong_three_valid_end", b"\xe0\x9f\xbf", "\ufffd" * 3),
        ("overlong_four", b"\xf0\x80\x80\x80", "\ufffd" * 4),
        ("overlong_four_at_the_edge", b"\xf0\x8f\xbf\xbf", "\ufffd" * 4),
        ("surrogate", b"\xed\xa0\x80", "\ufffd" * 3),
        ("surrogate_pair", b"\xed\xa0\xbd\xed\xb8\x80", "\ufffd" * 6),
        ("past_the_last_code_point", b"\xf4\x90\x80\x80", "\ufffd" * 4),
        ("five_byte_form", b"\xf8\x88\x80\x80\x80", "\ufffd" * 5),
        ("two_of_three_bytes", b"\xe2\x82", "\ufffd"),
        ("one_of_three_bytes", b"\xe2", "\ufffd"),
        ("three_of_four_bytes", b"\xf0\x9f\x98", "\ufffd"),
        ("two_of_four_bytes", b"\xf0\x9fx", "\ufffdx"),
        ("truncated_then_good", b"\xf0\x9f\x98\xe6\x97\xa5", "\ufffd日"),
        ("truncated_twice", b"\xe2\x82\xe2\x82", "\ufffd" * 2),
        ("truncated_then_ascii", b"\xe2\x82x", "\ufffdx"),
        ("unicode_standard_table_3_8", b"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", "\ufffd" * 4 + "A"),
        ("unicode_standard_table_3_9", b"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", "\ufffd" * 8 + "A"),
    ]
] + [
    case("truncated_before_cr", b"data: \xe2\x82\rdata: \xf0\r\r", [message("\ufffd\n\ufffd")]),
    case("malformed_in_an_id", b"id: \xff\ndata: a\n\n", [message("a", "\ufffd")], last_id="\ufffd"),
    case("malformed_in_a_type", b"event: \xe2\x82\ndata: a\n\n", [message("a", type="\ufffd")]),
    case("malformed_in_a_comment", b":\xe2\x82\n:\xff\xff\n", [], comments=["\ufffd", "\ufffd\ufffd"]),
    case("malformed_in_retry", b"retry: 5\xff\n\n", []),
    case("malformed_in_an_odd_block", b"data: \xff\ndata:\xe2\x82\n\n", [message("\ufffd\n\ufffd")]),
]

SEEN_ELSEWHERE = [
    case(
        "httpx_sse_comment_block_after_an_id",
        b"id: 1\ndata: a\n\n:keep-alive\n\n",
        [message("a", "1")],
        last_id="1",
        comments=["keep-alive"],
    ),
    case("requests_sse_cr_lf_cut", b"event: t\r\ndata: a\r\ndata: b\r\n\r\n", [message("a\nb", type="t")]),
    case("sseclient_py_lf_cr_lf", b"data: a\n\r\ndata: b\n\r\n", [message("a"), message("b")]),
    case("sseclient_py_unfinished_event", b"data: a\n\ndata: b", [message("a")]),
    case(
        "sseclient_py_id_is_forgotten",
        b"id: 1\ndata: a\n\ndata: b\n\n",
        [message("a", "1"), message("b", "1")],
        last_id="1",
    ),
    case("launchdarkly_bom", BOM + b"data: a\n\ndata: b\n\n", [message("a"), message("b")]),
    case("launchdarkly_malformed_byte", b"data: \xff\n\ndata: b\n\n", [message("\ufffd"), message("b")]),
    case("launchdarkly_retry", b"retry: 250\ndata: a\n\n", [message("a")], retry=250),
    case("hertz_unfinished_block", b"data: a\n\nid: 1\ndata: b\n", [message("a")]),
    case("hertz_leading_empty_data_lines", b"data:\ndata:\ndata: a\n\n", [message("\n\na")]),
    case("hertz_negative_retry", b"retry: -5\n\n", []),
    case("flask_sse_u2028", "data: a\u2028b\n\n".encode(), [message("a\u2028b")]),
    case("httpx_sse_and_openai_retry_with_underscore", b"retry: 1_0\n\n", []),
]

GROUPS = {
    "lines": LINES,
    "fields": FIELDS,
    "data": DATA,
    "type": TYPES,
    "id": IDS,
    "retry": RETRIES,
    "blocks": BLOCKS,
    "bom": MARKS,
    "utf8": UTF8,
    "seen_elsewhere": SEEN_ELSEWHERE,
}
CASES = [pytest.param(*each.values, id=f"{group}-{each.id}") for group, cases in GROUPS.items() for each in cases]


def streams_of(group):
    """The streams of a group, for tests that check the same of each."""
    return [each.values[0] for each in GROUPS[group]]


@each_case("stream, events, retry, last_id, comments", CASES)
def test_rule_holds_at_every_cut_with_comments_and_without(stream, events, retry, last_id, comments):
    expected = Outcome(events, retry, last_id)
    with_comments = reference(stream, comments=True)
    assert [event.comment for event in with_comments.events if event.comment is not None] == comments
    assert [event for event in with_comments.events if event.comment is None] == events
    for chunks in every_cut(stream):
        assert decode(chunks) == expected, chunks
        assert decode(chunks, comments=True) == with_comments, chunks


@each_case("group", GROUPS)
def test_rule_holds_in_the_middle_of_a_long_stream(group):
    before, after = b"data: before\n\n" * 3, b"\n\nid: z\ndata: after\n\n" * 3
    for stream in streams_of(group):
        if stream.startswith(b"\xef"):
            continue
        expected = reference(before + stream + after, comments=True)
        for chunks in (
            [before + stream + after],
            [before, stream, after],
            [before, stream + after],
            [before + stream, after],
        ):
            assert decode(chunks, comments=True) == expected, chunks


@each_case("group", GROUPS)
def test_every_event_is_given_with_the_byte_that_completes_it(group):
    for stream in streams_of(group):
        decoder, given_ = Decoder(comments=True), []
        for end in range(1, len(stream) + 1):
            given_ += decoder.feed(stream[end - 1 : end])
            if len(stream) < 200 or end > len(stream) - 20:
                so_far = reference(stream[:end], comments=True)
                assert Outcome(given_, decoder.retry, decoder.last_event_id) == so_far, stream[:end]


# Line ends and cuts


def test_cr_that_ends_a_chunk_ends_its_line_at_once():
    decoder = Decoder(comments=True)
    assert decoder.feed(b": c\r") == [Event(comment="c")]
    assert decoder.feed(b"retry: 5\r") == []
    assert decoder.retry == 5
    assert decoder.feed(b"data: a\r") == []
    assert decoder.feed(b"\r") == [message("a")]


def test_lf_after_a_cr_that_ended_a_chunk_is_swallowed():
    decoder = Decoder()
    assert decoder.feed(b"data: a\r\n\r") == [message("a")]
    assert decoder.feed(b"\n") == []
    assert decoder.feed(b"data: b\r") == []
    assert decoder.feed(b"\n") == []
    assert decoder.feed(b"data: c\r") == []
    assert decoder.feed(b"\n\r") == [message("b\nc")]


def test_only_one_lf_is_swallowed_after_a_cr():
    decoder = Decoder()
    assert decoder.feed(b"data: a\r") == []
    assert decoder.feed(b"\n") == []
    assert decoder.feed(b"\n") == [message("a")]
    assert decoder.feed(b"data: b\r") == []
    assert decoder.feed(b"\n\n") == [message("b")]


def test_an_empty_chunk_between_cr_and_lf_changes_nothing():
    decoder = Decoder()
    assert decoder.feed(b"data: a\r") == []
    assert decoder.feed(b"") == []
    assert decoder.feed(b"\ndata: b\r\n") == []
    assert decoder.feed(b"\r\n") == [message("a\nb")]


def test_an_empty_chunk_is_no_event_and_no_line():
    decoder = Decoder()
    assert decoder.feed(b"") == decoder.feed(b"data: a\n") == decoder.feed(b"") == []
    assert decoder.feed(b"\n") == [message("a")]
    assert decoder.feed(b"") == []


def test_one_event_a_chunk_is_given_with_its_chunk():
    decoder = Decoder()
    for number in range(5):
        assert decoder.feed(b"data: %d\n\n" % number) == [message(str(number))]
    assert decoder.feed(b"id: 7\nevent: t\ndata: x\n\n") == [message("x", "7", "t")]
    assert decoder.feed(b"data: y\n\n") == [message("y", "7")]
    assert decoder.last_event_id == "7"


@each_case(
    "before, pending",
    [
        pytest.param(b"data: p\n", "p\n", id="data_line"),
        pytest.param(b"data: p", None, id="unfinished_line"),
        pytest.param(b"event: t\n", "", id="type"),
        pytest.param(b"id: 9\n", "", id="id"),
        pytest.param(b"id\n", "", id="empty_id"),
        pytest.param(b"event\n", "", id="empty_type"),
        pytest.param(b"data: p\r", "p\n", id="data_line_ended_by_cr"),
        pytest.param(b": c\n", "", id="comment"),
        pytest.param(b": c", None, id="unfinished_comment"),
        pytest.param(b"foo", None, id="unfinished_unknown_field"),
        pytest.param(b"\xef\xbb", None, id="half_a_bom"),
        pytest.param(b"\xef\xbb\xbf", None, id="bom"),
        pytest.param(b"data: p\n" * 70, "p\n" * 70, id="long_run"),
        pytest.param(b"data: p\n" * 70 + b"event: t\n", "p\n" * 70, id="long_run_and_type"),
    ],
)
def test_what_is_pending_meets_a_chunk_that_is_a_whole_block(before, pending):
    blocks = [b"data: w\n\n", b"id: 3\nevent: u\ndata: w\ndata: x\n\n", b"\n", b"\ndata: w\n\n"]
    for earlier, chunk in product([[], [b"id: 1\ndata: e\n\n"]], blocks):
        chunks = [*earlier, before, chunk, b"data: z\n\n"]
        expected = reference(b"".join(chunks))
        assert decode(chunks) == expected, chunks
        if pending is not None and chunk == b"data: w\n\n":
            assert expected.events[-2].data == pending + "w", chunks


@pytest.mark.slow
def test_long_lines_beside_short_ones():
    long = b"x" * 65_536
    stream = b"".join(
        [
            b"data: " + long + b"\n\n",
            b"data: a\n\n",
            b"id: 1\nevent: t\ndata: " + long + b"\ndata: " + long + b"\n\n",
            b":" + long + b"\n",
            b"foo: " + long + b"\n",
            b"data:b\ndata\n\n",
            long + b"\n",
            b"data: c\ndata: " + "日".encode() * 30_000 + b"\xe6\x97\n\n",
            b"id: " + long[:5000] + b"\ndata: d\n\n",
            b"data: " + long,
        ]
    )
    expected = reference(stream)
    assert len(expected.events) == 6
    assert decode([stream]) == expected
    for size in (1, 1000, 1024, 1025, 65_535, 65_536, 65_550, 100_000):
        if size > 1:
            assert decode([stream[i : i + size] for i in range(0, len(stream), size)]) == expected, size
    with_comments = reference(stream, comments=True)
    assert decode([stream], comments=True) == with_comments
    for line_end in (b"\r", b"\r\n"):
        other = stream.replace(b"\n", line_end)
        for size in (4096, 65_536, len(other)):
            assert decode([other[i : i + size] for i in range(0, len(other), size)], comments=True) == with_comments


@each_case("length", [*range(1005, 1035), 240, 256, 257, 300])
def test_blocks_about_as_long_as_the_decoders_sample(length):
    block = b"event: t\ndata: " + b"x" * (length - 17) + b"\n\n"
    lonely = b"data: " + b"x" * (length - 8) + b"\n\n"
    assert len(block) == len(lonely) == length
    stream = b"data: 0\n\n" + block + lonely + b"data: 1\n\n" + lonely
    expected = reference(stream)
    assert decode([b"data: 0\n\n", block, lonely, b"data: 1\n\n", lonely]) == expected
    assert decode([b"data: 0\n\n", block + lonely, b"data: 1\n\n" + lonely]) == expected
    assert decode([stream]) == expected


def test_retry_of_five_thousand_digits_is_a_number_no_one_waits_out():
    for digits in (b"9" * 5000, b"1" + b"0" * 4999):
        for chunks in ([b"retry: " + digits + b"\n"], [b"retry: ", digits[:2500], digits[2500:], b"\n"]):
            assert decode(chunks).retry == 10**18
    assert decode([b"retry: " + b"0" * 5000 + b"7\n"]).retry == 7


# State between events


def test_an_id_is_empty_until_the_stream_sets_one():
    assert [event.id for event in decode([b"data: a\n\nid: 1\ndata: b\n\nid\ndata: c\n\n"]).events] == ["", "1", ""]


def test_a_resumed_stream_starts_with_its_last_event_id():
    assert Decoder("5").last_event_id == "5"
    assert decode([b"data: a\n\nid: 6\ndata: b\n\n"], "5") == Outcome([message("a", "5"), message("b", "6")], None, "6")
    assert decode([b"id\n\ndata: a\n\n"], "5") == Outcome([message("a", "")], None, "")


def test_a_stream_without_last_event_id_has_the_empty_one():
    assert Decoder().last_event_id == ""
    assert Decoder().retry is None


def test_an_id_counts_for_the_decoder_only_when_its_block_ends():
    decoder = Decoder("1")
    decoder.feed(b"id: 2\n")
    assert decoder.last_event_id == "1"
    decoder.feed(b"data: x")
    assert decoder.last_event_id == "1"
    decoder.feed(b"\n\n")
    assert decoder.last_event_id == "2"


def test_a_comment_is_given_as_soon_as_its_line_ends_and_in_its_place():
    decoder = Decoder(comments=True)
    assert decoder.feed(b"data: a\n: one\ndata: b\n: tw") == [Event(comment="one")]
    assert decoder.feed(b"o\n") == [Event(comment="two")]
    assert decoder.feed(b"\n:three\n") == [message("a\nb"), Event(comment="three")]


def test_a_decoded_event_is_an_event_like_any_other():
    (event,) = decode([b"id: 1\nevent: t\ndata: a\n\n"]).events
    assert type(event) is ReceivedEvent
    assert isinstance(event, Event)
    assert hash(event) == hash(Event("a", id="1", type="t"))
    assert (event.retry, event.comment) == (None, None)
    with pytest.raises(AttributeError):
        event.data = "b"


# Any input, any cut


FRAGMENTS = [
    *(b"data", b"event", b"id", b"retry", b"foo", b"dat", b"d", b"data1", b"Data"),
    *(b":", b": ", b":  ", b" ", b"\t", b"::"),
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r\n", b"\n\r"),
    *(b"data: ", b"data:", b"data: x\n", b"\ndata: ", b"data: y\n\n", b"data\n", b"data: x\n" * 64, b"data: x" * 50),
    *(b"id: 1\n", b"id: 2\n", b"id:\n", b"id\n", b"id: \0\n", b"id: a\0b\n", b"id:  3\n", b"\nid: 4\n\n"),
    *(b"event: t\n", b"event: u\n", b"event:\n", b"event\n", b"event:  v\n", b"event: t\n\n"),
    *(b"retry: 5\n", b"retry: 10\n", b"retry: -5\n", b"retry: 1_0\n", b"retry:007\n", b"retry: \n", b"retry:  5\n"),
    *(b": c\n", b":\n", b": keep-alive\n\n", b"foo: bar\n", b"foo\n"),
    *(b"x", b"0", b"9", b"\0", b"a: b", b"_"),
    *(BOM, b"\xef", b"\xef\xbb", b"\xbf", "é".encode(), "日".encode(), "😀".encode(), "\u2028".encode(), b"\xc2\x85"),
    *(b"\xff", b"\xc0\x80", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xf4\x90", b"\x80", b"\xe6\x97"),
    *(b"\v", b"\f", b"\x1c", b"\x1d", b"\x1e"),
    *(b"x" * 1100, b"data: " + b"z" * 1100 + b"\n"),
]
streams = st.lists(st.sampled_from(FRAGMENTS), max_size=25).map(b"".join)
places = st.lists(st.integers(0, 4000), max_size=12)


@times(20)
@given(streams, places, st.booleans(), st.sampled_from([None, "", "start"]))
@example(b"id: 1\nid: \0\ndata: x\n\n", [], False, None)
@example(b"data: x\n" * 64 + b"id: 1\n\n", [], False, None)
def test_any_stream_under_any_cut_reads_as_the_reference_reads_it(stream, at, comments, last_id):
    expected = reference(stream, last_id, comments=comments)
    assert decode([stream], last_id, comments=comments) == expected
    assert decode(pieces(stream, at), last_id, comments=comments) == expected


@times(20)
@given(streams, places, st.booleans(), st.integers(1, 80))
def test_any_stream_under_any_cut_meets_the_limit_alike(stream, at, comments, limit):
    expected = reference(stream, comments=comments, max_event_size=limit)
    assert decode([stream], comments=comments, max_event_size=limit) == expected
    assert decode(pieces(stream, at), comments=comments, max_event_size=limit) == expected


@each_case("seed", range(8))
def test_random_streams_read_as_the_reference_reads_them(seed):
    source = random.Random(seed)
    for _ in range(examples(10)):
        stream = b"".join(source.choices(FRAGMENTS, k=source.randrange(30)))
        limit = source.choice([5, 20, 60, 600, 5000, 1 << 24])
        expected = reference(stream, comments=True, max_event_size=limit)
        at = [source.randrange(len(stream) + 1) for _ in range(source.randrange(9))]
        for chunks in ([stream], pieces(stream, at)):
            assert decode(chunks, comments=True, max_event_size=limit) == expected, chunks


@given(st.binary(max_size=60), places)
@times(5)
def test_no_bytes_make_it_raise(stream, at):
    assert decode(pieces(stream, at), comments=True) == reference(stream, comments=True)


EDGES = bytes.fromhex("41 7f 80 8f 90 9f a0 bf c1 c2 df e0 e1 ec ed ef f0 f1 f3 f4 f5 ff")


@given(st.lists(st.sampled_from(EDGES), max_size=12).map(bytes), places)
@times(10)
def test_malformed_utf8_reads_as_the_encoding_standard_reads_it(raw, at):
    stream = b"data: " + raw + b"\n\n"
    assert decode(pieces(stream, at)).events == [message(whatwg_utf8(raw))]


# The size limit


LIMITED = [
    pytest.param(b"data: abcd\n\n", 10, id="data"),
    pytest.param(b"data:abcd\r\n\r\n", 9, id="data_without_space"),
    pytest.param(b"data\n\n", 4, id="data_without_colon"),
    pytest.param(b"data: ab\ndata: cd\n\n", 16, id="two_data_lines"),
    pytest.param(b"id: abcdef\ndata: x\n\n", 17, id="id_and_data"),
    pytest.param(b"event: abcdef\ndata: x\n\n", 20, id="type_and_data"),
    pytest.param(b"id: 1\nid: 2\nid: 3\n\n", 15, id="ids_alone"),
    pytest.param(b"event: a\nevent: b\n\n", 16, id="types_alone"),
    pytest.param(b"retry: 100\ndata: x\n\n", 10, id="retry_counts_alone"),
    pytest.param(b"data: x\nretry: 1\n\n", 15, id="retry_counts_while_it_is_read"),
    pytest.param("data: é日😀\n\n".encode(), 15, id="bytes_not_characters"),
    pytest.param(b"data: \xff\xff\n\n", 8, id="malformed_bytes_as_they_came"),
    pytest.param(b"data: abcd", 10, id="unfinished_line"),
    pytest.param(b"data: ab\ndata: cd", 16, id="unfinished_line_after_another"),
    pytest.param(BOM + b"data: abcd\n\n", 10, id="bom_does_not_count"),
    pytest.param(b": a long comment\ndata: a\nsome: thing\n\n", 7, id="comments_and_unknown_fields_do_not_count"),
    pytest.param(b"data: x\n\ndata: yyyy\n\ndata: z\n\n", 10, id="every_event_for_itself"),
    pytest.param(b"data: x\r\rdata: yyyy\r\rdata: z\r\r", 10, id="every_event_for_itself_cr"),
    pytest.param(b"id: 12\n\nevent: 1\n\ndata: x\n\n", 8, id="blank_lines_start_anew"),
]


@each_case("stream, size", LIMITED)
def test_exactly_the_limit_passes_at_every_cut(stream, size):
    for chunks in every_cut(stream):
        assert decode(chunks, max_event_size=size) == reference(stream), chunks


@each_case("stream, size", LIMITED)
def test_one_byte_more_than_the_limit_raises_at_every_cut(stream, size):
    expected = reference(stream, max_event_size=size - 1)
    assert expected.too_large
    for chunks in every_cut(stream):
        assert decode(chunks, max_event_size=size - 1) == expected, chunks


def test_the_error_has_size_and_limit():
    with pytest.raises(EventTooLarge, match=r"11 bytes.*max_event_size=10") as caught:
        Decoder(max_event_size=10).feed(b"data: abcde")
    assert (caught.value.size, caught.value.limit) == (11, 10)
    decoder = Decoder(max_event_size=10)
    decoder.feed(b"data: a\n")
    with pytest.raises(EventTooLarge) as caught:
        decoder.feed(b"data: b")
    assert (caught.value.size, caught.value.limit, caught.value.events) == (14, 10, [])


def test_events_before_the_one_that_is_too_large_come_with_the_error():
    stream = b"id: 1\ndata: a\n\n: hi\nid: 2\ndata: b\n\nid: 3\ndata: " + b"x" * 50
    decoder = Decoder(max_event_size=20, comments=True)
    with pytest.raises(EventTooLarge) as caught:
        decoder.feed(stream)
    assert caught.value.events == [message("a", "1"), Event(comment="hi"), message("b", "2")]
    assert decoder.last_event_id == "2"


def test_the_limit_may_be_changed_at_any_time():
    decoder = Decoder(max_event_size=10)
    decoder.feed(b"data: abcd")
    decoder.max_event_size = 20
    assert decoder.feed(b"efgh\n\n") == [message("abcdefgh")]
    decoder.max_event_size = 8
    with pytest.raises(EventTooLarge):
        decoder.feed(b"data: abc\n\n")


def test_a_chunk_beyond_the_limit_is_fine_when_its_events_are_not():
    stream = b"id: 1\nevent: t\ndata: abc\n\n" * 1000
    assert decode([stream], max_event_size=30) == reference(stream)


def test_the_limit_holds_on_the_way_for_single_small_chunks():
    decoder = Decoder(max_event_size=1024)
    assert decoder.feed(b"data: a\n\n") == [message("a")]
    assert decoder.feed(b"data: " + b"x" * 1010 + b"\n\n") == [message("x" * 1010)]
    assert decoder.feed(b"data: " + b"x" * 1018 + b"\n\n") == [message("x" * 1018)]
    with pytest.raises(EventTooLarge):
        decoder.feed(b"data: " + b"x" * 1019 + b"\n\n")


def test_a_comment_longer_than_the_limit_is_skipped_at_every_cut():
    stream = b":12345\n:123456\nid: a\n:7\n\n"
    for chunks in every_cut(stream):
        assert decode(chunks, comments=True, max_event_size=7) == reference(stream, comments=True)
        kept = [Event(comment="12345"), Event(comment="7")]
        assert decode(chunks, comments=True, max_event_size=6) == Outcome(kept, None, "a")


MEGABYTE = 1_000_000
PIECE = 65_536


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "piece", "times"),
    [
        pytest.param(b":", b"c" * PIECE, 800, id="one_comment"),
        pytest.param(b"foo: ", b"x" * PIECE, 800, id="one_unknown_field"),
        pytest.param(b"", b"x" * PIECE, 800, id="one_line_without_a_colon"),
        pytest.param(b"dataset", b": x" * (PIECE // 3), 800, id="one_field_that_begins_like_a_known_one"),
        pytest.param(b"", b":" + b"c" * (PIECE - 2) + b"\n", 800, id="long_comments"),
        pytest.param(b"", b"foo:" + b"x" * (PIECE - 5) + b"\n", 800, id="long_unknown_fields"),
        pytest.param(b"", b":keep-alive\n" * (PIECE // 12), 5, id="keep_alives"),
        pytest.param(b"", b"foo: bar\n" * (PIECE // 9), 5, id="unknown_fields"),
        pytest.param(b"", b"retry: 5\n" * (PIECE // 9), 5, id="retries"),
        pytest.param(b"", b"\n" * PIECE, 5, id="blank_lines"),
        pytest.param(b"", b"\r\n" * (PIECE // 2), 5, id="blank_cr_lf_lines"),
    ],
)
@pytest.mark.parametrize(
    "options",
    [{"max_event_size": 1000}, {}, {"max_event_size": 1000, "comments": True}],
    ids=["small_limit", "usual_limit", "comments_given"],
)
def test_what_is_not_kept_may_go_on_for_ever(start, piece, times, options):
    decoder = Decoder(**options)
    decoder.feed(b"id: 1\ndata: a\n" + start)
    tracemalloc.start()
    try:
        for _ in range(times):
            decoder.feed(bytes(memoryview(piece)))  # a new object: a kept one would show
            assert tracemalloc.get_traced_memory()[0] < 250_000  # the interpreter keeps spare tuples
        assert tracemalloc.get_traced_memory()[1] < 12 * MEGABYTE
    finally:
        tracemalloc.stop()
    # What comes next is read as ever: after an unfinished line, in the block that was open before it.
    last = decoder.feed(b"\ndata: b\n\n")[-1]
    assert last == message("b" if piece.endswith(b"\n") else "a\nb", "1")


@each_case(
    "start, piece",
    [
        pytest.param(b"", b"data: x\n", id="data_lines"),
        pytest.param(b"", b"data\n", id="empty_data_lines"),
        pytest.param(b"", b"id: 1\n", id="ids"),
        pytest.param(b"", b"event: t\n", id="types"),
        pytest.param(b"data: ", b"x" * 8, id="one_data_line"),
        pytest.param(b"id: ", b"x" * 8, id="one_id"),
        pytest.param(b"event:", b"x" * 8, id="one_type"),
        pytest.param(b"retry: ", b"1" * 8, id="one_retry"),
        pytest.param(b"", b": c\ndata: x\n", id="data_between_comments"),
    ],
)
@each_case("pieces_a_chunk", [1, 100, 10_000])
def test_what_is_kept_may_not(start, piece, pieces_a_chunk):
    decoder = Decoder(max_event_size=20_000)
    decoder.feed(start)
    chunks = [piece * pieces_a_chunk] * (20_000 // pieces_a_chunk + 2)
    with pytest.raises(EventTooLarge) as caught:
        deque(map(decoder.feed, chunks), maxlen=0)
    assert caught.value.events == []


def test_an_event_of_fifteen_megabytes_passes_by_default_and_one_of_seventeen_does_not():
    kept = 15 * 2**20
    stream = b"data: " + b"x" * kept + b"\n\n"
    (event,) = decode([stream[i : i + PIECE] for i in range(0, len(stream), PIECE)]).events
    assert event.data is not None
    assert len(event.data) == kept
    assert decode([b"data: ", b"x" * 17 * 2**20]).too_large
    assert decode([b"data: " + b"x" * 17 * 2**20 + b"\n\n"]).too_large


# Work


def seconds(work):
    """The processor time of one run, the least of three."""
    least = float("inf")
    for _ in range(3):
        start = time.process_time()
        work()
        least = min(least, time.process_time() - start)
    return least


def one_line(size):
    chunks = [b"data: ", *[b"x" * 1000] * (size // 1000), b"\n\n"]
    return lambda: decode(chunks)


def short_lines(size):
    chunks = [b"data: x\ndata: y"] + [b"\ndata: x\ndata: y"] * (size // 16) + [b"\n\n"]
    return lambda: decode(chunks)


def one_comment(size):
    chunks = [b":", *[b"x" * 1000] * (size // 1000), b"\n"]
    return lambda: decode(chunks, comments=True)


def cr_lines(size):
    chunks = [b"data: x\r", b"\ndata: x\r\n"] * (size // 18) + [b"\r"]
    return lambda: decode(chunks)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "size"),
    [(one_line, MEGABYTE), (one_comment, MEGABYTE), (short_lines, MEGABYTE // 4), (cr_lines, MEGABYTE // 8)],
)
def test_work_grows_in_step_with_the_input(shape, size):
    # Eight times the input: about eight times the work, and sixty-four times where something is copied over and
    # over. The least of three runs and three attempts: this is no measurement of speed.
    assert any(seconds(shape(8 * size)) < 30 * seconds(shape(size)) for _ in range(3))


@each_case(
    "stream",
    [
        pytest.param((b"data: " + b"x" * 100 + b"\n") * 500 + b"\n", id="long_run"),
        pytest.param((b"data: " + b"x" * 100 + b"\n") * 65 + b"\n", id="run_one_longer_than_a_tile"),
        pytest.param((b"data: " + b"x" * 100 + b"\n") * 60 + b"id: 1\n\n", id="run_and_id"),
        pytest.param(b"data: x\n" + (b"data:" + b"x" * 100 + b"\n") * 60 + b"\n", id="run_without_spaces"),
        pytest.param((b"event: " + b"x" * 100 + b"\n") * 60 + b"\n", id="types"),
        pytest.param((b"id: " + b"x" * 100 + b"\n") * 60 + b"\n", id="ids"),
        pytest.param((b":" + b"x" * 100 + b"\n") * 60 + b"\n", id="comments"),
        pytest.param((b"foo" * 30 + b"\n") * 60 + b"\n", id="unknown_fields"),
    ],
)
def test_no_shape_of_block_costs_many_times_what_its_lines_cost(stream):
    # Once a run of data lines that did not end in a blank line was tried again from each of its lines: a
    # thousand times the work of cutting lines and fields.
    stream *= MEGABYTE // 4 // len(stream)
    assert b"\r" not in stream
    plain = seconds(lambda: [line.partition(":") for line in stream.decode().split("\n")])
    assert any(seconds(lambda: decode([stream])) < 60 * plain for _ in range(3))


@pytest.mark.parametrize(
    "chunk",
    [
        pytest.param(b"data: " + b"x" * 950 + b"\nid: 1\n\n", id="data_and_id"),
        pytest.param(b"data: xxxxxxxx\n" * 60 + b"id: 1\n\n", id="run_and_id"),
        pytest.param(b"data: " + b"x" * 1000, id="unfinished_line"),
        pytest.param(b"data: " + b"x" * 950 + b"\n", id="unfinished_block"),
    ],
)
def test_no_small_chunk_costs_many_times_what_a_usual_one_costs(chunk):
    # A chunk that was matched a whole block and turned out to be none once cost sixteen times as much.
    usual = [b"id: 1\nevent: t\ndata: " + b"x" * 950 + b"\n\n", b"\n"] * 1000
    odd = [chunk, b"\n\n"] * 1000
    assert any(seconds(lambda: decode(odd)) < 8 * seconds(lambda: decode(usual)) for _ in range(3))


def test_pieces_of_the_helper_are_the_stream():
    # The helpers are what the tests above stand on.
    stream = bytes(range(30))
    for chunks in every_cut(stream):
        assert b"".join(chunks) == stream
    assert len(list(every_cut(stream, 30))) == 3 + 29 + sum(range(29))
    assert b"".join(pieces(stream, [5, 40, 5])) == stream
    for raw, text in {b"\xe2\x82": "\ufffd", "é日😀".encode(): "é日😀", b"\xc0\x80": "\ufffd\ufffd"}.items():
        assert whatwg_utf8(raw) == text


def blocks_retries(stream):
    """The reconnection time of each event's own block, by the standard's rules."""
    lines = re.split("\r\n|\r|\n", stream.decode("utf-8", "replace").removeprefix("\ufeff"))[:-1]
    found, retry, data = [], None, False
    for line in lines:
        field, _, value = line.partition(":")
        if not line:
            if data:
                found.append(retry)
            retry, data = None, False
        elif field == "retry" and re.fullmatch("[0-9]+", value.removeprefix(" ")):
            retry = min(int(value.removeprefix(" ")[:4000]), 10**18)
        data = data or field == "data"
    return found


@pytest.mark.parametrize("group", GROUPS)
def test_each_event_has_the_reconnection_time_of_its_block_at_every_cut(group):
    after = b"\n\nretry: 1\ndata: a\n\ndata: b\nretry: 2\n\nid: 1\nretry: 3\nevent: t\ndata: c\ndata: d\n\ndata: e\n\n"
    for stream in streams_of(group):
        expected = blocks_retries(stream + after)
        for chunks in islice(every_cut(stream + after, 0), 20):
            decoder = Decoder(retry_on_events=True)
            decoded = [event for chunk in chunks for event in decoder.feed(chunk)]
            assert [event.retry for event in decoded] == expected, chunks


def test_retries_has_the_positions_of_the_reconnection_times():
    decoder = Decoder()
    assert len(decoder.feed(b"retry: 1\nretry: 2\ndata: a\n\ndata: b\n\nretry: 3\n\n")) == 2
    assert decoder.retries == [(0, 2), (2, 3)]
    decoder.feed(b"data: c\n\n")
    assert decoder.retries == []
