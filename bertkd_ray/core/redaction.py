"""Text for people to see, without the credentials of the URIs in it."""

import re
from typing import Any, TextIO, cast
from urllib.parse import unquote

# A password with blanks, quotes or angle brackets. A number after the colon is a port, with a blank the URI has ended.
_ODD_PASSWORD = re.compile(
    r"""(?<=://)[^\s/?#@:"'<>]*:(?!\s|\d{1,5}(?:[\s"'<>/?#)\],;.]|$))"""
    r"""[^\n@]{0,200}[\s"'<>][^\n]{0,200}?@(?:\S{0,200}@)?(?=[\w.*\[-])"""
)
# A path made of a URI has one slash; a sentence's punctuation is not the URI's.
_AFTER_SCHEME = re.compile(r"(?:(?<=://)|(?<=\w:/)(?!/))[^\s\"'<>]*[^\s\"'<>:;,.)\]}]")
_QUERY_VALUE = re.compile(r"(?<=[?&])([^=&#]+)=([^&#]*)")
_SECRET_VALUE = re.compile(r"[?&#][^=&#]*(?:pass|secret|token|key|sig|cred)[^=&#]*=([^&#]*)", re.IGNORECASE)
_HARMLESS = frozenset({"endpoint_override", "region", "scheme"})  # without them the redacted URI cannot be opened
_SHORTEST_SECRET = 3  # shorter ones are parts of ordinary words
_HIDDEN = "***"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def redacted(text: str, *, secrets_of: str = "") -> str:
    """A text in which no URI shows user, password or the values of its query, but where and how a server is reached.

    secrets_of: a URI whose password, and the values of its query that are secret by name, are hidden wherever they
    stand, as libraries repeat them. Not recognised: secrets outside a URI that nobody has named.
    """
    text = _AFTER_SCHEME.sub(_without_credentials, _ODD_PASSWORD.sub(f"{_HIDDEN}@", text))
    for secret in _secrets(secrets_of):
        text = text.replace(secret, _HIDDEN)
    return text


def has_credentials(text: str) -> bool:
    """Whether a URI of the text has a password, a user but `git`, or a secret in its query; `${…}` is none."""
    text = re.sub(r"\$\{[^}]*\}", "", text).replace("\\/", "/")  # as JSON may write a slash
    uris = _AFTER_SCHEME.findall(text)
    secrets = {of for uri in uris for of in (_credentials(uri).rpartition(":")[2], *_SECRET_VALUE.findall(uri))}
    return _ODD_PASSWORD.search(text) is not None or not secrets <= {"", "git"}


def escape_controls(text: str) -> str:
    """A text whose control characters, which may command a terminal, stand as escapes; line ends and tabs stay."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


def _without_credentials(match: re.Match[str]) -> str:
    credentials = _credentials(match[0])
    rest = _HIDDEN + match[0].removeprefix(credentials) if credentials else match[0]
    uri, mark, fragment = rest.partition("#")
    redacted_uri = _QUERY_VALUE.sub(_without_value, uri)
    # Of a query's value that was not escaped, or a token of its own; a page's place is a path, or a word.
    is_secret = (
        len(fragment) >= _SHORTEST_SECRET and not fragment.startswith("/") and ("=" in fragment or redacted_uri != uri)
    )
    return redacted_uri + mark + (_HIDDEN if is_secret else fragment)


def _without_value(match: re.Match[str]) -> str:
    name, value = match.groups()
    return match[0] if name in _HARMLESS and "@" not in unquote(value) else f"{name}={_HIDDEN}"


def _credentials(rest: str) -> str:
    """Credentials in what follows `://`: all up to an @, beyond a slash too after a colon (an unescaped password)."""
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    return (rest if ":" in authority else authority).rpartition("@")[0]


def _secrets(uri: str) -> list[str]:
    """The secrets of a URI, the longest first, so that none leaves a part of another."""
    secrets = set(_SECRET_VALUE.findall(uri))
    user, _, password = _credentials(uri.partition("://")[2]).partition(":")
    secrets.add(password or user)
    secrets |= {unquote(secret) for secret in secrets}
    return sorted((secret for secret in secrets if len(secret) >= _SHORTEST_SECRET), key=len, reverse=True)


class _RedactedStream:
    """A text stream that shows no credentials of URIs, whoever writes to it: libraries and tracebacks do, too."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes a text as `redacted` has it."""
        self._stream.write(redacted(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def redacted_stream(stream: TextIO) -> TextIO:
    """The stream, whose text is redacted from here on."""
    return stream if isinstance(stream, _RedactedStream) else cast("TextIO", _RedactedStream(stream))
