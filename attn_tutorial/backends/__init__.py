"""The same patterns through other attention kernels; the core imports none of this."""
