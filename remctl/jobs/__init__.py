"""Jobs that run unattended: scripts, run as external processes, whose results outlive whoever started them."""
