"""Who runs a detection: the queue, the worker process, answers that are kept. Knows nothing of HTTP or of pixels."""
