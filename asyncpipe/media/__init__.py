"""Files of media: recognise, take in, download, keep parts.

``Downloader`` brings outputs to disk whole or not at all, ``BucketStore`` into a bucket: each is a
``Store``. ``LocalFiles`` takes in what jobs name; ``DiskSpace`` watches the free space of the disk.
"""

from asyncpipe.media.borrow import RemoteFile
from asyncpipe.media.disk import GIB, DiskSpace
from asyncpipe.media.downloader import Downloader
from asyncpipe.media.formats import media_type
from asyncpipe.media.local import BadInputs, LocalFiles, trouble_with
from asyncpipe.media.parts import stands
from asyncpipe.media.source import StoredFile, Target

__all__ = [
    "GIB",
    "BadInputs",
    "DiskSpace",
    "Downloader",
    "LocalFiles",
    "RemoteFile",
    "StoredFile",
    "Target",
    "media_type",
    "stands",
    "trouble_with",
]
