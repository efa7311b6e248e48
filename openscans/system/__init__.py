"""What systems differ in: logs, memory, locks, files, processes, cores, devices. Knows nothing of images."""
