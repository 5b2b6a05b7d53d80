"""The silo's processes: TLS, health, reflection, workers, orderly shutdown."""
