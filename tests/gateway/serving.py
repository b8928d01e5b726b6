"""`adjoin serve` as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

HERE = Path(__file__).parent


class Process:
    def __init__(self, home: Path, *arguments: str) -> None:
        search = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "adjoin.cli", "serve", "--port", "0", *arguments],
            env=os.environ | {"ADJOIN_HOME": str(home), "PYTHONPATH": search},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        assert line.startswith("serving at "), line
        self.url = line.split()[-1]
        # Whoever logs more than a pipe holds would wait for ever.
        self._log = threading.Thread(target=self.process.stderr.read)
        self._log.start()

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(50)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._log.join(10)
        if self.process.stderr is not None:
            self.process.stderr.close()
