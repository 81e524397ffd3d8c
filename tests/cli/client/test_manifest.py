"""URLs of a manifest, made absolute."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from service.cli.client.manifest import with_absolute_urls
from service.images.info import ImageInfo
from service.images.transform import Transform
from service.urls.signing import Signer, UrlBuilder
from tests.support.renders import LIMITS

DIGEST = "k5x7q2" + "a" * 26
INFO = ImageInfo("jpeg", 640, 480, 1, alpha=False, needs_full_decode=False)
BASE = "https://img.example.com/pics"


def document(public_url: str, alt: str = "") -> dict[str, Any]:
    """Return the part of an image document for a page, from a server with this public URL."""
    markup = UrlBuilder(Signer([b"0" * 32]), public_url, LIMITS).markup(DIGEST, INFO, Transform(), alt=alt)
    return {
        "src": markup.src,
        "sources": [
            {
                "type": source.type,
                "srcset": source.srcset,
                "renditions": [{"width": link.width, "height": link.height, "url": link.url} for link in source.renditions],
            }
            for source in markup.sources
        ],
        "picture": markup.picture,
    }


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=40))
def test_document_with_absolute_urls_is_that_of_a_server_with_a_public_url(alt: str) -> None:
    assert with_absolute_urls(document("", alt), BASE) == document(BASE, alt)


def test_document_with_absolute_urls_already_is_unchanged() -> None:
    assert with_absolute_urls(document(BASE), "http://127.0.0.1:8080") == document(BASE)
