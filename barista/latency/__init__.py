"""What a convolution will cost, from its shape alone: latency and resource models of both arrays."""
