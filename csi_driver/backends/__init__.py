"""What allocates bytes (pools) and turns them into devices (transports)."""
