"""`import _remctl` as with the stock binding: the very module `remctl._remctl`."""

import sys

from remctl import _remctl

sys.modules[__name__] = _remctl
