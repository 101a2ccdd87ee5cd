#!/usr/bin/env python
"""Checklane's commands. Engines whose URL is not set in the environment are started first (backend/engines)."""

import os
import sys

from django.db import ProgrammingError
from psycopg2.errors import UndefinedColumn, UndefinedTable

from backend.bootstrap import data_dir, prepare_environment
from backend.common.audit import acting
from backend.engines import embedded
from backend.engines.errors import EngineFailed

if __name__ == "__main__":
    os.environ.setdefault("LOG_LEVEL", "WARNING")  # a command speaks for itself; services log from INFO on
    # `engines` starts and stops them itself; who asks for help must not wait for a database.
    asks_for_help = len(sys.argv) == 1 or not {"help", "--help", "-h", "--version"}.isdisjoint(sys.argv)
    waits_for_engines = not asks_for_help and sys.argv[1] != "engines"
    try:
        prepare_environment(start_engines=waits_for_engines)
        from django.core.management import execute_from_command_line

        with acting(" ".join(["command", *sys.argv[1:2]])):
            execute_from_command_line(sys.argv)
    except (EngineFailed, KeyboardInterrupt) as error:
        # The demo stops its engines; until it can, it is done here. Other commands leave them up for the next.
        if sys.argv[1:2] == ["demo"]:
            embedded.down(data_dir())
        sys.exit(f"manage.py: {str(error) or 'interrupted'}")
    except ProgrammingError as error:
        if not isinstance(error.__cause__, UndefinedTable | UndefinedColumn):
            raise
        found = str(error).splitlines()[0]
        sys.exit(
            f"manage.py: the database is empty or an older version's ({found}); run manage.py migrate first"
        )
