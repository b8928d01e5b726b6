"""What the product claims, measured: one module a question, run as ``python -m benchmarks.NAME``.

Each prints a table; ``--json FILE`` writes ``{"benchmark", "machine", "figures", "peers"}`` too.
"""
