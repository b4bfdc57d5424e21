"""`python -m a2n_video` is the `a2n-video` command."""

import sys

from a2n_video.cli import main

sys.exit(main())
