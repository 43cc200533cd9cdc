from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scrapy import Request
from scrapy.settings import Settings

from scrapy_poolplus.core.errors import ConfigError
from scrapy_poolplus.core.origin import HttpProtocol
from scrapy_poolplus.core.policy import Policy, PolicyTable
from scrapy_poolplus.settings import (
    KNOWN,
    OTHERS,
    PoolConfig,
    Surroundings,
    _descriptor_limit,
    is_enabled,
    parse,
    read,
    request_policy,
)

UNHURRIED = hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no fault of the code."""
ROTATING = Surroundings(rotation_listed=True)
OURS = {"http": "scrapy_poolplus.PoolPlusDownloadHandler", "https": "scrapy_poolplus.PoolPlusDownloadHandler"}


def config(around: Surroundings | None = None, **values: object) -> PoolConfig:
    parsed, problems = parse(values, around)
    assert problems == []
    return parsed


def problems(around: Surroundings | None = None, **values: object) -> list[str]:
    return parse(values, around)[1]


# ---- single settings


def test_without_settings_everything_has_its_default() -> None:
    assert config() == PoolConfig(
        enabled=True,
        table=PolicyTable(default=Policy(rotation="off")),
        max_connections=256,
        rotates=False,
        seed=None,
        har=None,
        bind=None,
        max_frame_size=16_384,
        warnings=(),
    )


def test_a_setting_that_is_none_is_not_set() -> None:
    assert config(**dict.fromkeys((*KNOWN, *OTHERS))) == config()


ACCEPTED = [
    ("POOLPLUS_ENABLED", True, "enabled", True),
    ("POOLPLUS_ENABLED", "1", "enabled", True),
    ("POOLPLUS_ENABLED", "true", "enabled", True),
    ("POOLPLUS_ENABLED", 0, "enabled", False),
    ("POOLPLUS_ENABLED", "False", "enabled", False),
    ("POOLPLUS_MAX_CONNECTIONS", 30, "max_connections", 30),
    ("POOLPLUS_MAX_CONNECTIONS", "30", "max_connections", 30),
    ("CONCURRENT_REQUESTS", 1000, "max_connections", 1000),
    ("CONCURRENT_REQUESTS", "1000", "max_connections", 1000),
    ("CONCURRENT_REQUESTS", 0, "max_connections", 256),
    ("POOLPLUS_SEED", 7, "seed", 7),
    ("POOLPLUS_SEED", "-7", "seed", -7),
    ("POOLPLUS_HAR", "crawl.har", "har", "crawl.har"),
    ("POOLPLUS_HAR", Path("a") / "crawl.har", "har", str(Path("a") / "crawl.har")),
    ("DOWNLOAD_BIND_ADDRESS", "127.0.0.2", "bind", ("127.0.0.2", 0)),
    ("DOWNLOAD_BIND_ADDRESS", ("127.0.0.2", 4000), "bind", ("127.0.0.2", 4000)),
    ("DOWNLOAD_BIND_ADDRESS", ("2001:DB8::1", 0), "bind", ("2001:db8::1", 0)),
    ("DOWNLOAD_BIND_ADDRESS", "", "bind", None),
    ("HTTP2_MAX_FRAME_SIZE", 16_777_215, "max_frame_size", 16_777_215),
    ("HTTP2_MAX_FRAME_SIZE", "32768", "max_frame_size", 32_768),
]


@pytest.mark.parametrize(("name", "value", "field", "parsed"), ACCEPTED)
def test_a_setting_is_taken_as_python_and_as_the_command_line_write_it(
    name: str, value: object, field: str, parsed: object
) -> None:
    assert getattr(config(**{name: value}), field) == parsed


REFUSED = [
    ("POOLPLUS_ENABLED", "maybe", "True or False"),
    ("POOLPLUS_ENABLED", 2, "True or False"),
    ("POOLPLUS_MAX_CONNECTIONS", 0, "an integer of 1 or more"),
    ("POOLPLUS_MAX_CONNECTIONS", "-1", "an integer of 1 or more"),
    ("POOLPLUS_MAX_CONNECTIONS", True, "an integer of 1 or more"),
    ("POOLPLUS_MAX_CONNECTIONS", 8.0, "an integer of 1 or more"),
    ("POOLPLUS_MAX_CONNECTIONS", "8.0", "an integer of 1 or more"),
    ("POOLPLUS_MAX_CONNECTIONS", "", "an integer of 1 or more"),
    ("CONCURRENT_REQUESTS", "many", "an integer of 0 or more"),
    ("POOLPLUS_SEED", True, "an integer, or None"),
    ("POOLPLUS_SEED", "x", "an integer, or None"),
    ("POOLPLUS_SEED", "9" * 5000, "an integer, or None"),
    ("POOLPLUS_HAR", "", "the path of a file, or None"),
    ("POOLPLUS_HAR", 3, "the path of a file, or None"),
    ("POOLPLUS_POLICY", [], "a dict, or the same as JSON"),
    ("POOLPLUS_POLICY", 3, "a dict, or the same as JSON"),
    ("POOLPLUS_POLICY", "[1]", "a dict, or the same as JSON"),
    ("POOLPLUS_DOMAINS", "5", "a dict, or the same as JSON"),
    ("DOWNLOAD_BIND_ADDRESS", "localhost", "an IP address, a tuple of one and a port, or None"),
    ("DOWNLOAD_BIND_ADDRESS", ("127.0.0.1", 65_536), "an IP address, a tuple of one and a port, or None"),
    ("DOWNLOAD_BIND_ADDRESS", ("127.0.0.1",), "an IP address, a tuple of one and a port, or None"),
    ("DOWNLOAD_BIND_ADDRESS", 2130706433, "an IP address, a tuple of one and a port, or None"),
    ("HTTP2_MAX_FRAME_SIZE", 16_383, "an integer from 16,384 to 16,777,215"),
    ("HTTP2_MAX_FRAME_SIZE", 16_777_216, "an integer from 16,384 to 16,777,215"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), REFUSED)
def test_a_wrong_setting_is_a_problem_that_says_what_is_allowed(name: str, value: object, allowed: str) -> None:
    (problem,) = problems(**{name: value})
    assert problem.startswith(f"{name} is {value!r}"[:70])
    assert problem.endswith(f"; allowed: {allowed}")


# ---- dicts and JSON


def test_dict_settings_may_be_json() -> None:
    policy = {"idle_timeout": 30, "protocols": ["http/1.1"], "max_connections": None}
    domains = {"*.cdn.example": {"max_connections": 2}}
    assert config(POOLPLUS_POLICY=json.dumps(policy), POOLPLUS_DOMAINS=json.dumps(domains)) == config(
        POOLPLUS_POLICY=policy, POOLPLUS_DOMAINS=domains
    )


@pytest.mark.parametrize("name", ["POOLPLUS_POLICY", "POOLPLUS_DOMAINS", "POOLPLUS_ROTATION"])
def test_a_fault_in_json_names_the_setting_and_the_place(name: str) -> None:
    written = '{"a": 3,}'
    problem = problems(ROTATING, **{name: written})[0]
    assert problem.startswith(f"{name} is '{written}', which cannot be read as JSON: ")
    assert "line 1 column 9" in problem or "line 1 column 8" in problem


def test_a_key_that_stands_twice_in_json_is_a_problem() -> None:
    (problem,) = problems(POOLPLUS_POLICY='{"jitter": 0.1, "jitter": 0.2}')
    assert problem.endswith('the key "jitter" is there twice')


def test_json_nested_beyond_reason_is_a_problem() -> None:
    (problem,) = problems(POOLPLUS_POLICY="[" * 200_000)
    assert "cannot be read as JSON" in problem


# ---- domains


def test_a_domain_inherits_the_keys_it_leaves_out_from_the_policy_of_every_domain() -> None:
    table = config(
        POOLPLUS_POLICY={"idle_timeout": 30, "max_connections": 4, "jitter": 0.1},
        POOLPLUS_DOMAINS={
            "Shop.Example": {"max_connections": 8},
            "*.CDN.example": {"max_connections": None, "protocols": ["h2"]},
            "plain.example": {},
        },
    ).table
    shop, cdn, plain = (table.for_host(host) for host in ("shop.example", "a.cdn.example", "plain.example"))
    assert (shop.name, shop.max_connections, shop.idle_timeout, shop.jitter) == ("shop.example", 8, 30.0, 0.1)
    assert (cdn.name, cdn.max_connections, cdn.idle_timeout) == ("*.cdn.example", None, 30.0)
    assert cdn.protocols == (HttpProtocol.HTTP2,)
    assert (plain.name, plain.max_connections) == ("plain.example", 4)
    assert table.for_host("other.example").name == "POOLPLUS_POLICY"


def test_an_exact_host_inherits_nothing_from_a_suffix_that_holds_for_it_too() -> None:
    table = config(
        POOLPLUS_DOMAINS={"*.example": {"max_connections": 2}, "a.example": {"idle_timeout": 5}},
    ).table
    assert table.for_host("a.example").max_connections is None
    assert table.for_host("b.example").max_connections == 2


@pytest.mark.parametrize("host", ["bücher.example", "Foo_Bar.example", "xn--i-7iq.ws", "[2001:db8:0::1]", "127.0.0.1"])
def test_a_pattern_meets_the_host_as_scrapy_writes_it_in_a_request(host: str) -> None:
    table = config(POOLPLUS_DOMAINS={host: {"max_streams": 3}}).table
    found = urlsplit(Request(f"https://{host}/").url).hostname
    assert found is not None
    assert table.for_host(found).max_streams == 3


@pytest.mark.parametrize("pattern", ["https://shop.example", "shop.example:443", "shop.example/", "*", 5])
def test_a_pattern_with_scheme_port_or_path_is_a_problem(pattern: object) -> None:
    (problem,) = problems(POOLPLUS_DOMAINS={pattern: {}})
    assert problem == (
        f'POOLPLUS_DOMAINS["{pattern}"] is no pattern of hosts; allowed: a host ("shop.example") or all hosts below '
        'one ("*.shop.example"), without scheme, port and path'
    )


def test_patterns_that_are_the_same_after_folding_are_a_problem() -> None:
    (problem,) = problems(POOLPLUS_DOMAINS={"shop.example": {}, "SHOP.example": {}, "*.shop.example": {}})
    assert problem == 'POOLPLUS_DOMAINS["SHOP.example"] is there twice: another key is "shop.example" too'


def test_a_domain_whose_value_is_no_dict_is_a_problem() -> None:
    assert problems(POOLPLUS_DOMAINS={"idle_timeout": 5}) == [
        'POOLPLUS_DOMAINS["idle_timeout"] is 5; allowed: a dict of policy keys'
    ]


# ---- names


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("POOLPLUS_DOMAIN", "POOLPLUS_DOMAINS"),
        ("POOLPLUS_POLICIES", "POOLPLUS_POLICY"),
        ("POOLPLUS_MAX_CONECTIONS", "POOLPLUS_MAX_CONNECTIONS"),
        ("POOLPLUS_IDLE_TIMEOUT", 'POOLPLUS_POLICY = {"idle_timeout": ...}'),
        ("POOLPLUS_MAX_STREAM", 'POOLPLUS_POLICY = {"max_streams": ...}'),
    ],
)
def test_an_unknown_setting_is_a_problem_with_the_nearest_known_one(name: str, nearest: str) -> None:
    assert problems(**{name: 3}) == [f"{name} (set to 3) is no setting; the nearest is {nearest}"]


def test_an_unknown_setting_that_is_like_none_comes_with_all_there_are() -> None:
    (problem,) = problems(POOLPLUS_XYZXYZ=None)
    assert problem == f"POOLPLUS_XYZXYZ (set to None) is no setting; allowed: {', '.join(KNOWN)}"


# ---- warnings


def test_fewer_connections_than_concurrent_requests_are_a_warning() -> None:
    (warning,) = config(POOLPLUS_MAX_CONNECTIONS=8, CONCURRENT_REQUESTS=16).warnings
    assert "POOLPLUS_MAX_CONNECTIONS is 8" in warning
    assert "CONCURRENT_REQUESTS, which is 16" in warning
    assert config(POOLPLUS_MAX_CONNECTIONS=16, CONCURRENT_REQUESTS=16).warnings == ()


def test_more_connections_than_descriptors_less_a_hundred_are_a_warning() -> None:
    assert config(Surroundings(descriptors=356)).warnings == ()
    (warning,) = config(Surroundings(descriptors=355)).warnings
    assert "POOLPLUS_MAX_CONNECTIONS is 256" in warning
    assert "355 files" in warning


def test_a_proxy_user_that_no_session_changes_is_a_warning() -> None:
    user = {"proxy_user": "me-{session}"}
    (warning,) = config(POOLPLUS_POLICY=user).warnings
    assert 'proxy_user of "POOLPLUS_POLICY" changes with the session, but rotation is off there' in warning
    (warning,) = config(ROTATING, POOLPLUS_DOMAINS={"*.a.example": user | {"rotation": "off"}}).warnings
    assert 'proxy_user of "*.a.example"' in warning
    assert config(POOLPLUS_POLICY={"proxy_user": None}).warnings == ()


@pytest.mark.parametrize("domain", [{"rotation": "balanced"}, {"rotation": 30}])
def test_a_proxy_user_of_all_domains_wants_rotation_for_one_of_them(domain: dict[str, object]) -> None:
    user = {"proxy_user": "me-{session}"}
    domains = {"a.example": domain, "b.example": {"rotation": "off"}}
    values = {"POOLPLUS_ROTATION": "off", "POOLPLUS_POLICY": user, "POOLPLUS_DOMAINS": domains}
    assert config(ROTATING, **values).warnings == ()
    own = {"b.example": {"rotation": "off", "proxy_user": "other-{session}"}, "a.example": domain}
    (warning,) = config(ROTATING, **{**values, "POOLPLUS_DOMAINS": own}).warnings
    assert 'proxy_user of "b.example"' in warning


def test_the_descriptor_limit_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (300, 4096))
    assert _descriptor_limit() == 300
    (warning,) = read(Settings()).warnings
    assert "300 files" in warning
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert _descriptor_limit() is None


def test_a_system_without_descriptor_limits_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert _descriptor_limit() is None


# ---- switched off


def test_switched_off_the_policy_is_the_default_whatever_else_is_set() -> None:
    values = {"POOLPLUS_POLICY": {"idle_timeout": -1}, "POOLPLUS_DOMAIN": 3, "POOLPLUS_MAX_CONNECTIONS": 3}
    assert config(POOLPLUS_ENABLED=False, **values) == PoolConfig(enabled=False)


@pytest.mark.parametrize(("value", "enabled"), [(None, True), (False, False), ("0", False), ("maybe", True)])
def test_a_wrong_switch_counts_as_on_so_that_its_problem_is_told(value: object, enabled: bool) -> None:
    assert is_enabled(Settings({"POOLPLUS_ENABLED": value})) is enabled


# ---- rotation


@pytest.mark.parametrize(
    ("value", "rotation", "requests"),
    [
        ("off", "off", None),
        ("relaxed", "relaxed", 200),
        ("balanced", "balanced", 50),
        ("strict", "strict", 10),
        (30, 30, 30),
        ("30", 30, 30),
        ({"session_age": 60}, "balanced", 50),
        ({"session_requests": 7, "follow": "always"}, "balanced", 7),
        ('{"session_requests": 7, "follow": "always"}', "balanced", 7),
    ],
)
def test_rotation_is_a_preset_a_number_or_a_dict_of_session_keys(
    value: object, rotation: object, requests: int | None
) -> None:
    found = config(ROTATING, POOLPLUS_ROTATION=value)
    policy = found.table.for_host("a.example")
    assert (policy.rotation, policy.session_requests) == (rotation, requests)
    assert found.rotates is (rotation != "off")
    if "follow" in str(value):
        assert policy.follow == "always"


def test_rotation_is_balanced_where_the_middleware_is_listed_and_off_elsewhere() -> None:
    assert config(ROTATING).table.default.session_requests == 50
    assert config().table.default.session_requests is None


def test_a_domain_has_its_own_rotation() -> None:
    table = config(
        ROTATING,
        POOLPLUS_ROTATION="off",
        POOLPLUS_DOMAINS={"a.example": {"rotation": 20}, "b.example": {"rotation": "strict", "session_requests": 3}},
    ).table
    assert [table.for_host(f"{host}.example").session_requests for host in "abc"] == [20, 3, None]


@pytest.mark.parametrize("value", ["fast", 0, True, "0", 1.5, ["strict"]])
def test_an_unknown_rotation_is_a_problem(value: object) -> None:
    (problem,) = problems(ROTATING, POOLPLUS_ROTATION=value)
    assert problem == (
        f'POOLPLUS_ROTATION is {value!r}; allowed: "off", "relaxed", "balanced", "strict" or an integer from 1 to '
        "1,000,000,000,000, or a dict of session keys"
    )


def test_a_key_of_rotation_that_is_no_session_key_is_a_problem() -> None:
    assert problems(ROTATING, POOLPLUS_ROTATION={"session_request": 3}) == [
        'POOLPLUS_ROTATION has no key "session_request" (set to 3); the nearest is "session_requests"'
    ]
    (problem,) = problems(ROTATING, POOLPLUS_ROTATION={"idle_timeout": 3})
    assert problem.startswith('POOLPLUS_ROTATION has no key "idle_timeout" (set to 3); allowed: "session_requests", ')


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"POOLPLUS_ROTATION": "strict"}, "POOLPLUS_ROTATION is 'strict'"),
        ({"POOLPLUS_ROTATION": {"session_age": 60}}, "POOLPLUS_ROTATION is {'session_age': 60}"),
        ({"POOLPLUS_POLICY": {"rotation": 20}}, 'POOLPLUS_POLICY["rotation"] is 20'),
        ({"POOLPLUS_DOMAINS": {"A.example": {"rotation": 20}}}, 'POOLPLUS_DOMAINS["a.example"]["rotation"] is 20'),
    ],
)
def test_rotation_without_its_middleware_is_a_problem_with_the_line_to_add(values: dict[str, Any], place: str) -> None:
    (problem,) = problems(**values)
    assert problem == (
        f'{place}, which needs the middlewares: add "scrapy_poolplus.rotation.ConnectionRotationMiddleware": 690 to '
        "DOWNLOADER_MIDDLEWARES"
    )


@pytest.mark.parametrize(
    "values",
    [{"POOLPLUS_ROTATION": "strict"}, {"POOLPLUS_DOMAINS": {"a.example": {"rotation": 20}}}],
)
def test_rotation_without_our_handler_is_a_problem_with_the_line_to_add(values: dict[str, Any]) -> None:
    (problem,) = problems(Surroundings(rotation_listed=True, handler_listed=False), **values)
    assert problem.endswith(
        'which needs our download handler: add "https": "scrapy_poolplus.PoolPlusDownloadHandler" to DOWNLOAD_HANDLERS'
    )


def test_rotation_off_needs_nothing() -> None:
    around = Surroundings(rotation_listed=False, handler_listed=False)
    assert problems(around, POOLPLUS_ROTATION="off", POOLPLUS_POLICY={"rotation": "off"}) == []
    assert problems(Surroundings(rotation_listed=True, handler_listed=False)) == []


# ---- Scrapy's settings


def test_all_problems_are_told_at_once_one_a_line() -> None:
    settings = Settings(
        {
            "POOLPLUS_POLICY": {"idle_timeout": -3, "jiter": 0.3},
            "POOLPLUS_DOMAINS": {"https://shop.example": {}, "*.cdn.example": {"max_streams": True}},
            "POOLPLUS_DOMAIN": {},
            "POOLPLUS_SEED": "x",
        }
    )
    with pytest.raises(ConfigError) as raised:
        read(settings)
    assert str(raised.value).split("\n") == [
        "scrapy-poolplus found 6 problems in the settings:",
        *(f"  {number}. {problem}" for number, problem in enumerate(raised.value.problems, 1)),
    ]
    assert sorted(problem.split()[0] for problem in raised.value.problems) == [
        "POOLPLUS_DOMAIN",
        'POOLPLUS_DOMAINS["*.cdn.example"]["max_streams"]',
        'POOLPLUS_DOMAINS["https://shop.example"]',
        "POOLPLUS_POLICY",
        'POOLPLUS_POLICY["idle_timeout"]',
        "POOLPLUS_SEED",
    ]


def test_one_problem_is_one() -> None:
    with pytest.raises(ConfigError, match=r"found 1 problem in the settings:\n  1\. POOLPLUS_SEED is"):
        read(Settings({"POOLPLUS_SEED": "x"}))


def test_the_value_of_the_highest_priority_is_read() -> None:
    settings = Settings({"POOLPLUS_POLICY": {"idle_timeout": 1}, "DOWNLOAD_BIND_ADDRESS": "127.0.0.2"})
    settings.setdict({"POOLPLUS_POLICY": {"idle_timeout": 2}}, priority="spider")
    settings.set("POOLPLUS_POLICY", '{"idle_timeout": 3}', priority="cmdline")
    found = read(settings)
    assert found.table.default.idle_timeout == 3.0
    assert found.bind == ("127.0.0.2", 0)


class Middleware:
    pass


@pytest.fixture
def rotation_room(monkeypatch: pytest.MonkeyPatch) -> type:
    """A room with a middleware of the name that rotation needs."""
    room = ModuleType("scrapy_poolplus.rotation")
    middleware = type("ConnectionRotationMiddleware", (), {"__module__": room.__name__})
    monkeypatch.setattr(room, "ConnectionRotationMiddleware", middleware, raising=False)
    monkeypatch.setattr(room, "Derived", type("Derived", (middleware,), {"__module__": room.__name__}), raising=False)
    monkeypatch.setitem(sys.modules, room.__name__, room)
    return middleware


@pytest.mark.parametrize("name", ["ConnectionRotationMiddleware", "Derived"])
def test_the_middleware_is_found_by_path_by_class_and_when_it_is_derived(rotation_room: type, name: str) -> None:
    component = getattr(sys.modules["scrapy_poolplus.rotation"], name)
    for key in (component, f"scrapy_poolplus.rotation.{name}"):
        settings = Settings({"DOWNLOADER_MIDDLEWARES": {key: 690}, "DOWNLOAD_HANDLERS": OURS})
        assert read(settings).table.default.rotation == "balanced"


def test_a_middleware_that_is_switched_off_or_another_one_does_not_rotate(rotation_room: type) -> None:
    for listed in ({rotation_room: None}, {Middleware: 1}, {"no.such.Middleware": 1}):
        assert not read(Settings({"DOWNLOADER_MIDDLEWARES": listed})).rotates


@pytest.mark.parametrize(
    "handlers",
    [
        {"DOWNLOAD_HANDLERS": {"https": OURS["https"]}},
        {"DOWNLOAD_HANDLERS": {"http": "scrapy_poolplus.handler.PoolPlusDownloadHandler"}},
        {"SOME_FALLBACK_HTTP_HANDLER": OURS["http"]},
    ],
)
def test_rotation_works_with_our_handler_also_behind_another_one(
    rotation_room: type, handlers: dict[str, object]
) -> None:
    settings = Settings({"DOWNLOADER_MIDDLEWARES": {rotation_room: 690}, "POOLPLUS_ROTATION": 20, **handlers})
    assert read(settings).table.default.session_requests == 20


def test_rotation_with_the_stock_handler_is_refused(rotation_room: type) -> None:
    with pytest.raises(ConfigError, match="needs our download handler"):
        read(Settings({"DOWNLOADER_MIDDLEWARES": {rotation_room: 690}, "POOLPLUS_ROTATION": 20}))


# ---- anything at all

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
NAMES = st.sampled_from([*KNOWN, *OTHERS]) | st.text(max_size=5).map("POOLPLUS_".__add__)


@UNHURRIED
@given(st.dictionaries(NAMES, JSON | JSON.map(json.dumps)), st.booleans())
def test_any_settings_give_a_configuration_or_problems_and_never_another_error(
    values: dict[str, object], rotation_listed: bool
) -> None:
    parsed, found = parse(values, Surroundings(rotation_listed=rotation_listed))
    assert parsed.max_connections >= 1
    assert all(isinstance(problem, str) and len(problem) < 2000 for problem in found)


# ---- one request


def test_a_request_may_change_its_own_timeouts_replays_and_protocols() -> None:
    base = Policy(name="*.cdn.example", idle_timeout=7.0, connect_timeout=9.0)
    policy = request_policy(
        base,
        {"connect_timeout": 1, "first_byte_timeout": 2, "read_timeout": None, "max_replays": 0, "protocols": ["h2"]},
    )
    assert policy == Policy(
        name="poolplus_policy over *.cdn.example",
        idle_timeout=7.0,
        connect_timeout=1.0,
        first_byte_timeout=2.0,
        max_replays=0,
        protocols=(HttpProtocol.HTTP2,),
    )


def test_another_key_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match=r'meta\["poolplus_policy"\] has no key "idle_timeout" \(set to 3\)'):
        request_policy(Policy(), {"idle_timeout": 3})


@pytest.mark.parametrize("overrides", [{"connect_timeout": 0}, {"protocols": []}, [], "x", {"max_replays": True}])
def test_a_wrong_override_is_an_error(overrides: object) -> None:
    with pytest.raises(ValueError, match="allowed"):
        request_policy(Policy(), overrides)
