"""A URL becomes an installed dataset: downloads, zips, manifests, locks. Knows nothing of networks or images."""
