"""Real programs whose activity is known exactly: what tests, the demo and the samples record.

Everything stays on loopback and in temporary directories. Each workload hands back its truth: what was
asked, what was answered, by which process, on which port. Counts are primes, so that a test which multiplies
or halves something by mistake cannot come out right. Servers are ready when their context is entered, found
out without connecting to them, and stopped by pid when it is left. Only the standard library is used.
"""
