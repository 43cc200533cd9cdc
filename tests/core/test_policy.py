from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from scrapy_poolplus.core.policy import Policy, PolicyTable
from scrapy_poolplus.core.policy_fields import (
    FIELDS,
    Kind,
    UnfitError,
    canonical_pattern,
    integer,
    nearest,
    read_policy,
    shown,
)

UNHURRIED = hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no fault of the code."""
LABELS = st.sampled_from(["a", "b", "www", "cdn"])
HOSTS = st.lists(LABELS, min_size=1, max_size=4).map(".".join)


def named(name: str) -> Policy:
    return Policy(name=name)


def table(*patterns: str) -> PolicyTable:
    return PolicyTable(
        default=named("default"),
        exact={p: named(p) for p in patterns if not p.startswith("*.")},
        suffixes={p[2:]: named(p) for p in patterns if p.startswith("*.")},
    )


# ---- kinds of values


@pytest.mark.parametrize(
    ("kind", "allowed", "fits", "unfit"),
    [
        (integer(), "an integer", (-(10**30), 0, 10**30), (True, 1.0, "1", None)),
        (integer(0), "an integer of 0 or more", (0, 10**30), (-1, False)),
        (integer(1, 65_535), "an integer from 1 to 65,535", (1, 65_535), (0, 65_536)),
    ],
)
def test_an_integer_is_within_its_limits_both_included(
    kind: Kind[int], allowed: str, fits: tuple[int, ...], unfit: tuple[object, ...]
) -> None:
    assert kind.allowed == allowed
    assert tuple(kind.parse(value) for value in fits) == fits
    for value in unfit:
        with pytest.raises(UnfitError):
            kind.parse(value)


# ---- which policy a host has


@pytest.mark.parametrize(
    ("host", "pattern"),
    [
        ("www.cdn.example", "www.cdn.example"),
        ("WWW.CDN.example", "www.cdn.example"),
        ("img.cdn.example", "*.cdn.example"),
        ("a.b.cdn.example", "*.cdn.example"),
        ("cdn.example", "*.example"),
        ("shop.example", "*.example"),
        ("example", "default"),
        ("notcdn.example", "*.example"),
        ("cdn.example.org", "default"),
        ("[2001:DB8::0:1]", "2001:db8::1"),
        ("127.0.0.1", "default"),
    ],
)
def test_an_exact_host_beats_the_longest_suffix_which_beats_the_default(host: str, pattern: str) -> None:
    policies = table("*.example", "*.cdn.example", "www.cdn.example", "2001:db8::1")
    assert policies.for_host(host).name == pattern


@UNHURRIED
@given(HOSTS, st.sets(st.tuples(st.booleans(), HOSTS)))
def test_the_policy_of_a_host_is_the_one_a_search_through_all_patterns_finds(
    host: str, patterns: set[tuple[bool, str]]
) -> None:
    written = [f"*.{name}" if suffix else name for suffix, name in patterns]
    matching = [p for p in written if p == host or (p.startswith("*.") and host.endswith(p[1:]))]
    best = max(matching, key=lambda p: (not p.startswith("*."), len(p)), default="default")
    assert table(*written).for_host(host).name == best


# ---- reading a policy


def test_every_key_of_a_policy_can_be_written_and_its_default_is_allowed() -> None:
    policy = Policy()
    assert set(FIELDS) == {field.name for field in fields(policy)} - {"name"}
    for key, kind in FIELDS.items():
        default = getattr(policy, key)
        written = [protocol.value for protocol in default] if key == "protocols" else default
        assert kind.parse(written) == default, key


VALUES = [
    # key, values that are allowed, values that are not
    ("protocols", [["h2"], ["http/1.1", "h2"]], [[], ["h2", "h2"], ["h3"], "h2", None, [["h2"]]]),
    ("max_connections", [None, 1, 10**6], [0, -1, 1.0, "8", True]),
    ("max_streams", [1, 2**31 - 1], [0, 2**31, None, True]),
    ("idle_timeout", [0.5, 90, 1e9], [0, -1.0, None, "90", True, float("nan"), float("inf"), 10**400]),
    ("drain_timeout", [None, 0.1], [0, -1, False]),
    ("connect_timeout", [None, 10], [0, "10"]),
    ("first_byte_timeout", [None, 10], [0, "10"]),
    ("read_timeout", [None, 10], [0, "10"]),
    ("ping_interval", [1], [0, None]),
    ("ping_timeout", [1], [0, None]),
    ("max_requests_per_connection", [None, 1, 10**12], [0, 1.5, 10**12 + 1, 10**400]),
    ("max_connection_age", [None, 0.5], [0, -3]),
    ("max_connection_bytes", [None, 1], [0, 1e6]),
    ("jitter", [0, 0.5, 0.999], [1, -0.1, None, "0.5", True]),
    ("preconnect", [True, False], [None, 1, 0, "True"]),
    ("max_replays", [0, 10], [-1, None, 1.0]),
    ("reclaim_after", [0.1], [0, None]),
    ("stream_window", [65_535, 2**31 - 1], [65_534, 2**31, None]),
    ("connection_window", [65_535, 2**31 - 1], [65_534, 2**31, None]),
    ("max_header_list_size", [1_024, 2**31 - 1], [1_023, 2**31, None]),
    ("resolve_ttl", [None, 0, 60], [-1]),
    ("bind_addresses", [None, [], ["127.0.0.2", "2001:db8::1"]], ["127.0.0.2", ["localhost"], ["127.0.0.2:80"], [1]]),
    ("proxy_user", [None, "u-{session}"], ["", "u", "{user}", "{session}{0}", "{session}:pw", "{session", 5]),
    ("rotation", [None, "off", "relaxed", "balanced", "strict", 1, "30"], ["fast", 0, True, -2, "0", 1.5, {}]),
    ("session_requests", [None, 1], [0, "off"]),
    ("session_age", [1], [0, None]),
    ("session_idle", [1], [0, None]),
    ("follow", ["flows", "always", "never"], ["no", None, True]),
    ("cookies", ["session", "shared", "off"], ["on", None]),
    ("session_cookies", [{}, {"a": "b c"}], [None, {"a": 1}, {1: "a"}, {"a;": "b"}, {"a": "b\r\nX: y"}, [["a", "b"]]]),
    ("referer", ["same-session", "always", "never"], ["no", None]),
    ("retry_after_max", [None, 0, 300], [-1]),
]


def test_the_table_of_values_has_every_key() -> None:
    assert [key for key, _, _ in VALUES] == list(FIELDS)


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, allowed, _ in VALUES for value in allowed])
def test_an_allowed_value_is_taken(key: str, value: object) -> None:
    policy, problems = read_policy("POOLPLUS_POLICY", {key: value}, Policy(), "POOLPLUS_POLICY")
    assert problems == []
    taken = getattr(policy, key)
    if key == "protocols":
        taken = [protocol.value for protocol in taken]
    elif key == "bind_addresses":
        taken, value = list(taken), value or []
    elif value == "30":
        value = 30
    assert taken == value


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, _, wrong in VALUES for value in wrong])
def test_a_value_that_is_not_allowed_is_a_problem_that_names_place_key_value_and_what_is_allowed(
    key: str, value: object
) -> None:
    policy, problems = read_policy("POOLPLUS_POLICY", {key: value}, Policy(), "POOLPLUS_POLICY")
    assert problems == [f'POOLPLUS_POLICY["{key}"] is {shown(value)}; allowed: {FIELDS[key].allowed}']
    assert policy == Policy(), "nothing is corrected: the value before it stands"


@UNHURRIED
@given(st.dictionaries(st.sampled_from(list(FIELDS)), st.from_type(object)))
def test_each_key_of_any_mapping_is_either_taken_or_a_problem(written: dict[str, object]) -> None:
    _, problems = read_policy("X", written, Policy(), "X")
    for key, value in written.items():
        lines = [line for line in problems if line.startswith(f'X["{key}"] ')]
        try:
            FIELDS[key].parse(value)
        except ValueError:
            assert len(lines) == 1
        else:
            assert lines == []


def test_keys_left_out_are_inherited_and_the_policy_has_its_own_name() -> None:
    base = Policy(idle_timeout=5, max_streams=7)
    policy, problems = read_policy("X", {"max_streams": 9, "max_connections": None}, base, "*.cdn.example")
    assert problems == []
    assert policy == Policy(name="*.cdn.example", idle_timeout=5, max_streams=9)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("idle_timout", "idle_timeout"),
        ("max_stream", "max_streams"),
        ("IDLE_TIMEOUT", "idle_timeout"),
        ("IDLE_TIMOUT", "idle_timeout"),
        ("max_requests", "max_requests_per_connection"),
        ("protocol", "protocols"),
    ],
)
def test_an_unknown_key_comes_with_the_nearest_known_one(written: str, meant: str) -> None:
    _, problems = read_policy("POOLPLUS_POLICY", {written: 3}, Policy(), "X")
    assert problems == [f'POOLPLUS_POLICY has no key "{written}" (set to 3); the nearest is "{meant}"']


def test_an_unknown_key_that_is_like_none_comes_with_all_that_are_allowed() -> None:
    _, problems = read_policy("X", {"zzz": 3, 5: 4}, Policy(), "X", ("jitter", "cookies"))
    assert problems == [
        'X has no key "zzz" (set to 3); allowed: "jitter", "cookies"',
        'X has no key "5" (set to 4); allowed: "jitter", "cookies"',
    ]
    assert nearest("zzz", FIELDS) is None


def test_a_policy_that_is_no_mapping_is_a_problem() -> None:
    assert read_policy("X", [1], Policy(), "X")[1] == ["X is [1]; allowed: a dict of policy keys"]


def test_a_long_value_is_cut() -> None:
    _, problems = read_policy("X", {"follow": "y" * 500}, Policy(), "X")
    assert len(problems[0]) < 200
    assert "yyy..." in problems[0]


# ---- patterns


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("Shop.Example", "shop.example"),
        ("*.CDN.example", "*.cdn.example"),
        ("localhost", "localhost"),
        ("foo_bar.example", "foo_bar.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("127.0.0.1", "127.0.0.1"),
        ("[2001:DB8:0::1]", "2001:db8::1"),
        ("2001:db8:0::1", "2001:db8::1"),
    ],
)
def test_a_pattern_has_the_form_of_the_hosts_it_is_compared_with(written: str, canonical: str) -> None:
    assert canonical_pattern(written) == canonical


@pytest.mark.parametrize(
    "written",
    [
        "https://shop.example",
        "shop.example/path",
        "shop.example:443",
        "[::1]:443",
        "user@shop.example",
        "shop.example?x",
        "*",
        "*.",
        "**.example",
        "*.*.example",
        "shop.*.example",
        "*shop.example",
        ".shop.example",
        "shop..example",
        "shop.example.",
        " shop.example",
        "shop.example, b.example",
        "",
        5,
        None,
        ("a", "b"),
        "x" * 64 + "ü.example",
    ],
)
def test_what_is_neither_a_host_nor_a_suffix_is_no_pattern(written: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whoever calls it knows the place and writes the text
        canonical_pattern(written)


@UNHURRIED
@given(st.from_type(object) | st.text())
def test_any_pattern_is_canonical_or_refused(written: object) -> None:
    try:
        canonical = canonical_pattern(written)
    except ValueError:
        return
    assert canonical_pattern(canonical) == canonical
