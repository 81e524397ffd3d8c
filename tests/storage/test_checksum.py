"""Checksums around derived objects: flipped, cut or foreign bytes are noticed."""

from service.storage import checksum


def test_checksum_of_wrapped_bytes_verifies() -> None:
    for body in (b"", b"bytes", bytes(100_000)):
        assert checksum.verify(checksum.wrap(body)) == body


def test_checksum_of_flipped_cut_or_unwrapped_bytes_does_not_verify() -> None:
    whole = checksum.wrap(b"some bytes of a picture")
    for place in range(len(whole)):
        assert checksum.verify(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]) is None
        assert checksum.verify(whole[:place]) is None
    assert checksum.verify(whole + b"x") is None
    assert checksum.verify(b"some bytes of a picture") is None
