"""Content and transfer codings that can't be decoded here: such a body is refused, not read as text.

urllib3 decodes gzip and deflate, and br and zstd if a package for it is installed. It passes on a body in an unknown
coding unchanged, which is right for values that are no codings (``none``, ``UTF-8``). So only registered codings are
refused.
"""

from __future__ import annotations

from typing import Any

from ..errors import ContentEncodingError
from .interim import status_of

__all__ = ["unsupported_coding"]

# IANA, "HTTP Content Coding Registry", less identity.
_CODINGS = frozenset((
    "aes128gcm", "br", "compress", "dcb", "dcz", "deflate", "exi", "gzip", "pack200-gzip", "x-compress", "x-gzip",
    "zstd",
))  # fmt: skip
# The extra of urllib3 that installs the package.
_EXTRAS = {"br": "brotli", "zstd": "zstd"}


def unsupported_coding(response: Any) -> ContentEncodingError | None:
    """Check whether a response's body can be decoded.

    :param response: the response.
    :return: the error to raise; ``None`` if it can be decoded, has no body or is not read by urllib3.
    """
    known = getattr(getattr(response, "raw", response), "CONTENT_DECODERS", None)
    if known is None or status_of(response) == 204:
        return None
    for coding in _codings(response, "Content-Encoding"):
        if coding in _CODINGS and coding not in known:
            extra = _EXTRAS.get(coding)
            remedy = f"pip install 'urllib3[{extra}]'" if extra else "no package decodes it for requests"
            return ContentEncodingError(
                f"the body is encoded with {coding!r} (Content-Encoding), which can't be decoded here: {remedy}; or "
                "configure the server, or the proxy before it, to respect Accept-Encoding: identity",
                response,
                b"",
            )
    for coding in _codings(response, "Transfer-Encoding"):
        if coding in _CODINGS:
            return ContentEncodingError(
                f"the body is encoded with {coding!r} (Transfer-Encoding), which no package decodes for requests and "
                "which must not be sent without a request for it (RFC 9112, section 7.4): configure the server, or the "
                "proxy before it, to send chunks alone, and to compress by Content-Encoding if at all",
                response,
                b"",
            )
    return None


def _codings(response: Any, header: str) -> list[str]:
    return [coding.strip().lower() for coding in str(response.headers.get(header) or "").split(",")]
