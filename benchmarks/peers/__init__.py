"""Peers that benchmarks measure beside adjoin, each a program in an environment of its own.

``make peers`` makes that environment. A program prints one JSON object: figures by name.
"""
