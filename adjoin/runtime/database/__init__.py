"""What the service keeps: SQLite in a file, or PostgreSQL by URL.

:class:`Database` is the seam: writes are gathered into transactions by one thread, and a write has
returned when it is on the disk. Tables are in :mod:`.tables`, their history in ``migrations/``.
"""

from adjoin.runtime.database.database import Database, Work
from adjoin.runtime.database.opening import database_url, open_database, open_file, state_path

__all__ = ["Database", "Work", "database_url", "open_database", "open_file", "state_path"]
