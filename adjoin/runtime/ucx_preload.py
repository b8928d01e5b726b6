"""What Dask imports into the worker of an embedded cluster over UCX before it listens."""

from adjoin.transport.ucx import prepare

prepare(alone=True)
