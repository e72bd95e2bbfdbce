"""Text for people to see, without the credentials of the URIs in it."""

import re
from urllib.parse import unquote

_AFTER_SCHEME = re.compile(r"(?<=://)[^\s\"'<>]*[^\s\"'<>:;,.)\]}]")  # a sentence's punctuation is not the URI's
_QUERY_VALUE = re.compile(r"(?<=[?&])([^=&#]+)=([^&#]*)")
_SECRET_VALUE = re.compile(r"[?&]([^=&#]*(?:pass|secret|token|key|sig|cred)[^=&#]*)=([^&#]*)", re.IGNORECASE)
_HARMLESS = frozenset({"endpoint_override", "region", "scheme"})  # without them the URI cannot be opened as it is shown
_SHORTEST_SECRET = 3  # shorter ones are parts of ordinary words
_HIDDEN = "***"


def redacted(text: str, *, secrets_of: str = "") -> str:
    """A text in which no URI shows user, password or the values of its query, but where and how a server is reached.

    secrets_of: a URI whose password, and the values of its query that are secret by name, are hidden wherever they
    stand, as libraries repeat them. Not recognised: secrets outside a URI that nobody has named.
    """
    text = _AFTER_SCHEME.sub(_without_credentials, text)
    for secret in _secrets(secrets_of):
        text = text.replace(secret, _HIDDEN)
    return text


def _without_credentials(match: re.Match[str]) -> str:
    return _QUERY_VALUE.sub(_without_value, _without_user(match[0]))


def _without_value(match: re.Match[str]) -> str:
    name, value = match.groups()
    return match[0] if name in _HARMLESS and "@" not in unquote(value) else f"{name}={_HIDDEN}"


def _without_user(rest: str) -> str:
    """What follows `://`. With a colon before the first slash, all up to the last @ may be of an unescaped password."""
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    if ":" in authority and "@" in rest:
        return f"{_HIDDEN}@{rest.rpartition('@')[2]}"
    if "@" in authority:
        return f"{_HIDDEN}@{authority.rpartition('@')[2]}{rest[len(authority) :]}"
    return rest


def _secrets(uri: str) -> list[str]:
    """The secrets of a URI, the longest first, so that none leaves a part of another."""
    secrets = {secret for _, secret in _SECRET_VALUE.findall(uri)}
    if rest := _AFTER_SCHEME.search(uri):
        user, _, password = rest[0].rpartition("@")[0].partition(":")
        secrets.add(password or user)
    secrets |= {unquote(secret) for secret in secrets}
    return sorted((secret for secret in secrets if len(secret) >= _SHORTEST_SECRET), key=len, reverse=True)
