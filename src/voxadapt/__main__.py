"""`python -m voxadapt`."""

import sys

try:
    from voxadapt.tools import warm

    warm.hand_over("voxadapt.cli.app", sys.argv[1:])
    from voxadapt.cli.app import main

    main()
except KeyboardInterrupt:  # while the command line itself was being imported
    print("Stopped. Nothing was begun.", file=sys.stderr)
    sys.exit(130)
