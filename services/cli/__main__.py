"""`python -m services.cli`: the `moln` command."""

from services.cli.main import main

main()
