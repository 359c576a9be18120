"""What the sending actions share: checks of a receiver's URL and headers when the playbook is loaded. No action."""

from __future__ import annotations

import re

from playbooks.delivery import DELIVERY_HEADER, SIGNATURE_HEADER, is_http
from playbooks.references import names_in

_HEADER = re.compile(r"[A-Za-z0-9-]{1,100}")
_RESERVED = {
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    DELIVERY_HEADER.lower(),
    SIGNATURE_HEADER.lower(),
}


def checked_url(url: str) -> str:
    """ValueError unless it is http(s), or begins with a secret: that one is checked when it is sent to."""
    if not (url.startswith("${secret:") and names_in(url)) and not is_http(url):
        raise ValueError("must begin with http:// or https://, or be a secret: ${secret:NAME}")
    return url


def checked_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not _HEADER.fullmatch(name) or name.lower() in _RESERVED:
            raise ValueError(f"{name[:100]!r} cannot be set: letters, digits and hyphens only, and none that we set")
        if not value.isprintable() or not value.isascii():
            raise ValueError(f"the value of {name} must be printable ASCII")
    return headers


def checked_key(key: str) -> str:
    if not names_in(key):
        raise ValueError("must be a secret: ${secret:NAME}; a key in a file that people read is none")
    return key
