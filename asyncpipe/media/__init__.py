"""Files of media: recognise, take in, download, keep parts.

``Downloader`` brings outputs to disk whole or not at all, ``BucketStore`` into a bucket: each is a
``Store``. ``LocalFiles`` takes in what jobs name; ``DiskSpace`` watches the free space of the disk.
"""

from asyncpipe.media.borrow import RemoteFile
from asyncpipe.media.bucket import Bucket
from asyncpipe.media.disk import GIB, DiskSpace
from asyncpipe.media.downloader import Downloader
from asyncpipe.media.formats import media_type, type_of_name
from asyncpipe.media.inspection import Inspection
from asyncpipe.media.local import BadInputs, LocalFiles, trouble_with
from asyncpipe.media.measures import Measures, measure
from asyncpipe.media.objects import BucketStore
from asyncpipe.media.parts import stands
from asyncpipe.media.source import StoredFile, Target
from asyncpipe.media.store import Store

__all__ = [
    "GIB",
    "BadInputs",
    "Bucket",
    "BucketStore",
    "DiskSpace",
    "Downloader",
    "Inspection",
    "LocalFiles",
    "Measures",
    "RemoteFile",
    "Store",
    "StoredFile",
    "Target",
    "measure",
    "media_type",
    "stands",
    "trouble_with",
    "type_of_name",
]
