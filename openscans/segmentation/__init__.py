"""Labels of voxels: the model grid, the sliding window, vertebrae and their plausibility; knows no files, no HTTP."""
