"""Job files: read, validate, expand."""

from asyncpipe.jobfile.load import JobFile, load_jobs, parse_jobs
from asyncpipe.jobfile.validate import JobRow

__all__ = ["JobFile", "JobRow", "load_jobs", "parse_jobs"]
