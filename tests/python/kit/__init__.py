"""What the Python tests share: a running gateway, raw frames, bounded waits, network namespaces."""
