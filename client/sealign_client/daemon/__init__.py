"""The daemon: keeps models, keys and connection warm, and serves applications on this machine over gRPC."""
