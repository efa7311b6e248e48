"""All that a caller (server, cluster, script) may import; imports none of the four files at the top level."""
