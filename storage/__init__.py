"""What is remembered: the protocol, its promises as checks, the lane into worker threads, and the adapters."""
