"""Files of media: recognise, take in, download, keep parts.

``Downloader`` brings outputs to disk whole or not at all; ``LocalFiles`` takes in what jobs name;
``Room`` watches the free space of the disk.
"""
