"""The chain: one file per actor, in the order in which an event passes them."""
