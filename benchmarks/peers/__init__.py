"""Peers that benchmarks measure beside adjoin, each a program in an environment of its own.

``make peers`` makes that environment. A program prints one JSON object: the
package, its version and settings, and figures by name; with ``--quick`` it ends within seconds.
"""
