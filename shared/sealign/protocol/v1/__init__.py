"""Generated from proto/sealign/v1 by proto/generate.py."""
