"""Labels of voxels: the model grid, the sliding window, vertebrae, doubts. Knows nothing of files or HTTP."""
