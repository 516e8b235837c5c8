"""What every store must do, as checks: one module for each part of the protocol; `storage.conformance` lists them."""
