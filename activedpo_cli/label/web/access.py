"""Who may come in: a token for each annotator, which the page turns into a cookie.

Tokens and the key of everything derived from them lie in the run, readable by this user alone, so that a server that is
started again knows the pages that are open.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.regular_files import read_limited
from activedpo_cli.store.files import write_private
from activedpo_cli.store.lock import waiting
from activedpo_cli.store.run import Run

TOKEN_BYTES = 32
MOST_PEOPLE = 100
LONGEST_NAME = 200


@dataclass(frozen=True, kw_only=True)
class Person:
    """An annotator as the page knows them; `cookie` holds what proves who they are, under `cookie_name`."""

    name: str
    person_id: str
    token: str
    cookie_name: str
    cookie: str


class Access:
    """The people of a run's page.

    Args:
        secret: The key.
        tokens: The token of each person, by name.
        port: The port of last time, None where there was none.

    """

    def __init__(self, secret: bytes, tokens: dict[str, str], port: int | None = None) -> None:
        self._secret = secret
        self._tokens = tokens
        self.port = port
        self.run_id = self.derived("run")[:12]
        self.people = [self._person(name, token) for name, token in tokens.items()]

    def derived(self, *parts: str | bool) -> str:
        """An opaque name for something, the same whenever it is asked for."""
        return hmac.new(self._secret, json.dumps(parts).encode(), hashlib.sha256).hexdigest()[:32]

    def by_token(self, token: str) -> Person | None:
        """Whose token this is."""
        return next((one for one in self.people if _same(one.token, token)), None)

    def by_cookies(self, cookies: dict[str, str], person_id: str | None) -> Person | None:
        """Who of these cookies is meant; without a name the only one there is."""
        found = [one for one in self.people if _same(one.cookie, cookies.get(one.cookie_name, ""))]
        if person_id is not None:
            return next((one for one in found if one.person_id == person_id), None)
        return found[0] if len(found) == 1 else None

    def _person(self, name: str, token: str) -> Person:
        person_id = self.derived("person", name)[:12]
        # Browsers send a cookie to every port of a host: the name keeps runs, and people in one browser, apart.
        return Person(
            name=name,
            person_id=person_id,
            token=token,
            cookie_name=f"activedpo-{self.run_id}-{person_id}",
            cookie=hmac.new(self._secret, f"cookie {token}".encode(), hashlib.sha256).hexdigest(),
        )


def people_named(text: str) -> list[str]:
    """The names in a list with commas between them; raises UsageError where there are none, or one twice."""
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise UsageError("--annotators takes different names with commas between them", hint="--annotators ann,bo")
    if len(names) > MOST_PEOPLE or max(map(len, names)) > LONGEST_NAME:
        raise UsageError(f"--annotators takes at most {MOST_PEOPLE} names of at most {LONGEST_NAME} characters")
    return names


def open_access(run: Run, names: Sequence[str]) -> Access:
    """Access for these people, by the tokens of earlier times where they had one."""
    with _alone(run):
        secret, tokens, port = _kept(_path(run)) or (secrets.token_bytes(TOKEN_BYTES), {}, None)
        known = {name: tokens.get(name) or secrets.token_urlsafe(TOKEN_BYTES) for name in names}
        _keep(_path(run), secret, tokens | known, port)
    return Access(secret, known, port)


def remember_port(run: Run, port: int) -> None:
    """Note where the page was, so that open pages find it there again."""
    with _alone(run):
        kept = _kept(_path(run))
        if kept is not None and kept[2] != port:
            _keep(_path(run), kept[0], kept[1], port)


def _alone(run: Run) -> AbstractContextManager[None]:
    """Keep a second server from writing its tokens over those of this one, or its key over the one that pages know."""
    return waiting(run.lock_path("labelling-page"))


def _path(run: Run) -> Path:
    return run.path / ".private" / "labelling-page.json"


def _keep(path: Path, secret: bytes, tokens: dict[str, str], port: int | None) -> None:
    facts = {"secret": secret.hex(), "tokens": tokens, "port": port}
    write_private(path, json.dumps(facts, indent=2).encode() + b"\n")


def _kept(path: Path) -> tuple[bytes, dict[str, str], int | None] | None:
    if not path.exists():
        return None
    try:
        facts = json.loads(read_limited(path))
        secret, tokens, port = bytes.fromhex(facts["secret"]), dict(facts["tokens"]), facts["port"]
        if len(secret) != TOKEN_BYTES or not all(isinstance(token, str) for token in tokens.values()):
            raise ValueError("it does not hold a key and tokens")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidDataError(
            f"`{path}`, by which annotators are known, can't be read: {error}",
            hint=f"remove it; everybody then gets a new address: rm {path}",
        ) from error
    return secret, tokens, port if isinstance(port, int) else None


def _same(known: str, given: str) -> bool:
    return hmac.compare_digest(known.encode(), given.encode("utf-8", "replace"))
