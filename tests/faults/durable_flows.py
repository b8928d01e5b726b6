"""Functions of the durable runs that are killed; each execution leaves a line in a file."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

import adjoin


def _mark(log: str, line: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{line}\n".encode())
    os.close(file)


@adjoin.function
def first(number: int, log: str) -> int:
    _mark(log, f"first {number}")
    return number * 2


@adjoin.function
def large(number: int, log: str) -> npt.NDArray[np.int64]:
    """More than fits into a message."""
    _mark(log, f"large {number}")
    return np.full(40_000, number, dtype=np.int64)


@adjoin.function
def slow(number: int, seconds: float, log: str) -> int:
    time.sleep(seconds)
    _mark(log, f"slow {number}")
    return number + 1


@adjoin.function
def wait_for(number: int, path: str) -> int:
    while not Path(path).exists():
        time.sleep(0.01)
    return number


@adjoin.function
def total(values: npt.NDArray[np.int64], number: int, waited: int) -> int:
    return int(values.sum()) + number + waited


TEXT = """
apiVersion: adjoin/v1
kind: Workflow
metadata: {name: steps}
spec:
  inputs:
    number: {type: integer}
    log: {type: string}
    seconds: {type: number, default: 0.05}
    path: {type: string}
  stages:
    first:
      uses: "py:durable_flows:first"
      with: {number: "${inputs.number}", log: "${inputs.log}"}
    large: {uses: "py:durable_flows:large", with: {number: "${first}", log: "${inputs.log}"}}
    slow:
      uses: "py:durable_flows:slow"
      with: {number: "${first}", seconds: "${inputs.seconds}", log: "${inputs.log}"}
    waited: {uses: "py:durable_flows:wait_for", with: {number: "${slow}", path: "${inputs.path}"}}
    total:
      uses: "py:durable_flows:total"
      with: {values: "${large}", number: "${first}", waited: "${waited}"}
    said: {uses: generate, with: {prompt: "one two three", model: "fake:", max_tokens: 8}}
  outputs: {result: "${total}", said: "${said}"}
  serve: {concurrency: 64}
"""


def oracle(number: int) -> int:
    doubled = number * 2
    return 40_000 * doubled + doubled + doubled + 1
