"""Entry point of `activedpo` and `python -m activedpo_cli`: signal handlers first, then the command line."""

import sys

from activedpo_cli.base.errors import InterruptedByUserError
from activedpo_cli.base.garbage import look_seldom
from activedpo_cli.base.hub_code import fetch_no_code
from activedpo_cli.base.threads import prepare
from activedpo_cli.cli.signals import stoppable


def main() -> None:
    """Load the command, which takes a moment, and run it."""
    try:
        with stoppable(for_good=True):
            look_seldom()
            prepare()
            fetch_no_code()
            from activedpo_cli.cli.app import main as run

            run()
    except KeyboardInterrupt as error:
        sys.stderr.write("interrupted: nothing had begun yet\n")
        raise SystemExit(InterruptedByUserError.exit_code) from error


if __name__ == "__main__":
    main()
