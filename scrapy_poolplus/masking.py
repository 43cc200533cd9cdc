"""What must not stand in a file that people pass on: credentials and cookies, wherever HTTP carries them.

Names are kept, values are replaced: which cookies there were is of use, what was in them is not.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

MASK = "[masked]"

_SECRET = re.compile(
    r"auth|token|secret|passw|pwd|api[-_.]?key|access[-_.]?key|credential|session|sessid|csrf|xsrf|signature|^sig$|^sid$|^key$|^code$|jwt",
    re.IGNORECASE,
)
_ADDRESSES = frozenset({"location", "content-location", "referer", "refresh", "link"})
_USERINFO = re.compile(r"(?<=//)[^/?#\s]*@")
_PARAMETER = re.compile(r"([?&;#])([^=&;#\s]+)=([^&;#\s>\"']*)")


def is_secret(name: str) -> bool:
    """Whether a header, a query parameter or a form field of this name carries a credential."""
    return _SECRET.search(unquote_plus(name)) is not None


def masked_url(url: str) -> str:
    """`url` without user and password, and without the values of parameters that are credentials."""
    return _PARAMETER.sub(_parameter, _USERINFO.sub(f"{MASK}@", url))


def masked_header(name: str, value: str) -> str:
    """The value of a header as it may be shown."""
    lowered = name.lower()
    if lowered == "cookie":
        return "; ".join(_cookie(pair) for pair in value.split(";"))
    if lowered == "set-cookie":
        first, *attributes = value.split(";")
        return ";".join([_cookie(first), *attributes])
    if is_secret(name):
        # "Bearer" and the like say how, not who.
        scheme, space, _ = value.partition(" ")
        return f"{scheme} {MASK}" if space and lowered.endswith("authorization") else MASK
    return masked_url(value) if lowered in _ADDRESSES else value


def masked_form(text: str) -> str:
    """The body of a form (application/x-www-form-urlencoded) as it may be shown."""
    return _PARAMETER.sub(_parameter, f"&{text}")[1:]


def _cookie(pair: str) -> str:
    name, equals, _ = pair.strip().partition("=")
    return f"{name}={MASK}" if equals else MASK


def _parameter(match: re.Match[str]) -> str:
    mark, name, value = match.groups()
    return f"{mark}{name}={MASK if value and is_secret(name) else value}"
