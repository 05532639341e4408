"""What a pipeline does, as numbers for Prometheus: a hook that counts, and starts nothing.

``pip install 'asyncpipe[metrics]'``, then ``Pipeline(…, on_event=PrometheusHook())``.
"""

from asyncpipe.metrics.prometheus import PrometheusHook

__all__ = ["PrometheusHook"]
