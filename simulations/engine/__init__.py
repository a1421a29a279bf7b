"""The engine: runs Flower ClientApps over our own Grid, in this process or on Ray workers."""

import os

from shoal.common.environment import SEARCHED
from shoal.common.plugins import search_current_directory

if SEARCHED in os.environ:  # in a worker, whose arguments may refer to modules of the user's
    search_current_directory()
