"""Where the time of each request went: table `latency`. The parts and their rules are in docs/latency.md."""
