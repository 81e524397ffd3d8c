"""Upload tickets: built, signed and parsed; nothing but the exact path is accepted."""

from __future__ import annotations

import time
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadSignatureError
from service.images.formats import OriginalFormat
from service.urls.rendition_url import RenditionUrl
from service.urls.signing import Signer
from service.urls.upload_ticket import new_ticket, parse_upload_path

SIGNER = Signer([b"k" * 16])
NOW = int(time.time())


@given(st.integers(1, 86_400), st.integers(1, 2**53 - 1), st.sets(st.sampled_from(get_args(OriginalFormat))))
def test_ticket_is_parsed_from_its_own_path(seconds: int, max_bytes: int, formats: set[OriginalFormat]) -> None:
    ticket = new_ticket(expires=NOW + seconds, max_bytes=max_bytes, formats=formats)
    found, signature = parse_upload_path(SIGNER.sign(ticket).encode())
    assert found == ticket
    assert set(found.formats) == formats
    SIGNER.verify_ticket(found, signature)


@given(st.data())
def test_path_with_any_other_byte_is_refused(data: st.DataObject) -> None:
    path = SIGNER.sign(new_ticket(expires=NOW, max_bytes=20_000_000, formats=["png", "jpeg"])).encode()
    position, byte = data.draw(st.integers(0, len(path) - 1)), data.draw(st.integers(0, 255))
    changed = path[:position] + bytes([byte]) + path[position + 1 :]
    if changed == path:
        return
    with pytest.raises(BadSignatureError):
        SIGNER.verify_ticket(*parse_upload_path(changed))


def test_ticket_of_every_accepted_key_is_accepted() -> None:
    ticket = new_ticket(expires=NOW, max_bytes=1, formats=())
    old = Signer([b"o" * 16]).sign(ticket).encode()
    Signer([b"n" * 16, b"o" * 16]).verify_ticket(*parse_upload_path(old))
    with pytest.raises(BadSignatureError):
        Signer([b"n" * 16]).verify_ticket(*parse_upload_path(old))


def test_tickets_and_renditions_have_no_signing_payload_in_common() -> None:
    assert new_ticket(expires=NOW, max_bytes=1, formats=()).signing_payload.startswith("/v1/uploads/")
    assert RenditionUrl(1, "a" * 32, "full", "jpg").signing_payload.startswith("/i/v1/")


def test_no_two_tickets_have_the_same_id() -> None:
    assert len({new_ticket(expires=NOW, max_bytes=1, formats=()).id for _ in range(1_000)}) == 1_000
