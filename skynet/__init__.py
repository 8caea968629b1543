"""skynet: a one-way mirror of a local directory to any SFTP server."""

__version__ = "0.1.0"
