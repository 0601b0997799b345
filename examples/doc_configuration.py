"""The configuration in a script: reading and changing it, loading a file, the log level.

One should see values of the defaults, then of the file ``doc_execo_conf.py``.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

from execo import configuration, logger
from execo.config import load_configuration

# A script changes it in place.
configuration["kill_timeout"] = 30
print(configuration["kill_timeout"])

# Another file; it must be one that nobody else can write.
with tempfile.TemporaryDirectory() as folder:
    mine = Path(folder) / "conf.py"
    shutil.copyfile(Path(__file__).parent / "doc_execo_conf.py", mine)
    mine.chmod(0o600)
    load_configuration(mine)
print(configuration["kill_timeout"])

# The log level at run time.
logger.setLevel("DETAIL")
print(logging.getLevelName(logger.level))
