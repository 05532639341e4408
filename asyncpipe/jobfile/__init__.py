"""Job files: read, validate, expand."""

from asyncpipe.jobfile.load import JobFile, iter_jobs, load_jobs, open_jobs, parse_jobs
from asyncpipe.jobfile.validate import JobRow

__all__ = ["JobFile", "JobRow", "iter_jobs", "load_jobs", "open_jobs", "parse_jobs"]
