"""The daemon: keeps model, key and connection warm, and serves applications on this machine."""
