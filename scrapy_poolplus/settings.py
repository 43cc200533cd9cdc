"""Scrapy settings -> PoolConfig, every problem at once.

`parse` is pure: it takes plain values and returns the configuration and the problems. `read` gathers the values from
Scrapy's settings and raises one ConfigError that lists them all. Nothing is silently corrected.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from os import PathLike, fspath
from typing import TYPE_CHECKING, TypeVar

from scrapy.utils.misc import load_object

from scrapy_poolplus.core.errors import ConfigError
from scrapy_poolplus.core.policy import Policy, PolicyTable
from scrapy_poolplus.core.policy_fields import (
    FIELDS,
    PATTERN,
    PRESETS,
    REQUEST_KEYS,
    ROTATION,
    SESSION_KEYS,
    Kind,
    UnfitError,
    canonical_pattern,
    from_text,
    integer,
    nearest,
    optional,
    read_policy,
    shown,
    unfit,
)

if TYPE_CHECKING:
    from scrapy.settings import BaseSettings

PREFIX = "POOLPLUS_"
KNOWN = (
    "POOLPLUS_ENABLED",
    "POOLPLUS_POLICY",
    "POOLPLUS_DOMAINS",
    "POOLPLUS_MAX_CONNECTIONS",
    "POOLPLUS_ROTATION",
    "POOLPLUS_SEED",
    "POOLPLUS_HAR",
    "POOLPLUS_HAR_BODIES",
    "POOLPLUS_HAR_MASK",
)
"""Every setting of ours."""
OTHERS = ("CONCURRENT_REQUESTS", "DOWNLOAD_BIND_ADDRESS", "HTTP2_MAX_FRAME_SIZE")
"""The settings of Scrapy that are read here too."""

FEWEST_CONNECTIONS = 256
"""The least that POOLPLUS_MAX_CONNECTIONS is where nobody sets it."""
OTHER_DESCRIPTORS = 100
"""Descriptors left for log files, feeds, DNS and the like."""
HANDLER = ("scrapy_poolplus.handler", "PoolPlusDownloadHandler")
ROTATION_MIDDLEWARE = ("scrapy_poolplus.rotation", "ConnectionRotationMiddleware")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """What a crawl's pool is configured to do.

    `max_connections` holds for the whole crawl. `rotates`: at least one domain has rotation on; each policy of the
    table then says by `rotation` what holds for it ("off", a preset or a number), and by `session_requests` how many
    requests that is. `bind` is ``(IP address, port)``. `warnings` are sentences for the log.
    """

    enabled: bool = True
    table: PolicyTable = field(default_factory=PolicyTable)
    max_connections: int = FEWEST_CONNECTIONS
    rotates: bool = False
    seed: int | None = None
    har: str | None = None
    har_bodies: bool = False
    har_mask: bool = True
    bind: tuple[str, int] | None = None
    max_frame_size: int = 16_384
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is outside the values: whether ConnectionRotationMiddleware is listed, whether PoolPlusDownloadHandler
    downloads anything, and how many descriptors the process may have (None: unknown, or no limit)."""

    rotation_listed: bool = False
    handler_listed: bool = True
    descriptors: int | None = None


def read(settings: BaseSettings) -> PoolConfig:
    """The configuration in `settings`. Raises ConfigError with every problem."""
    values = {name: settings[name] for name in settings if name.startswith(PREFIX) or name in OTHERS}
    config, problems = parse(
        values,
        Surroundings(
            rotation_listed=_rotation_listed(settings),
            handler_listed=_handler_listed(settings),
            descriptors=_descriptor_limit(),
        ),
    )
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        listed = "".join(f"\n  {number}. {problem}" for number, problem in enumerate(problems, 1))
        raise ConfigError(f"scrapy-poolplus found {count} in the settings:{listed}", tuple(problems))
    return config


def is_enabled(settings: BaseSettings) -> bool:
    """POOLPLUS_ENABLED; True for a wrong value too, so that `read` comes to tell of it."""
    return _Reader({"POOLPLUS_ENABLED": settings["POOLPLUS_ENABLED"]}).value("POOLPLUS_ENABLED", _ENABLED, True)


def request_policy(policy: Policy, overrides: object) -> Policy:
    """`policy` with what a request's meta ``poolplus_policy`` changes. Raises ValueError that names every problem."""
    changed, problems = read_policy(
        'meta["poolplus_policy"]', overrides, policy, f"poolplus_policy over {policy.name}", REQUEST_KEYS
    )
    if problems:
        raise ValueError("; ".join(problems))
    return changed


# ---- the pure part


def parse(values: Mapping[str, object], around: Surroundings | None = None) -> tuple[PoolConfig, list[str]]:
    """The configuration that `values` (setting to value, None or left out for the default) say, and the problems."""
    around = around or Surroundings()
    reader = _Reader(values)
    concurrency = reader.value("CONCURRENT_REQUESTS", from_text(integer(0)), 16)
    config = PoolConfig(
        enabled=reader.value("POOLPLUS_ENABLED", _ENABLED, True),
        max_connections=max(FEWEST_CONNECTIONS, concurrency),
        bind=reader.value("DOWNLOAD_BIND_ADDRESS", _BIND, None),
        max_frame_size=reader.value("HTTP2_MAX_FRAME_SIZE", from_text(integer(16_384, 16_777_215)), 16_384),
    )
    if not config.enabled:
        return config, reader.problems
    reader.unknown_settings()
    table, rotates = reader.table(around)
    config = replace(
        config,
        table=table,
        rotates=rotates,
        max_connections=reader.value("POOLPLUS_MAX_CONNECTIONS", from_text(integer(1)), config.max_connections),
        seed=reader.value("POOLPLUS_SEED", from_text(optional(integer())), None),
        har=reader.value("POOLPLUS_HAR", _PATH, None),
        har_bodies=reader.value("POOLPLUS_HAR_BODIES", _ENABLED, False),
        har_mask=reader.value("POOLPLUS_HAR_MASK", _ENABLED, True),
    )
    warnings = (*_limit_warnings(config.max_connections, concurrency, around.descriptors), *_user_warnings(table))
    return replace(config, warnings=warnings), reader.problems


class _Reader:
    """Reads one setting after the other and gathers the problems."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self.values = values
        self.problems: list[str] = []

    def value(self, name: str, kind: Kind[T], default: T) -> T:
        """The parsed value of a setting; `default` where it is not set or wrong."""
        value = self.values.get(name)
        if value is None:
            return default
        try:
            return kind.parse(value)
        except ValueError:
            self.problems.append(unfit(name, value, kind.allowed))
            return default

    def mapping(self, name: str) -> Mapping[object, object]:
        """The dict of a setting, which may be written as JSON; empty where it is not set or wrong."""
        value = self.values.get(name)
        if value is None:
            return {}
        if isinstance(value, str):
            try:
                value = json.loads(value, object_pairs_hook=_once_each)
            except (ValueError, RecursionError) as error:
                self.problems.append(f"{name} is {shown(value)}, which cannot be read as JSON: {error}")
                return {}
        if not isinstance(value, Mapping):
            self.problems.append(unfit(name, self.values[name], "a dict, or the same as JSON"))
            return {}
        return value

    def policy(self, place: str, written: object, base: Policy, name: str) -> Policy:
        policy, problems = read_policy(place, written, base, name)
        self.problems += problems
        return policy

    def unknown_settings(self) -> None:
        """Settings with our prefix that there are not: typing errors, or policy keys written as settings."""
        known = {key.upper(): f'POOLPLUS_POLICY = {{"{key}": ...}}' for key in FIELDS}
        known |= {name.removeprefix(PREFIX): name for name in KNOWN}
        for name, value in self.values.items():
            if name.startswith(PREFIX) and name not in KNOWN:
                near = nearest(name.removeprefix(PREFIX), known)
                hint = f"the nearest is {known[near]}" if near else f"allowed: {', '.join(KNOWN)}"
                self.problems.append(f"{name} (set to {shown(value)}) is no setting; {hint}")

    def table(self, around: Surroundings) -> tuple[PolicyTable, bool]:
        """The policies with rotation resolved, and whether one of them rotates."""
        rotation, session = self.rotation(around)
        default = self.policy("POOLPLUS_POLICY", self.mapping("POOLPLUS_POLICY"), session, "POOLPLUS_POLICY")
        exact: dict[str, Policy] = {}
        suffixes: dict[str, Policy] = {}
        for pattern, written in self.mapping("POOLPLUS_DOMAINS").items():
            place = f'POOLPLUS_DOMAINS["{pattern}"]'
            try:
                canonical = canonical_pattern(pattern)
            except ValueError:
                self.problems.append(f"{place} is no pattern of hosts; allowed: {PATTERN}")
                continue
            policy = self.policy(place, written, default, canonical)
            group, key = (suffixes, canonical[2:]) if canonical.startswith("*.") else (exact, canonical)
            if key in group:
                self.problems.append(f'{place} is there twice: another key is "{canonical}" too')
            group[key] = policy
        policies = (default, *exact.values(), *suffixes.values())
        on = [policy for policy in policies if (policy.rotation or rotation) != "off"]
        everywhere = self.values.get("POOLPLUS_ROTATION") is not None
        asked = [policy for policy in on if everywhere or policy.rotation is not None]
        if asked:
            self.needs_of_rotation(asked[0], around)
        table = PolicyTable(
            default=_resolved(default, rotation),
            exact={host: _resolved(policy, rotation) for host, policy in exact.items()},
            suffixes={suffix: _resolved(policy, rotation) for suffix, policy in suffixes.items()},
        )
        return table, bool(on)

    def rotation(self, around: Surroundings) -> tuple[str | int, Policy]:
        """The rotation of domains that name none, and the policy that POOLPLUS_POLICY inherits from: the session keys
        of POOLPLUS_ROTATION where it is a dict."""
        value = self.values.get("POOLPLUS_ROTATION")
        if value is None:
            return ("balanced" if around.rotation_listed else "off"), Policy()
        if not isinstance(value, Mapping) and not (isinstance(value, str) and value.lstrip().startswith("{")):
            return self.value("POOLPLUS_ROTATION", _ROTATION_SETTING, "off"), Policy()
        session, problems = read_policy(
            "POOLPLUS_ROTATION", self.mapping("POOLPLUS_ROTATION"), Policy(), "POOLPLUS_POLICY", SESSION_KEYS
        )
        self.problems += problems
        return "balanced", session

    def needs_of_rotation(self, policy: Policy, around: Surroundings) -> None:
        """Rotation that a setting asks for, for `policy` first, cannot work without our middleware and handler."""
        if policy.rotation is None:
            place = f"POOLPLUS_ROTATION is {shown(self.values['POOLPLUS_ROTATION'])}"
        else:
            where = policy.name if policy.name in KNOWN else f'POOLPLUS_DOMAINS["{policy.name}"]'
            place = f'{where}["rotation"] is {shown(policy.rotation)}'
        if not around.rotation_listed:
            line = f'"{".".join(ROTATION_MIDDLEWARE)}": 690'
            self.problems.append(f"{place}, which needs the middlewares: add {line} to DOWNLOADER_MIDDLEWARES")
        if not around.handler_listed:
            line = f'"https": "{HANDLER[0].partition(".")[0]}.{HANDLER[1]}"'
            self.problems.append(f"{place}, which needs our download handler: add {line} to DOWNLOAD_HANDLERS")


def _resolved(policy: Policy, rotation: str | int) -> Policy:
    """`policy` with its own rotation, else `rotation`, and the requests of a session that it means."""
    own = rotation if policy.rotation is None else policy.rotation
    if own == "off":
        return replace(policy, rotation=own)
    requests = PRESETS[own] if isinstance(own, str) else own
    if policy.session_requests is not None:
        requests = policy.session_requests
    return replace(policy, rotation=own, session_requests=requests)


def _once_each(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object, whose later keys would otherwise replace equal earlier ones without a word."""
    once: dict[str, object] = {}
    for key, value in pairs:
        if key in once:
            raise UnfitError(f'the key "{key}" is there twice')
        once[key] = value
    return once


def _parse_enabled(value: object) -> bool:
    # As Scrapy's getbool(), which turns any other integer into True too.
    words = {"0": False, "1": True, "False": False, "True": True, "false": False, "true": True}
    if str(value) not in words:
        raise UnfitError
    return words[str(value)]


def _parse_path(value: object) -> str:
    if not isinstance(value, str | PathLike):
        raise UnfitError
    path = fspath(value)
    if not path or not isinstance(path, str):
        raise UnfitError
    return path


def _parse_bind(value: object) -> tuple[str, int] | None:
    if value == "":
        return None
    host, port = value if isinstance(value, tuple | list) and len(value) == 2 else (value, 0)
    if not isinstance(host, str):
        raise UnfitError
    return str(ip_address(host)), _PORT.parse(port)


_PORT = integer(0, 65_535)
_PATH: Kind[str | None] = Kind("the path of a file, or None", _parse_path)
_BIND = Kind("an IP address, a tuple of one and a port, or None", _parse_bind)
_ROTATION_SETTING: Kind[str | int] = Kind(f"{ROTATION.allowed}, or a dict of session keys", ROTATION.parse)
_ENABLED = Kind("True or False", _parse_enabled)


def _limit_warnings(most: int, concurrency: int, descriptors: int | None) -> list[str]:
    warnings = []
    if most < concurrency:
        warnings.append(
            f"POOLPLUS_MAX_CONNECTIONS is {most}, under CONCURRENT_REQUESTS, which is {concurrency}: requests may wait "
            "for a connection, and that time counts into their download_timeout."
        )
    if descriptors is not None and most > descriptors - OTHER_DESCRIPTORS:
        warnings.append(
            f"POOLPLUS_MAX_CONNECTIONS is {most}, but this process may open only {descriptors} files, of which about "
            f"{OTHER_DESCRIPTORS} are needed elsewhere: lower it, or raise the limit (ulimit -n)."
        )
    return warnings


def _user_warnings(table: PolicyTable) -> list[str]:
    """Of each proxy_user that no domain with rotation has: those that have it may well have it from POOLPLUS_POLICY."""
    having: dict[str, list[Policy]] = {}
    for policy in (table.default, *table.exact.values(), *table.suffixes.values()):
        if policy.proxy_user is not None:
            having.setdefault(policy.proxy_user, []).append(policy)
    return [
        f'proxy_user of "{policies[0].name}" changes with the session, but rotation is off there: requests go as the '
        "user of the proxy's URL, except those with a label (meta poolplus_session). Set POOLPLUS_ROTATION, or the "
        "domain's rotation."
        for policies in having.values()
        if not any(policy.rotates for policy in policies)
    ]


# ---- what Scrapy's settings and the system say beside the values


def _rotation_listed(settings: BaseSettings) -> bool:
    listed = settings.getdict("DOWNLOADER_MIDDLEWARES")
    return any(is_ours(component, ROTATION_MIDDLEWARE) for component, order in listed.items() if order is not None)


def _handler_listed(settings: BaseSettings) -> bool:
    return bool(schemes_served(settings))


def schemes_served(settings: BaseSettings) -> frozenset[str]:
    """Which of http and https our handler downloads."""
    # Another plugin's handler may fall back to ours: ZYTE_API_FALLBACK_HTTP_HANDLER and the like.
    if any(name.endswith("_HANDLER") and is_ours(settings[name], HANDLER) for name in settings):
        return frozenset({"http", "https"})
    handlers = settings.getwithbase("DOWNLOAD_HANDLERS")
    return frozenset(scheme for scheme in ("http", "https") if is_ours(handlers[scheme], HANDLER))


def is_ours(component: object, ours: tuple[str, str]) -> bool:
    """Whether a component (class or import path) is the class `ours` (module, name) or derived from it."""
    if isinstance(component, str):
        try:
            component = load_object(component)
        except Exception:  # noqa: BLE001 - what cannot be loaded is not ours; Scrapy says so where it matters
            return False
    return isinstance(component, type) and any((base.__module__, base.__name__) == ours for base in component.__mro__)


def _descriptor_limit() -> int | None:
    """How many descriptors this process may have; None: no limit, or a system without one (Windows)."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
