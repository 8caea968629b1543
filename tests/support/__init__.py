"""What the tests share: worlds, doubles and real servers."""
