"""The frame that every Sealign program stands in: console, logs, settings, TLS."""
