"""Masking of secrets in URLs, before they are shown, stored or sent."""

import re
from typing import Any

MASK = "***"

_URL = re.compile(r"[\w.+-]+://[^\s'\"<>]+")
# Anything before the host is a user name, a password or a token.
_USER = re.compile(r"(?<=://)[^/?#]*@")
_PARAMETER = re.compile(r"([?&;])([^=&;#?]*)=([^&;#]*)")
_SECRET_NAME = re.compile(r"sig|token|key|secret|pass|pwd|cred|auth|access|session|policy|code", re.IGNORECASE)
# Minimum length of a signature or token under an unknown parameter name.
_LONG_VALUE = 20


def mask(text: str) -> str:
    """Replace every secret in the URLs of a text by ``***``.

    Secrets are the user and password before the host, and query parameters whose names suggest a secret or whose values
    are long enough to be one. Masking is idempotent.
    """
    return _URL.sub(lambda found: _mask_url(found[0]), text) if "://" in text else text


def is_masked(location: str) -> bool:
    """Return whether a path or URL had a secret masked by `mask`."""
    return f"://{MASK}@" in location or f"={MASK}" in location.partition("?")[2]


def _mask_url(url: str) -> str:
    return _PARAMETER.sub(_mask_parameter, _USER.sub(f"{MASK}@", url))


def _mask_parameter(found: re.Match[str]) -> str:
    separator, name, value = found.groups()
    is_secret = value and (_SECRET_NAME.search(name) or len(value) >= _LONG_VALUE)
    return f"{separator}{name}={MASK if is_secret else value}"


def mask_all(value: Any) -> Any:
    """Mask every string in a nested structure of dictionaries, lists and plain values."""
    if isinstance(value, dict):
        return {name: mask_all(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [mask_all(inner) for inner in value]
    return mask(value) if isinstance(value, str) else value
