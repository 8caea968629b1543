"""A pipelined SFTP v3 client. It knows nothing of mirrors and could be a package of its own."""
