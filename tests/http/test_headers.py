"""Header fields of responses that need no server."""

from __future__ import annotations

from email import message_from_string
from email.utils import collapse_rfc2231_value

from hypothesis import example, given
from hypothesis import strategies as st

from service.http.headers import content_disposition
from service.images.name import ascii_name, image_name


@given(st.text(max_size=100))
@example("Größe")
@example("写真")
@example("\u202eboat")
@example("ﹰ")
def test_content_disposition_with_any_name_is_read_by_the_parser_of_the_standard_library(text: str) -> None:
    name = image_name(text)
    value = content_disposition(name, "webp")
    parsed = message_from_string(f"Content-Disposition: {value}\n\n")
    assert value.isascii()
    assert parsed.get_content_disposition() == "inline"
    parameters = parsed.get_params([], "content-disposition")[1:]
    assert {key for key, _ in parameters} == {"filename"}
    assert [collapse_rfc2231_value(found) for _, found in parameters] == (
        [f"{name}.webp"] if name.isascii() else [f"{ascii_name(name)}.webp", f"{name}.webp"]
    )


def test_content_disposition_has_the_ascii_name_first() -> None:
    assert content_disposition("panda", "jpg") == 'inline; filename="panda.jpg"'
    assert content_disposition("Größe-1", "avif") == "inline; filename=\"Groe-1.avif\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe-1.avif"
