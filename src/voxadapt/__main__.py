"""`python -m voxadapt`."""

import sys

try:
    from voxadapt.cli.app import main

    main()
except KeyboardInterrupt:  # while the command line itself was being imported
    print("Stopped. Nothing was begun.", file=sys.stderr)
    sys.exit(130)
