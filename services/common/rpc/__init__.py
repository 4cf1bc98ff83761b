"""gRPC servers and channels of moln: one place for deadlines, errors, logs and metrics of calls."""
