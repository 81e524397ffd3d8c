from service.images.options import OPTIONS
from service.images.transform import parse
from tests.gallery import EXAMPLES


def test_gallery_shows_every_option() -> None:
    shown = {key for example in EXAMPLES for key in parse(example.transform.format(badge="a" * 32)).options()}
    # A sheet of pictures has a standard dynamic range.
    assert shown == set(OPTIONS) - {"dynamic_range"}
