"""Optional routes to other kernels and machines; the core never imports them."""
