"""What people, files and services are shown of a URL: everything but the secrets in it."""

import re
from typing import Any

MASK = "***"

_URL = re.compile(r"[\w.+-]+://[^\s'\"<>]+")
# Whatever stands before the host is a user's name, a password, or a token in place of either.
_USER = re.compile(r"(?<=://)[^/?#]*@")
_PARAMETER = re.compile(r"([?&;])([^=&;#?]*)=([^&;#]*)")
_SECRET_NAME = re.compile(r"sig|token|key|secret|pass|pwd|cred|auth|access|session|policy|code", re.IGNORECASE)
# A signature or token under a name that is not known is at least so long.
_LONG_VALUE = 20


def mask(text: str) -> str:
    """A text with every secret in its URLs replaced by ``***``.

    Secrets are the user and password before a host, and in a query the values of parameters that are named like secrets
    or are as long as secrets are. Masking twice changes nothing more.
    """
    return _URL.sub(lambda found: _mask_url(found[0]), text) if "://" in text else text


def is_masked(location: str) -> bool:
    """Whether a path or URL is what `mask` left of one that held a secret."""
    return f"://{MASK}@" in location or f"={MASK}" in location.partition("?")[2]


def _mask_url(url: str) -> str:
    return _PARAMETER.sub(_mask_parameter, _USER.sub(f"{MASK}@", url))


def _mask_parameter(found: re.Match[str]) -> str:
    separator, name, value = found.groups()
    is_secret = value and (_SECRET_NAME.search(name) or len(value) >= _LONG_VALUE)
    return f"{separator}{name}={MASK if is_secret else value}"


def mask_all(value: Any) -> Any:
    """A nest of dictionaries, lists and plain values with every text masked."""
    if isinstance(value, dict):
        return {name: mask_all(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [mask_all(inner) for inner in value]
    return mask(value) if isinstance(value, str) else value
