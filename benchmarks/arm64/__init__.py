"""Whether and how fast the networks run on ARM64, by emulation: kernels and instructions are exact, seconds are not."""
