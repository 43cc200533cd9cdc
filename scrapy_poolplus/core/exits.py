"""Exits: by which proxy login and from which local address a connection goes, where the policy has them change with the
session.

A key's route is what the request asked for; what is dialled is that route with the session's own login and address in
it. Two sessions never share a connection, so the two can never be mixed.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from ipaddress import ip_address

from scrapy_poolplus.core.origin import Proxy, Route, basic_login
from scrapy_poolplus.core.policy import Policy


def exit_of(route: Route, policy: Policy, session: str | None, turn: int) -> Route:
    """`route` with the exit of a connection of `session`; None: it is in none. `turn` counts the sessions of an origin,
    and connections without one."""
    if policy.proxy_user is not None and session is not None and route.proxy is not None:
        route = replace(route, proxy=_logged_in(route.proxy, policy.proxy_user, session))
    if policy.bind_addresses and route.bind is None:
        first, *other = _turns(policy.bind_addresses, turn)
        route = replace(route, bind=first, bind_other=other[0] if other else None)
    return route


def takes_user(proxy: Proxy) -> bool:
    """Whether a user name can be put into its credentials."""
    return proxy.authorization is None or basic_login(proxy.authorization) is not None


def _logged_in(proxy: Proxy, template: str, session: str) -> Proxy:
    """With the user that `template` says, and the password that the proxy's URL has, which may be none."""
    # Providers cut a user name at its hyphens: the session has to be one word of it.
    user = template.format(session=session.replace("-", "")).encode("utf-8")
    _, _, password = (basic_login(proxy.authorization or b"") or b"").partition(b":")
    return replace(proxy, authorization=b"Basic " + b64encode(user + b":" + password))


def _turns(addresses: tuple[str, ...], turn: int) -> list[tuple[str, int]]:
    """The one whose turn it is; where there are some of the other family too, the one of those whose turn it is."""
    mine = addresses[turn % len(addresses)]
    others = [address for address in addresses if ip_address(address).version != ip_address(mine).version]
    return [(address, 0) for address in (mine, *([others[turn % len(others)]] if others else ()))]
