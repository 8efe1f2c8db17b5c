"""`python -m activedpo_cli` is the `activedpo` command."""

from activedpo_cli.cli.app import main

if __name__ == "__main__":
    main()
