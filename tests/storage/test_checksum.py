"""Checksums around derived objects: flipped, cut or foreign bytes are noticed."""

from pathlib import Path

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


def test_file_is_sound_only_if_it_holds_wrapped_bytes_undamaged(tmp_path: Path) -> None:
    path = tmp_path / "object"
    assert not checksum.is_sound(path)
    whole = checksum.wrap(b"some bytes of a picture")
    path.write_bytes(whole)
    assert checksum.is_sound(path)
    for harmed in (b"", b"D", whole[:-1], whole + b"x", whole[:-1] + bytes([whole[-1] ^ 1]), b"E" + whole[1:]):
        path.write_bytes(harmed)
        assert not checksum.is_sound(path)
