"""Names in URLs, of a real server: from uploads to `Content-Disposition`, and redirects from other names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.http.test_patch import check_problem
from tests.support import images
from tests.support.server import Server, darkroom

IMMUTABLE = "public, max-age=31536000, immutable"
NAME, SPELLED = "Größe-1", "Gr%C3%B6%C3%9Fe-1"
DISPOSITION = f"inline; filename=\"Groe-1.webp\"; filename*=UTF-8''{SPELLED}.webp"

# Each photo has another width, so that it is another image.
_widths = iter(range(330, 639))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with darkroom(tmp_path_factory.mktemp("names"), keys="11" * 32, warm="none") as running:
        yield running


def new_photo() -> bytes:
    return images.photo_jpeg(next(_widths), 60)


def upload(client: httpx.Client, name: str = "") -> dict[str, Any]:
    response = client.post("/v1/images", params={"name": name} if name else {}, content=new_photo())
    assert response.status_code == 201
    document: dict[str, Any] = response.json()
    return document


def start(document: dict[str, Any], transform: str = "width=320", signature: str = "-") -> str:
    return f"/i/v3/{document['digest']}/{transform}/{signature}"


def make_url(client: httpx.Client, document: dict[str, Any], **wanted: object) -> str:
    response = client.post(f"/v1/images/{document['digest']}/urls", json={"format": "webp", **wanted})
    assert response.status_code == 200, response.text
    url: str = response.json()["url"]
    return url


def check_redirect(response: httpx.Response, location: str) -> None:
    assert (response.status_code, response.headers["location"]) == (308, location)
    # Stored, every other name would be an entry of its own.
    assert response.headers["cache-control"] == "no-store"
    assert "hit" not in response.headers["cache-status"]


def rendered(server: Server, document: dict[str, Any]) -> int:
    return sum("rendered" in line and document["digest"] in line for line in server.log().splitlines())


# ---- Where names come from


def test_image_gets_its_name_from_the_query_of_an_upload(client: httpx.Client) -> None:
    assert upload(client, "photos/My Größe 1.JPG")["name"] == "My-Größe-1"
    assert upload(client)["name"] == ""
    assert upload(client, "…")["name"] == ""


@pytest.mark.parametrize(("query", "name"), [("name=%FF%FE.jpg", ""), ("name=a&name=b", "b"), ("name=", ""), ("name", ""), ("nom=a", "")])
def test_upload_with_an_unusual_query_is_stored(client: httpx.Client, query: str, name: str) -> None:
    response = client.post(f"/v1/images?{query}", content=new_photo())
    assert (response.status_code, response.json()["name"]) == (201, name)


def test_image_gets_its_name_from_the_file_name_of_a_form(client: httpx.Client) -> None:
    files = [("file", (name, new_photo())) for name in ("Größe 1.jpg", "写真.jpg", "../boat.jpg", 'a"b.jpg')]
    documents = client.post("/v1/images", files=files).json()["images"]
    assert [document["name"] for document in documents] == ["Größe-1", "写真", "boat", "a-b"]


def test_image_gets_its_name_from_an_upload_url(client: httpx.Client) -> None:
    by_form, by_body = (client.post("/v1/uploads", json={}).json()["url"] for _ in range(2))
    assert client.post(by_form, files={"file": ("Größe 1.jpg", new_photo())}).json()["name"] == NAME
    assert client.put(f"{by_body}?name=boat.jpg", content=new_photo()).json()["name"] == "boat"


def test_stored_image_keeps_its_name_when_the_same_bytes_are_uploaded_again(client: httpx.Client) -> None:
    photo = new_photo()
    assert client.post("/v1/images?name=first.jpg", content=photo).json()["name"] == "first"
    again = client.post("/v1/images?name=second.jpg", content=photo)
    assert (again.status_code, again.json()["name"]) == (200, "first")


def test_patch_sets_and_clears_the_name(client: httpx.Client) -> None:
    document = upload(client, "boat.jpg")
    path = f"/v1/images/{document['digest']}"
    etag = client.get(path).headers["etag"]
    changed = client.patch(path, json={"name": NAME}, headers={"If-Match": etag})
    assert (changed.status_code, changed.json()["name"]) == (200, NAME)
    check_problem(client.patch(path, json={"name": "other"}, headers={"If-Match": etag}), 412, "precondition-failed")
    assert client.patch(path, json={"alt": "A boat"}, headers={"If-Match": "*"}).json()["name"] == NAME
    assert client.patch(path, json={"name": ""}, headers={"If-Match": "*"}).json()["name"] == ""


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("panda.jpg", "Use panda-jpg."),
        ("My photo", "Use My-photo."),
        ("e\u0301", "Use é."),
        ("a\u202eb", "Use a-b."),
        ("../x", "Use x."),
        ("a" * 81, f"Use {'a' * 80}."),
        ("\u0000", "Use letters, digits, - and _."),
        ("😀", "Use letters, digits, - and _."),
    ],
)
def test_text_that_is_no_name_is_refused_with_the_closest_name(client: httpx.Client, name: str, remedy: str) -> None:
    document = upload(client)
    path = f"/v1/images/{document['digest']}"
    for response in (
        client.patch(path, json={"name": name}, headers={"If-Match": "*"}),
        client.post(f"{path}/urls", json={"format": "webp", "name": name}),
    ):
        problem = check_problem(response, 400, "bad-request")
        assert problem["detail"] == "`name` is invalid."
        assert problem["remedy"] == remedy


@pytest.mark.parametrize("body", [b'{"name": "\\ud800"}', b'{"name": 7}', b'{"name": null}', b'{"name": "' + b"a" * 3_000 + b'"}'])
def test_patch_with_a_name_that_is_no_text_is_refused(client: httpx.Client, body: bytes) -> None:
    document = upload(client)
    headers = {"If-Match": "*", "Content-Type": "application/json"}
    check_problem(client.patch(f"/v1/images/{document['digest']}", content=body, headers=headers), 400, "bad-request")


# ---- URLs with names


def test_documents_have_urls_without_names_by_default(client: httpx.Client) -> None:
    document = upload(client, "boat.jpg")
    assert "boat" not in document["picture"] + document["src"]
    assert make_url(client, document, transform={"width": 320}) == f"{start(document)}.webp"


def test_url_with_the_name_of_the_image_needs_no_signature_where_the_one_without_needs_none(client: httpx.Client) -> None:
    document = upload(client, "Größe 1.jpg")
    for name in (True, NAME):
        assert make_url(client, document, transform={"width": 320}, name=name) == f"{start(document)}/{SPELLED}.webp"
    signed = make_url(client, document, transform={"width": 321}, name=True)
    assert signed.endswith(f"/{SPELLED}.webp")
    assert "/-/" not in signed
    assert client.get(signed).headers["content-disposition"] == DISPOSITION
    assert make_url(client, document, transform={"width": 320}, name=False) == f"{start(document)}.webp"
    ladder = client.post(f"/v1/images/{document['digest']}/urls", json={"name": True}).json()
    assert all(link["url"].rpartition("/")[2].startswith(SPELLED) for source in ladder["sources"] for link in source["renditions"])
    assert ladder["src"].endswith(f"/-/{SPELLED}.jpg")


def test_url_with_another_name_is_signed(client: httpx.Client) -> None:
    document = upload(client, "boat.jpg")
    url = make_url(client, document, transform={"width": 320}, name=NAME)
    assert url.endswith(f"/{SPELLED}.webp")
    assert "/-/" not in url
    response = client.get(url)
    assert (response.status_code, response.headers["content-disposition"]) == (200, DISPOSITION)
    # Neither another name nor none belongs to the signature.
    for other in (url.replace(SPELLED, "boat"), url.replace(f"/{SPELLED}", "")):
        check_problem(client.get(other), 403, "bad-signature")


def test_url_with_the_name_of_an_image_without_one_has_none(client: httpx.Client) -> None:
    document = upload(client)
    assert make_url(client, document, transform={"width": 320}, name=True) == f"{start(document)}.webp"


def test_server_with_names_in_urls_puts_them_into_documents(tmp_path: Path) -> None:
    with darkroom(tmp_path, url_names="true", warm="none") as running, running.client() as client:
        document = upload(client, "Größe 1.jpg")
        assert document["src"] == f"{start(document, 'width=640')}/{SPELLED}.jpg"
        links = [link["url"] for source in document["sources"] for link in source["renditions"]]
        assert all(link.rpartition("/")[2].startswith(SPELLED) for link in links)
        assert client.get(document["src"]).headers["content-disposition"].endswith(f"{SPELLED}.jpg")
        assert make_url(client, document, transform={"width": 320}) == f"{start(document)}/{SPELLED}.webp"
        assert make_url(client, document, transform={"width": 320}, name=False) == f"{start(document)}.webp"
        assert upload(client)["src"].endswith("/-.jpg")


def test_rendition_has_its_name_in_content_disposition_and_is_rendered_once(client: httpx.Client, server: Server) -> None:
    document = upload(client, "Größe 1.jpg")
    plain = client.get(f"{start(document)}.webp")
    assert "content-disposition" not in plain.headers
    named = client.get(f"{start(document)}/{SPELLED}.webp")
    assert (named.status_code, named.headers["content-disposition"]) == (200, DISPOSITION)
    assert named.content == plain.content
    for field in ("etag", "cache-control", "cdn-cache-control", "cache-tag", "repr-digest", "content-type"):
        assert named.headers[field] == plain.headers[field]
    signed = client.get(make_url(client, document, transform={"width": 320}, name="other"))
    assert signed.content == plain.content
    assert signed.headers["content-disposition"] == 'inline; filename="other.webp"'
    assert rendered(server, document) == 1


def test_named_rendition_answers_head_ranges_and_conditions(client: httpx.Client) -> None:
    document = upload(client, "boat.jpg")
    url = f"{start(document)}/boat.webp"
    disposition = 'inline; filename="boat.webp"'
    cold = client.head(url)
    assert (cold.status_code, cold.content, cold.headers["content-disposition"]) == (200, b"", disposition)
    whole = client.get(url)
    assert (whole.headers["content-length"], whole.headers["content-disposition"]) == (cold.headers["content-length"], disposition)
    assert "hit" in whole.headers["cache-status"]
    part = client.get(url, headers={"Range": "bytes=0-9"})
    assert (part.status_code, part.content, part.headers["content-disposition"]) == (206, whole.content[:10], disposition)
    assert client.get(url, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304


def test_negotiated_rendition_has_the_extension_of_its_format_in_its_name(client: httpx.Client) -> None:
    document = upload(client, "boat.jpg")
    for accept, extension in (("image/avif", "avif"), ("image/webp", "webp"), ("*/*", "jpg"), ("image/avif", "avif")):
        response = client.get(f"{start(document)}/boat.auto", headers={"Accept": accept})
        assert response.headers["content-disposition"] == f'inline; filename="boat.{extension}"'
        assert response.headers["vary"] == "Accept"


def test_image_that_is_taken_down_is_gone_under_every_name(client: httpx.Client) -> None:
    document = upload(client, "boat.jpg")
    signed = make_url(client, document, transform={"width": 320}, name="other")
    urls = (f"{start(document)}.webp", f"{start(document)}/boat.webp", f"{start(document)}/boat.auto", signed)
    assert [client.get(url).status_code for url in urls] == [200] * 4
    assert client.delete(f"/v1/images/{document['digest']}").status_code == 200
    for url in (*urls, f"{start(document)}/ship.webp"):
        check_problem(client.get(url), 410, "gone")


# ---- Other names, and other spellings


def test_unsigned_url_with_another_name_is_redirected_and_renders_nothing(client: httpx.Client, server: Server) -> None:
    document, nameless = upload(client, "Größe 1.jpg"), upload(client)
    for number in range(20):
        other = quote(f"ship-{number}-é", safe="")
        for extension in ("webp", "auto", "jpg"):
            check_redirect(client.get(f"{start(document)}/{other}.{extension}"), f"{start(document)}/{SPELLED}.{extension}")
            check_redirect(client.get(f"{start(nameless)}/{other}.{extension}"), f"{start(nameless)}.{extension}")
    check_redirect(client.get(f"{start(document)}/ship.webp?x=1"), f"{start(document)}/{SPELLED}.webp")
    check_redirect(client.head(f"{start(document)}/ship.webp"), f"{start(document)}/{SPELLED}.webp")
    assert rendered(server, document) == rendered(server, nameless) == 0


def test_unsigned_url_follows_a_changed_name(client: httpx.Client) -> None:
    document = upload(client, "boat.jpg")
    path = f"/v1/images/{document['digest']}"
    client.patch(path, json={"name": "ship"}, headers={"If-Match": "*"})
    check_redirect(client.get(f"{start(document)}/boat.webp"), f"{start(document)}/ship.webp")
    assert client.get(f"{start(document)}/ship.webp").status_code == 200
    client.patch(path, json={"name": ""}, headers={"If-Match": "*"})
    check_redirect(client.get(f"{start(document)}/boat.webp"), f"{start(document)}.webp")


@pytest.mark.parametrize(
    "spelled",
    ["Gr%c3%b6%c3%9fe-1", "%47r%C3%B6%C3%9Fe-1", "Gr%C3%B6%C3%9Fe%2D1", "Gro%CC%88%C3%9Fe-1", "Gro%cc%88%C3%9fe%2d1"],
)
def test_name_in_another_spelling_is_redirected_to_the_canonical_one(client: httpx.Client, spelled: str) -> None:
    document = upload(client, "Größe 1.jpg")
    check_redirect(client.get(f"{start(document)}/{spelled}.webp"), f"{start(document)}/{SPELLED}.webp")
    signed = make_url(client, document, transform={"width": 100}, name=True)
    check_redirect(client.get(signed.replace(SPELLED, spelled)), signed)
    check_redirect(client.get(signed.replace(SPELLED, spelled) + "?x"), signed)


@pytest.mark.parametrize(
    "name",
    [
        "a.b",
        "boat.jpg",
        "a.",
        ".a",
        "%2e%2e",
        "a%2fb",
        "a%5Cb",
        "%00",
        "a%0d%0ab",
        "%E2%80%AEgpj",
        "%ED%A0%80",
        "%FF",
        "%",
        "a%20b",
        "a" * 81,
    ],
)
def test_url_with_something_else_than_a_name_is_refused(client: httpx.Client, name: str) -> None:
    document = upload(client, "boat.jpg")
    for signature in ("-", "a" * 26):
        response = client.get(f"{start(document, signature=signature)}/{name}.webp")
        check_problem(response, 400, "bad-address")
        assert response.json()["detail"] == "The name at the end of this path is not valid."


def test_transform_that_is_not_open_is_refused_with_the_right_name_too(client: httpx.Client) -> None:
    document = upload(client, "boat.jpg")
    for extension in ("webp", "auto"):
        check_problem(client.get(f"{start(document, 'width=321')}/boat.{extension}"), 403, "bad-signature")
    for name in ("boat", "ship"):
        check_problem(client.get(f"{start(document)}/{name}.png"), 403, "bad-signature")


def test_named_url_of_an_image_that_is_not_here_is_404(client: httpx.Client) -> None:
    check_problem(client.get(f"/i/v3/{'a' * 32}/width=320/-/boat.webp"), 404, "not-found")
