"""The aggregation server: HTTP, storage and pages around `kbdfl.coordinator`."""
