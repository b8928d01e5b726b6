"""Decisions as pure functions over frozen data: no clock, no socket, no Dask."""
