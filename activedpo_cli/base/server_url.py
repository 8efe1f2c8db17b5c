"""The address of a server that speaks OpenAI's protocol: what may stand in it, and to whom text and keys may go."""

from urllib.parse import SplitResult, urlsplit

from activedpo_cli.base.loopback import is_loopback

FIRST_FREE_PORT = 1024
"""The first port at which anybody may listen."""


def checked_server_url(value: str) -> str:
    """An address without a slash at its end; raises ValueError for one that is none, or that holds a secret."""
    url = _split(value)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("must be an address such as https://HOST/v1 or http://127.0.0.1:8000/v1")
    if url.username is not None or url.password is not None:
        raise ValueError(
            "holds a name or a password; a key is given in a variable that label.judge.api_key_env, or "
            "generate.server_api_key_env, names"
        )
    if url.query or url.fragment:
        raise ValueError("may have neither `?` nor `#`")
    return value.rstrip("/")


def checked_base_url(value: str) -> str:
    """The address of a judge; raises ValueError for one under which nobody can be asked safely.

    Prompts, responses and the key go there. Over plain http anybody on the way can read them, and answer in the judge's
    place, so that http is for this machine alone.
    """
    checked, url = checked_server_url(value), _split(value)
    if crosses_network_unencrypted(value):
        there = _port(url) or 80
        here = there if there >= FIRST_FREE_PORT else 8000
        raise ValueError(
            "is plain http to another machine, where anybody on the way can read and change what is said; use https, or a "
            f"tunnel: `ssh -L {here}:127.0.0.1:{there} {url.hostname}` and http://127.0.0.1:{here}{url.path.rstrip('/')}"
        )
    return checked


def crosses_network_unencrypted(url: str) -> bool:
    """Whether what is sent to an address leaves this machine by plain http."""
    return _split(url).scheme == "http" and not is_on_this_machine(url)


def is_on_this_machine(base_url: str) -> bool:
    """Whether an address is one of this machine, whatever a name server says."""
    return is_loopback((_split(base_url).hostname or "").removesuffix("."))


def _split(value: str) -> SplitResult:
    if value != value.strip() or any(character.isspace() for character in value):
        raise ValueError("must be an address without spaces")
    url = urlsplit(value)
    _port(url)
    return url


def _port(url: SplitResult) -> int | None:
    """The port; raises ValueError for one that is none, as `urlsplit` itself does not."""
    return url.port
