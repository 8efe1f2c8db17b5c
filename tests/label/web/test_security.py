"""What a request has to be like: that of the page is answered, and the same with one thing wrong is not."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from label_page import Served, plain_questions, served

from activedpo_cli.base.errors import UsageError
from activedpo_cli.label.web.access import Access
from activedpo_cli.label.web.security import HEADERS, LARGEST_BODY, door_for

OTHER_RUN = Access(b"\2" * 32, {"ann": "token-of-ann-" + "x" * 32})


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("page"), plain_questions(5), "ann", "bo") as found:
        yield found


def next_pair(page: Served, **headers: str | None):
    return page.ask("next", {"person": page.person()}, **({"Cookie": page.cookie()} | headers))


def test_the_request_of_the_page_is_answered(page: Served) -> None:
    status, found = next_pair(page)
    assert status == 200
    assert found["pair"]["prompt"] == "prompt 1"
    assert next_pair(page, Host="localhost:9", Origin="http://localhost:9")[0] == 200, "as through a tunnel"
    assert next_pair(page, Host="[::1]:9", Origin="http://[::1]:9")[0] == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"Host": "evil.example"}, 400, id="Host"),
        pytest.param({"Host": "127.0.0.1.evil.example"}, 400, id="Host that begins like ours"),
        pytest.param({"Host": "evil.example", "Origin": "http://evil.example"}, 400, id="a name bound to this machine"),
        pytest.param({"Host": "[::1"}, 400, id="half a Host"),
        pytest.param({"Host": ""}, 400, id="empty Host"),
        pytest.param({"Origin": "https://evil.example"}, 403, id="Origin"),
        pytest.param({"Origin": None}, 403, id="no Origin"),
        pytest.param({"Origin": "null"}, 403, id="Origin null"),
        pytest.param({"Origin": "http://127.0.0.1:1"}, 403, id="other port"),
        pytest.param({"Origin": "http://127.0.0.1"}, 403, id="no port"),
        pytest.param({"Sec-Fetch-Site": "same-site"}, 403, id="Sec-Fetch-Site of another port"),
        pytest.param({"Sec-Fetch-Site": "cross-site"}, 403, id="Sec-Fetch-Site of elsewhere"),
        pytest.param({"Sec-Fetch-Site": None}, 403, id="no Sec-Fetch-Site"),
        pytest.param({"Content-Type": "text/plain"}, 400, id="content type of a form"),
        pytest.param({"Content-Type": "application/x-www-form-urlencoded"}, 400, id="content type"),
        pytest.param({"Content-Type": None}, 400, id="no content type"),
        pytest.param({"Cookie": None}, 403, id="no cookie"),
        pytest.param(
            {"Cookie": f"{OTHER_RUN.people[0].cookie_name}={OTHER_RUN.people[0].cookie}"},
            403,
            id="cookie of another run",
        ),
    ],
)
def test_one_thing_wrong(page: Served, headers: dict[str, str | None], status: int) -> None:
    found, said = next_pair(page, **headers)
    assert found == status
    assert "prompt" not in json.dumps(said)


def test_cookies_of_others(page: Served) -> None:
    ann, bo = page.access.people
    assert next_pair(page, Cookie=page.cookie("bo"))[0] == 403, "another person's"
    assert next_pair(page, Cookie=f"{ann.cookie_name}={bo.cookie}")[0] == 403, "another person's value"
    assert next_pair(page, Cookie=f"{ann.cookie_name}={OTHER_RUN.people[0].cookie}")[0] == 403, "another run's value"
    both = f"{page.cookie('ann')}; {page.cookie('bo')}"
    assert next_pair(page, Cookie=both)[1]["pair"]["prompt"] == "prompt 1", "who is meant says the request"


@pytest.mark.parametrize("token", ["", "x", "token-of-ann-", "é", "token-of-cy-" + "x" * 32])
def test_a_wrong_token(page: Served, token: str) -> None:
    assert page.ask("enter", {"token": token})[0] == 403
    assert page.ask("enter", {})[0] == 403


def test_a_token_becomes_a_cookie_that_scripts_and_other_sites_do_not_get(page: Served) -> None:
    headers = {
        "Host": f"127.0.0.1:{page.port}",
        "Origin": f"http://127.0.0.1:{page.port}",
        "Sec-Fetch-Site": "same-origin",
        "Content-Type": "application/json",
    }
    status, found, body = page.request(
        "POST", "/api/enter", json.dumps({"token": page.token()}).encode(), dict(headers)
    )
    assert status == 200
    name, _, rest = found["set-cookie"].partition("=")
    assert page.access.run_id in name
    assert {part.strip() for part in rest.lower().split(";")} >= {"httponly", "samesite=strict", "path=/"}
    assert page.token() not in found["set-cookie"]
    assert page.token().encode() not in body
    cookie = f"{name}={rest.partition(';')[0]}"
    assert page.ask("enter", {}, Cookie=cookie)[1]["name"] == "ann", "a page that is loaded again"
    assert page.ask("enter", {}, Cookie=f"{cookie}; {page.cookie('bo')}")[0] == 403, "two people in one browser"


@pytest.mark.parametrize("length", [LARGEST_BODY + 1, 10 * LARGEST_BODY])
def test_a_large_body(page: Served, length: int) -> None:
    body = b'{"person": "' + b"x" * (length - 14) + b'"}'
    assert page.ask("next", {}, body=body, Cookie=page.cookie())[0] == 400
    assert page.ask("next", {}, body=b"", Content_Length=str(length), Cookie=page.cookie())[0] == 400, "said beforehand"


def test_a_large_body_in_pieces(page: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=60)
    headers = {
        "Origin": f"http://127.0.0.1:{page.port}",
        "Sec-Fetch-Site": "same-origin",
        "Content-Type": "application/json",
        "Cookie": page.cookie(),
    }
    pieces = (b" " * 8192 for _ in range(9))
    connection.request("POST", "/api/next", body=pieces, headers=headers, encode_chunked=True)
    assert connection.getresponse().status == 400
    connection.close()


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"1", b"{", b"\xff", b"[" * 50_000, b'{"person": 1e999}', b'{"person": ' + b"9" * 9000 + b"}"],
)
def test_a_body_that_is_no_request(page: Served, body: bytes) -> None:
    assert page.ask("next", {}, body=body, Cookie=page.cookie())[0] in (400, 403)


@pytest.mark.parametrize("path", ["/", "/label.js", "/label.css", "/nothing", "/api/next", "/../access.py", "/api/x/y"])
def test_headers_of_every_response(page: Served, path: str) -> None:
    status, found, _ = page.request("GET", path, None, {"Host": f"127.0.0.1:{page.port}"})
    assert status == (200 if path in ("/", "/label.js", "/label.css") else 405 if path == "/api/next" else 404)
    assert {name.lower(): value for name, value in HEADERS.items()}.items() <= found.items()
    assert "server" not in found
    refused = page.request("GET", path, None, {"Host": "evil.example"})
    assert refused[0] == 400
    assert refused[1]["content-security-policy"] == found["content-security-policy"]


def test_the_policy_lets_nothing_in_from_elsewhere() -> None:
    policy = dict(part.strip().split(" ", 1) for part in HEADERS["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert HEADERS["X-Content-Type-Options"] == "nosniff"
    assert HEADERS["Referrer-Policy"] == "no-referrer"
    assert HEADERS["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Labels.example:443/a", "https://labels.example"),
        ("https://labels.example:8443", "https://labels.example:8443"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
    ],
)
def test_the_origin_is_spelled_as_browsers_spell_it(url: str, origin: str) -> None:
    public = door_for("127.0.0.1", url).public
    assert public is not None
    assert f"{public.scheme}://{public.netloc}" == origin


def test_behind_a_proxy(tmp_path: Path) -> None:
    door = door_for("127.0.0.1", "https://Labels.example/team/")
    public = {"Host": "labels.example", "Origin": "https://labels.example"}
    with served(tmp_path, plain_questions(2), door=door) as page:
        for host in ("labels.example", f"127.0.0.1:{page.port}"):  # a proxy passes the name on, or does not
            assert next_pair(page, Host=host, Origin="https://labels.example")[0] == 200
        assert next_pair(page)[0] == 403, "not through the proxy"
        assert next_pair(page, Host="evil.example", Origin="https://labels.example")[0] == 400
        assert next_pair(page, X_Forwarded_Host="evil.example", **public)[0] == 200
        assert next_pair(page, X_Forwarded_Proto="https", X_Forwarded_Host="labels.example")[0] == 403, "not believed"
        body = json.dumps({"token": page.token()}).encode()
        whole = {**public, "Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}
        for path in ("/api/enter", "/team/api/enter"):  # a proxy takes the path off, or does not
            status, found, _ = page.request("POST", path, body, dict(whole))
            assert status == 200
            assert {"secure", "path=/team/"} <= {part.strip().lower() for part in found["set-cookie"].split(";")}
        assert page.request("GET", "/team/", None, {"Host": "labels.example"})[0] == 200
        status, found, _ = page.request("GET", "/team", None, {"Host": "labels.example"})
        assert (status, found["location"]) == (308, "/team/"), "else its files would be looked for at /"
        assert found["content-security-policy"]
        assert page.request("GET", "/teams/", None, {"Host": "labels.example"})[0] == 404


@pytest.mark.parametrize(
    ("host", "url", "is_allowed"),
    [
        ("127.0.0.1", None, True),
        ("::1", None, True),
        ("localhost", None, True),
        ("127.0.0.1", "https://x.org/y", True),
        ("0.0.0.0", "https://x.org", True),
        ("127.0.0.1", "http://localhost:8000", True),
        ("0.0.0.0", None, False),
        ("192.168.1.2", None, False),
        ("my-host", None, False),
        ("", None, False),
        ("127.0.0.1", "http://x.org", False),
        ("0.0.0.0", "http://localhost", False),
        ("127.0.0.1", "x.org/y", False),
        ("127.0.0.1", "https://", False),
        ("127.0.0.1", "https://x.org/?a=b", False),
        ("127.0.0.1", "https://ann@x.org/", False),
        ("127.0.0.1", "https://x.org:99999/", False),
        ("127.0.0.1", "https://[2001:db8::1]:8443/a.b/c_d~e", True),
        ("127.0.0.1", "https://x.org/bücher", False),
        ("127.0.0.1", "https://x.org/a%20b", False),
        ("127.0.0.1", "https://x.org/a;b", False),
        ("127.0.0.1", "https://x.org//a", False),
        ("127.0.0.1", "https://x.org/a/../b", False),
        ("127.0.0.1", "ftp://x.org", False),
    ],
)
def test_plain_http_stays_on_this_machine(host: str, url: str | None, is_allowed: bool) -> None:
    if is_allowed:
        door_for(host, url)
    else:
        with pytest.raises(UsageError):
            door_for(host, url)
