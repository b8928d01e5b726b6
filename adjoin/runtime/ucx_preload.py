"""What Dask imports into the worker of an embedded cluster over UCX before it listens."""

import os

from adjoin.transport.ucx import prepare

prepare(os.environ, alone=True)
