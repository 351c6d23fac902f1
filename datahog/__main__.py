"""Runs the command line when a person types `python -m datahog`."""

import sys
import warnings

# Connexion imports Starlette's test client, which warns about a library that only tests use.
warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")

from datahog.cli import main  # noqa: E402 -- the filter must come before the import

sys.exit(main())
