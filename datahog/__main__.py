"""Makes `python -m datahog` the command line."""

import sys
import warnings

# Connexion imports Starlette's test client, which warns about a library that only tests would use.
warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")

from datahog.cli import main  # noqa: E402 -- the filter must be there before the import

sys.exit(main())
