"""The labels that tie a request to a session, as they travel in ``request.meta``, and how a request gets its own.

What we write into meta are strings, as Scrapy's queues on disk demand. Ids of sessions begin with what is another
prefix in each run, so labels that outlive a run, or that a spider copies along, name nothing they should not.
"""

from __future__ import annotations

import json
from functools import lru_cache
from hashlib import blake2b
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from scrapy.utils.httpobj import urlparse_cached
from tldextract import TLDExtract

from scrapy_poolplus.core.replay import SAFE
from scrapy_poolplus.core.sessions import Claim, Tie

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from scrapy import Request

    from scrapy_poolplus.core.policy import Policy

PREFIX = "_poolplus_"
SESSION = "_poolplus_session"
"""The id of the session in which the request was sent; the handler writes it at each dispatch."""
CLAIM = "_poolplus_claim"
"""What the request asks of the scheduler (core.sessions.Claim); ConnectionRotationMiddleware writes it."""
FLOW = "_poolplus_flow"
"""How the request is in a flow: ``BEGINS``, ``FOLLOWS``, or ``KEPT`` once its session is kept."""
PARENT = "_poolplus_parent"
"""The id of the session that fetched the page whose callback yielded the request."""
PARENT_HOST = "_poolplus_parent_host"
PARENT_FLOW = "_poolplus_parent_flow"
"""``FLOW`` of that page's request."""
PIN = "_poolplus_pin"
"""The label that the request is pinned to, and its descendants will be."""
HELD = "_poolplus_held"
"""The id of a session that waits for this request to be answered."""
HOPS = "_poolplus_hops"
"""Redirects so far, when the request was last labelled: tells a redirect from a retry."""
SAME = "_poolplus_same"
"""The id of the session that ``same_session`` says."""
COOKIES = "_poolplus_cookies"
"""``dont_merge_cookies`` is ours: the jar is the session's (``MERGE``), nothing is sent (``NONE``), or all is left to
the request's own header (``OWN``)."""
VALIDATORS = "_poolplus_validators"
"""What HttpCacheMiddleware put into the request's headers, and was not sent: JSON, value by name."""

BEGINS, FOLLOWS, KEPT = "begins", "follows", "kept"
MERGE, NONE, OWN = "merge", "none", "own"

NEW_SESSION = "new"
"""The value of meta ``poolplus_session`` that asks for a fresh one."""

# From the snapshot that comes with the package: a crawl must not depend on another server for it.
_split = TLDExtract(suffix_list_urls=(), include_psl_private_domains=True)


@lru_cache(maxsize=10_000)
def site_of(host: str) -> str:
    """The registrable domain of a host; an address, or what has none, is its own."""
    parts = _split(host)
    return f"{parts.domain}.{parts.suffix}" if parts.domain and parts.suffix else host


def write_claim(claim: Claim) -> str:
    """The claim as text."""
    return json.dumps(
        [claim.tie.value, claim.session, claim.name, claim.host, claim.far, claim.cause, claim.rotate, claim.bare],
    )


def read_claim(text: str) -> Claim:
    """The claim that `write_claim` wrote."""
    tie, *rest = json.loads(text)
    return Claim(Tie(tie), *rest)


def host_of(request: Request) -> str:
    """The host that the request goes to."""
    return urlparse_cached(request).hostname or ""


def clear(meta: MutableMapping[str, Any]) -> None:
    """Take all labels of ours out of a meta that was copied from another request."""
    for key in [key for key in meta if isinstance(key, str) and key.startswith(PREFIX)]:
        del meta[key]


def label(request: Request, policy: Policy) -> Claim | None:
    """Which session the request asks for, by the first rule that fits; None where its host has no sessions and the
    request names none. Writes ``FLOW``, ``PIN`` and ``HOPS``, and for a ``poolplus_session`` of "new" the label made for
    it, so that what copies the meta along means this one.

    Raises ValueError for a ``poolplus_session`` that is no label.
    """
    meta = request.meta
    carried = meta.pop(SESSION, None)
    pin = _pin(request, policy)
    if pin is not None:
        meta.pop(FLOW, None)
        return Claim(Tie.PIN, name=pin)
    left = "poolplus_session" in meta
    if carried is not None and not left:
        return _goes_on(request, policy, carried)
    meta[HOPS] = str(meta.get("redirect_times", 0))
    parent = None if left else meta.get(PARENT)
    meta.pop(FLOW, None)
    same = meta.get(SAME)
    if same is not None:
        meta[FLOW] = FOLLOWS
        return Claim(Tie.KEPT, same, name="" if policy.rotates else same)
    if meta.get(PARENT_FLOW) == KEPT and parent is not None and policy.follow != "never":
        meta[FLOW] = FOLLOWS
        # Without sessions on the host, what takes the place of one that has ended needs a jar as well.
        return Claim(Tie.KEPT, parent, name="" if policy.rotates else parent)
    if not policy.rotates:
        return None
    return _begins_or_follows(request, policy, parent)


def _pin(request: Request, policy: Policy) -> str | None:
    """The label that the request is pinned to, or None."""
    meta = request.meta
    if "poolplus_session" in meta:
        asked = meta["poolplus_session"]
        if asked is None:
            meta.pop(PIN, None)
            return None
        if not isinstance(asked, str) or not asked:
            raise ValueError(
                f'meta["poolplus_session"] of {request} is {asked!r}; allowed: a label (text), "new", or None to leave '
                "the session of its page"
            )
        if asked == NEW_SESSION:
            asked = meta["poolplus_session"] = f"{NEW_SESSION}-{token_hex(8)}"
        meta[PIN] = asked
        return asked
    inherited: str | None = meta.get(PIN)
    if inherited is not None:
        return inherited
    if policy.rotates and meta.get("cookiejar") is not None:
        return f"cookiejar {meta['cookiejar']!r}"
    return None


def _goes_on(request: Request, policy: Policy, carried: str) -> Claim | None:
    """A redirect or a retry: in its own session, also on another host of the same site."""
    meta = request.meta
    hops = str(meta.get("redirect_times", 0))
    redirected = hops != meta.get(HOPS)
    meta[HOPS] = hops
    if not policy.rotates:
        return Claim(Tie.KEPT, carried, name=carried) if meta.get(FLOW) == KEPT else None
    host = before = host_of(request)
    if redirected and meta.get("redirect_urls"):
        before = urlparse_cached(request.replace(url=meta["redirect_urls"][-1])).hostname or host
    far = site_of(before) != site_of(host)
    cause = "redirect" if redirected else "retry"
    if meta.get(FLOW) in (BEGINS, FOLLOWS, KEPT) and policy.follow != "never":
        return Claim(Tie.FLOW, carried, host=before, far=far, cause=cause)
    return Claim(Tie.OWN, carried, far=far, cause=cause)


def _begins_or_follows(request: Request, policy: Policy, parent: str | None) -> Claim:
    """A request of a host that rotates, which no label names and no page of a flow yielded."""
    meta = request.meta
    if policy.follow == "never":
        return Claim()
    host = host_of(request)
    identity = _identity(request)
    if identity:
        meta[FLOW] = BEGINS
        return Claim(Tie.KEPT, parent, name=f"{site_of(host)} {identity}", host=host)
    if request.method not in SAFE:
        meta[FLOW] = BEGINS
        return Claim(Tie.FLOW, parent, host=host) if parent is not None else Claim()
    if parent is None:
        return Claim()
    if policy.follow == "always":
        meta[FLOW] = FOLLOWS
        return Claim(Tie.KEPT, parent)
    if meta.get(PARENT_FLOW) is not None:
        meta[FLOW] = FOLLOWS
        return Claim(Tie.FLOW, parent, host=meta.get(PARENT_HOST, host), far=True)
    return Claim()


def _identity(request: Request) -> str:
    """What of the request says who asks: its Authorization header and its own cookies. Those that say the same are one
    visitor, whatever we do."""
    authorization = request.headers.get(b"Authorization")
    if authorization is None and not request.cookies:
        return ""
    return _digest(repr(authorization), repr(request.cookies))


def _digest(*texts: str) -> str:
    return blake2b("\n".join(texts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
