"""The page over HTTP: three files that are the same for all, and requests that only an annotator's page may make.

Everything that reads or changes answers runs in one thread, in the order in which it came; the event loop waits for no disk.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.resources import files as package_files
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.errors import ActiveDPOError, BusyError, StorageError
from activedpo_cli.label.queue import PairAnsweredError
from activedpo_cli.label.sittings import StageLeftError
from activedpo_cli.label.web.access import Access, Person
from activedpo_cli.label.web.desk import Desk, UnknownPairError
from activedpo_cli.label.web.security import Door, TurnedAwayError, body_of, guarded

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

PAGE = {
    "/": ("index.html", "text/html"),
    "/label.js": ("label.js", "text/javascript"),
    "/label.css": ("label.css", "text/css"),
}


class Page:
    """What the server does for requests.

    Args:
        desk: Pairs and answers.
        access: Who may come in.
        door: What requests have to be like.
        changed: Called with how far the answers are.
        failed: Called with what kept an answer from being stored.

    """

    def __init__(
        self,
        desk: Desk,
        access: Access,
        door: Door,
        *,
        changed: Callable[[Mapping[str, Any]], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._desk = desk
        self._access = access
        self._door = door
        self._changed = changed
        self._failed = failed
        self._storing = ThreadPoolExecutor(1, "storing")
        self._looking = ThreadPoolExecutor(1, "looking")

    def close(self) -> None:
        """Wait for what is being stored."""
        self._looking.shutdown(cancel_futures=True)
        self._storing.shutdown()

    async def look_around(self) -> None:
        """See what other commands have done, which pages that are closed do not ask about."""
        try:
            self._changed(await self._in_order(self._desk.look_around))
        except BusyError:
            pass
        except Exception as error:  # whatever keeps it from being read would keep an answer from being stored
            self._failed(error)

    def application(self) -> "ASGIApp":
        """The ASGI application."""
        from starlette.applications import Starlette
        from starlette.routing import Route

        folder = package_files("activedpo_cli.label.web") / "page"
        contents = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in PAGE.items()}

        async def shown(request: "Request") -> "Response":
            from starlette.responses import Response

            body, kind = contents[request.scope["path"]]
            return Response(body, media_type=kind)

        routes = [Route(path, shown, methods=["GET"]) for path in PAGE]
        return guarded(Starlette(routes=[*routes, Route("/api/{what}", self._asked, methods=["POST"])]), self._door)

    async def _asked(self, request: "Request") -> "Response":
        from starlette.requests import ClientDisconnect
        from starlette.responses import JSONResponse, Response

        def refusal(status: int, message: str, **facts: Any) -> "Response":
            # A page gives an answer up for what this server says of it, never for what a proxy between them may say.
            by_whom = {"run": self._access.run_id} if person else {}
            return JSONResponse({"error": message, **by_whom, **facts}, status)

        person: Person | None = None
        try:
            self._door.check_sender(request)
            said = await body_of(request)
            what = request.path_params["what"]
            if what == "enter":
                return await self._enter(request, said)
            person = self._person(request, said)
            return JSONResponse(await self._done(what, person, said))
        except ClientDisconnect:  # a page that was closed or loaded again while it spoke; nobody hears this
            return Response(status_code=400)
        except TurnedAwayError as error:
            return refusal(error.status, error.message, **({"is_stranger": True} if error.is_stranger else {}))
        except PairAnsweredError:
            progress = await self._in_order(partial(self._desk.progress, person))
            return refusal(409, "this pair was answered before", **progress)
        except UnknownPairError as error:
            return refusal(404, error.message)
        except StageLeftError as error:
            self._failed(error)
            return refusal(410, "labelling was ended by another command")
        except Exception as error:  # its own words may name files and pairs, which are for the terminal alone
            self._failed(error)
            return refusal(*_told(error))

    async def _enter(self, request: "Request", said: Mapping[str, Any]) -> "Response":
        """Let somebody in by their token, or by the cookie that they have got for it."""
        from starlette.responses import JSONResponse

        token, name = said.get("token"), said.get("person")
        if isinstance(token, str):
            person = self._access.by_token(token)
        else:
            person = self._access.by_cookies(request.cookies, name if isinstance(name, str) else None)
        if person is None:
            raise TurnedAwayError(403, "this address is not known here", is_stranger=True)
        response = JSONResponse(await self._in_order(partial(self._desk.welcome, person)))
        response.set_cookie(
            person.cookie_name,
            person.cookie,
            path=f"{self._door.prefix}/",
            secure=self._door.is_secure,
            httponly=True,
            samesite="strict",
        )
        return response

    def _person(self, request: "Request", said: Mapping[str, Any]) -> Person:
        name = said.get("person")
        person = self._access.by_cookies(request.cookies, name) if isinstance(name, str) else None
        if person is None:
            raise TurnedAwayError(403, "open the address that you were given once more", is_stranger=True)
        return person

    async def _done(self, what: str, person: Person, said: Mapping[str, Any]) -> dict[str, Any]:
        if what == "look":
            return await asyncio.get_running_loop().run_in_executor(self._looking, self._desk.look, person, said)
        functions = {"next": self._desk.next, "answer": self._desk.answer, "undo": self._desk.undo}
        if what not in functions:
            raise TurnedAwayError(400, "there is nothing of that name")
        found = await self._in_order(partial(functions[what], person, said))
        self._changed(found)
        return found

    async def _in_order(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return await asyncio.get_running_loop().run_in_executor(self._storing, work)


def _told(error: Exception) -> tuple[int, str]:
    """What a page is told of an error that is none of its own, as a status and a sentence."""
    if isinstance(error, BusyError):
        return 503, "another command is at work"
    if isinstance(error, StorageError | OSError):
        return 503, "the disk of the server did not take it"
    if isinstance(error, ActiveDPOError):
        return 503, "the server failed"
    return 500, "there is a fault in the server, tell whoever runs it"
