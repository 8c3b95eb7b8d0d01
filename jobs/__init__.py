"""The commands of the project, one per module: ``python -m jobs.VERB``. Start with ``python -m jobs.demo``.

Each parses its arguments, calls ``detector_core`` on Ray and prints one JSON object as its last line.
"""

from jobs.common import loopback, ray_environment

ray_environment.prepare()  # before anything imports Ray
loopback.exempt_from_proxies()
