"""What a job does, as spans of OpenTelemetry: a hook over its API alone, which starts nothing.

``pip install 'asyncpipe[otel]'``, then ``Pipeline(…, on_event=TraceHook())``. ``conventions`` has
the names of attributes, by the version of the conventions that they are of.
"""

from asyncpipe.traces.spans import TraceHook

__all__ = ["TraceHook"]
